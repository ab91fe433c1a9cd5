//! What settings of checkpoints say comes true: how many may fail, and how far apart they are.

use std::{sync::Arc, time::Duration};

use tidemill_engine::{
    control::handle::JobHandle,
    model::{
        checkpoint_config::CheckpointConfig, config::JobConfig, error::Error, watermark::WatermarkStrategy,
    },
    platform::SimPlatform,
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    source::from_parallel_iter,
    testkit::script::{Event, ScriptSource},
};
use tidemill_storage::snapshot::disk::memory::{Faults, MemoryDisk};

/// Longer than any simulation, by the clock of the job.
const FOR_EVER_MS: u64 = 1_000_000_000;

/// Where a simulated job runs with these settings.
pub fn environment(disk: &MemoryDisk, seed: u64, checkpoints: CheckpointConfig) -> StreamEnvironment {
    let config = JobConfig {
        parallelism: 2,
        max_parallelism: Some(128),
        step_records_max: 2,
        checkpoints: Some(checkpoints),
        ..JobConfig::default()
    };
    let platform = SimPlatform::new(seed).disk(Arc::new(disk.clone())).open_world().turn_ns_max(20_000);
    StreamEnvironment::on(Arc::new(platform), config)
}

/// A job that counts for ever, and fails with so many checkpoints in a row and one.
fn bearing(disk: &MemoryDisk, failures_max: u32) -> JobHandle {
    let checkpoints =
        CheckpointConfig { interval_ms: FOR_EVER_MS, failures_max, ..CheckpointConfig::new("/job") };
    let environment = environment(disk, 1, checkpoints);
    let numbers = from_parallel_iter(|subtask, _| subtask as u64..);
    environment
        .from_source("numbers", numbers, WatermarkStrategy::none())
        .key_by(|number| number % 7)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .for_each(drop);
    environment.start().unwrap()
}

/// Asks for checkpoints while the disk is full; what is said each time.
fn failing(disk: &MemoryDisk, job: &JobHandle, times: usize) -> Vec<String> {
    disk.set_faults(Faults { capacity_bytes: Some(0), ..Faults::default() });
    let said = (0..times).map(|_| job.monitor().checkpoint().unwrap_err().to_string()).collect();
    disk.set_faults(Faults::default());
    said
}

#[test]
fn as_many_checkpoints_in_a_row_may_fail_as_the_setting_says_and_no_more() {
    for failures_max in [0, 1, 2] {
        let disk = MemoryDisk::default();
        let job = bearing(&disk, failures_max);
        let borne = failures_max as usize;
        // One that is complete in between makes good for those before it.
        for _ in 0..2 {
            for said in failing(&disk, &job, borne) {
                assert!(
                    said.contains("the checkpoint failed: ") && said.contains("no storage space"),
                    "{said}"
                );
            }
            job.monitor().checkpoint().unwrap();
        }
        let said = failing(&disk, &job, borne + 1).pop().unwrap();
        let counts =
            format!("{} checkpoints in a row failed, and failures_max is {failures_max}", failures_max + 1);
        assert!(said.starts_with(&counts) && said.contains("no storage space"), "{said}");
        let ended = job.wait().unwrap_err();
        assert!(matches!(ended, Error::Checkpoint(_)) && ended.to_string() == said, "{ended}");
    }
}

/// How many checkpoints a job completes in 400 milliseconds in which nothing comes.
fn completed(seed: u64, pause_ms_min: u64) -> u64 {
    let checkpoints = CheckpointConfig { interval_ms: 1, pause_ms_min, ..CheckpointConfig::new("/job") };
    let environment = environment(&MemoryDisk::default(), seed, checkpoints);
    let silent = || vec![Event::Wait(Duration::from_millis(400)), Event::Record(1_u64)];
    environment
        .from_source("numbers", ScriptSource::of_events([silent(), silent()]), WatermarkStrategy::none())
        .for_each(drop);
    environment.execute().unwrap().checkpoints.completed
}

#[test]
fn checkpoints_are_at_least_the_pause_apart() {
    for seed in 0..5 {
        // The last one comes at the end of the input, whenever the one before was.
        let (paused, unpaused) = (completed(seed, 50), completed(seed, 0));
        assert!((7..=9).contains(&paused), "seed {seed}: {paused}");
        assert!(unpaused > 100, "seed {seed}: {unpaused}");
    }
}
