//! A process that dies while it restores its state: at any turn, and at any operation on the disk. The checkpoint is still whole.

use std::sync::Arc;

use tidemill_engine::{
    model::{
        checkpoint_config::CheckpointConfig, config::JobConfig, error::Error, metrics::JobMetrics,
        watermark::WatermarkStrategy,
    },
    platform::{SimFaults, SimPlatform},
};
use tidemill_operators::{api::environment::StreamEnvironment, sink::FileSink, source::from_vec};
use tidemill_storage::snapshot::disk::{
    Disk,
    memory::{Faults, MemoryDisk},
};

const RECORDS: u64 = 400;
const KEYS: u64 = 7;
const OUT: &str = "/rows";
/// The turn at which the first process dies, behind some checkpoints and before the end.
const FIRST_DIES_AT: u64 = 200;

/// A life of the process; it keeps one checkpoint and takes the next as soon as it can, so that whatever it takes away too early
/// is missed.
fn live(
    disk: &MemoryDisk,
    life: u64,
    parallelism: usize,
    kill_at_turn: Option<u64>,
) -> Result<JobMetrics, Error> {
    let dying = disk.clone();
    let cut = move || dying.set_faults(Faults { dead_from: Some(0), ..Faults::default() });
    let faults = SimFaults { kill_at_turn, on_kill: Some(Arc::new(cut)), ..SimFaults::default() };
    let platform = SimPlatform::new(life).disk(Arc::new(disk.clone())).faults(faults).turn_ns_max(20_000);
    let checkpoints =
        CheckpointConfig { interval_ms: 1, retained_max: 1, ..CheckpointConfig::new("/checkpoints") };
    let config = JobConfig {
        parallelism,
        step_records_max: 2,
        batch_records_max: 2,
        checkpoints: Some(checkpoints),
        ..JobConfig::default()
    };
    let environment = StreamEnvironment::on(Arc::new(platform), config);
    environment
        .from_source("numbers", from_vec((0..RECORDS).collect()), WatermarkStrategy::none())
        .key_by(|number| number % KEYS)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .sink("rows", FileSink::csv(OUT).header(false));
    environment.execute()
}

/// A disk that a process left that died after some checkpoints.
fn left_behind() -> MemoryDisk {
    let disk = MemoryDisk::default();
    assert!(live(&disk, 1, 2, Some(FIRST_DIES_AT)).is_err());
    disk.crash(1);
    disk
}

/// Fails unless a process goes on from a checkpoint and every count is there once in the end.
fn check(disk: &MemoryDisk, case: &str) {
    let metrics = live(disk, 3, 3, None).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(metrics.checkpoints.restored_from.is_some(), "{case}: it began anew");
    let files = disk.list(OUT.as_ref()).unwrap();
    let text: String = files
        .iter()
        .filter_map(|path| disk.contents(path))
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .collect();
    let mut rows: Vec<&str> = text.lines().collect();
    let expected = (0..RECORDS).map(|number| format!("{},{}", number % KEYS, number / KEYS + 1));
    let mut expected: Vec<String> = expected.collect();
    rows.sort_unstable();
    expected.sort_unstable();
    assert_eq!(rows, expected, "{case}");
}

#[test]
fn a_process_that_is_killed_at_any_turn_behind_a_restore_leaves_its_checkpoint_whole() {
    for turn in 0..140 {
        let disk = left_behind();
        let killed = live(&disk, 2, 1 + turn as usize % 4, Some(turn));
        if turn % 3 == 0 {
            disk.end_process();
        } else {
            disk.crash(turn);
        }
        assert!(killed.is_err(), "turn {turn}: the job was over before");
        check(&disk, &format!("killed at turn {turn}"));
    }
}

#[test]
fn a_disk_that_dies_at_any_operation_of_a_restore_leaves_the_checkpoint_whole() {
    for operation in 0..60 {
        let disk = left_behind();
        disk.set_faults(Faults { dead_from: Some(operation), ..Faults::default() });
        let died = live(&disk, 2, 1 + operation as usize % 4, None);
        assert!(died.is_err(), "operation {operation}: the job was over before");
        disk.crash(operation);
        check(&disk, &format!("dead from operation {operation}"));
    }
}
