//! The rolling file sink under crashes: at every operation on the disk, and at every turn of a simulated job, each row is
//! committed exactly once and nobody sees one before; or at least once, and then soon.
#![allow(clippy::unwrap_used)]

mod source_kit;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use source_kit::context;
use tidemill_engine::{
    model::{
        checkpoint::Committable,
        checkpoint_config::CheckpointConfig,
        config::JobConfig,
        sink::{CommitContext, Committer, Sink, SinkWriter},
        source::{BoxError, SubtaskContext},
        watermark::WatermarkStrategy,
    },
    platform::{Clock, Nanos, SimFaults, SimPlatform},
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sink::{DeliveryGuarantee, FileSink, FileSinkWriter},
    source::from_vec,
};
use tidemill_storage::snapshot::disk::{
    Disk,
    memory::{Faults, MemoryDisk},
    os::OsDisk,
};

const OUT: &str = "/out";
const ROWS: u64 = 60;

fn sink() -> FileSink {
    FileSink::csv(OUT).roll_bytes(20).header(false)
}

fn committer(sink: &FileSink, disk: &Arc<dyn Disk>) -> Result<Box<dyn Committer>, BoxError> {
    let context = CommitContext {
        job: "job".into(),
        operator: "sink".into(),
        disk: Arc::clone(disk),
        connections: Arc::default(),
    };
    Ok(Sink::<u64>::committer(sink, &context)?.unwrap())
}

fn writer(sink: &FileSink, subtask: usize, disk: &Arc<dyn Disk>) -> Result<FileSinkWriter, BoxError> {
    Sink::<u64>::open(sink, &SubtaskContext { disk: Arc::clone(disk), ..context(subtask, 2, true) })
}

/// The newest complete checkpoint: where the source stands, and what the sink has prepared.
#[derive(Clone, Default)]
struct Checkpoint {
    position: u64,
    committables: Vec<Committable>,
}

/// One life of a process that writes the rows from the checkpoint on.
fn live(disk: &MemoryDisk, newest: &mut Checkpoint) -> Result<(), BoxError> {
    live_with(sink(), disk, newest)
}

fn live_with(mut sink: FileSink, disk: &MemoryDisk, newest: &mut Checkpoint) -> Result<(), BoxError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Sink::<u64>::prepare(&mut sink, 2)?;
    let mut committer = committer(&sink, &disk)?;
    committer.recover(&newest.committables)?;
    let mut writers = [writer(&sink, 0, &disk)?, writer(&sink, 1, &disk)?];
    let mut position = newest.position;
    // What was prepared for a checkpoint that failed goes with the next one.
    let mut prepared = Vec::new();
    while position < ROWS {
        for _ in 0..12 {
            writers[position as usize % 3 % 2].write(position, 0)?;
            position += 1;
        }
        for writer in &mut writers {
            prepared.extend(SinkWriter::<u64>::pre_commit(writer, 1)?);
        }
        if committer.secure(&prepared).is_err() && position < ROWS {
            continue;
        }
        committer.secure(&prepared)?;
        *newest = Checkpoint { position, committables: prepared.clone() };
        committer.commit(&prepared)?;
        prepared.clear();
    }
    writers.iter_mut().try_for_each(SinkWriter::<u64>::finish)
}

/// All rows that a reader sees, sorted.
fn visible(disk: &MemoryDisk) -> Vec<u64> {
    let files = disk.list(Path::new(OUT)).unwrap();
    let files = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "csv"));
    let text: String = files.map(|path| String::from_utf8(disk.contents(path).unwrap()).unwrap()).collect();
    assert!(text.is_empty() || text.ends_with('\n'), "half a file");
    let mut rows: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    rows.sort_unstable();
    rows
}

/// A life in which an operation fails (seed 0), or from which on the disk is dead, behind which the power is cut: what it leaves.
fn first_life(sink: FileSink, at: u64, seed: u64) -> (MemoryDisk, Checkpoint, Result<(), BoxError>) {
    let (disk, mut newest) = (MemoryDisk::default(), Checkpoint::default());
    let is_fault = seed == 0;
    disk.set_faults(if is_fault {
        Faults { fail_at: Some(at), ..Faults::default() }
    } else {
        Faults { dead_from: Some(at), ..Faults::default() }
    });
    let ended = live_with(sink, &disk, &mut newest);
    if !is_fault {
        assert!(ended.is_err(), "operation {at}");
        disk.crash(seed + 100 * at);
    }
    (disk, newest, ended)
}

/// Files that have no names.
fn unnamed(disk: &MemoryDisk) -> Vec<PathBuf> {
    let mut hidden = disk.list(&Path::new(OUT).join(".tidemill")).unwrap();
    hidden.retain(|path| path.to_string_lossy().ends_with("inprogress"));
    hidden
}

#[test]
fn a_crash_or_a_fault_at_any_operation_loses_and_doubles_nothing() {
    let disk = MemoryDisk::default();
    live(&disk, &mut Checkpoint::default()).unwrap();
    let operations = disk.operations();
    assert!(operations > 100, "{operations}");
    for at in 0..operations {
        for seed in 0..6 {
            let (disk, mut newest, mut first) = first_life(sink(), at, seed);
            if seed > 0 {
                // It dies once more while it recovers.
                disk.set_faults(Faults { dead_from: Some(at % 9), ..Faults::default() });
                first = live(&disk, &mut newest);
                disk.crash(seed + 1 + 100 * at);
            }
            let seen = visible(&disk);
            assert!(seen.iter().all(|row| *row < newest.position), "operation {at}, seed {seed}");
            assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "operation {at}, seed {seed}: {seen:?}");
            if first.is_err() {
                live(&disk, &mut newest)
                    .unwrap_or_else(|error| panic!("operation {at}, seed {seed}: {error}"));
            }
            assert_eq!(visible(&disk), (0..ROWS).collect::<Vec<_>>(), "operation {at}, seed {seed}");
            assert_eq!(unnamed(&disk), Vec::<PathBuf>::new(), "operation {at}, seed {seed}");
        }
    }
}

fn at_least_once() -> FileSink {
    sink().delivery_guarantee(DeliveryGuarantee::AtLeastOnce)
}

#[test]
fn a_crash_or_a_fault_at_any_operation_loses_nothing_that_may_come_twice() {
    let disk = MemoryDisk::default();
    live_with(at_least_once(), &disk, &mut Checkpoint::default()).unwrap();
    assert_eq!(visible(&disk), (0..ROWS).collect::<Vec<_>>(), "nothing comes twice when nothing fails");
    let mut twice = 0;
    for at in 0..disk.operations() {
        for seed in 0..6 {
            let (disk, mut newest, first) = first_life(at_least_once(), at, seed);
            // Whole files, with all rows that are in a checkpoint.
            let seen = visible(&disk);
            let lost = (0..newest.position).find(|row| !seen.contains(row));
            assert_eq!(lost, None, "operation {at}, seed {seed}: {seen:?}");
            if first.is_err() {
                live_with(at_least_once(), &disk, &mut newest)
                    .unwrap_or_else(|error| panic!("operation {at}, seed {seed}: {error}"));
            }
            let mut rows = visible(&disk);
            let all = rows.len();
            rows.dedup();
            twice += all - rows.len();
            assert_eq!(rows, (0..ROWS).collect::<Vec<_>>(), "operation {at}, seed {seed}");
            assert_eq!(unnamed(&disk), Vec::<PathBuf>::new(), "operation {at}, seed {seed}");
        }
    }
    assert!(twice > 0, "rows were visible before their checkpoint was complete");
}

#[test]
fn rows_that_may_come_twice_are_visible_when_a_file_is_closed_and_may_be_taken_away_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    let sink = |guarantee| {
        let mut sink = FileSink::csv(&out).header(false).roll_bytes(8).delivery_guarantee(guarantee);
        Sink::<u64>::prepare(&mut sink, 1).unwrap();
        sink
    };
    let early = sink(DeliveryGuarantee::AtLeastOnce);
    let mut first = committer(&early, &disk).unwrap();
    first.recover(&[]).unwrap();
    let mut writer = Sink::<u64>::open(&early, &context(0, 1, false)).unwrap();
    // When it is full, by a thread of its own.
    writer.write(123_456_789_u64, 0).unwrap();
    let (full, rest) = (out.join("part-1-0-0.csv"), out.join("part-1-0-1.csv"));
    while !full.exists() {
        thread::yield_now();
    }
    assert_eq!(std::fs::read_to_string(&full).unwrap(), "123456789\n");
    writer.write(1_u64, 0).unwrap();
    // When its barrier has passed; the checkpoint is not complete.
    let prepared = SinkWriter::<u64>::pre_commit(&mut writer, 1).unwrap();
    assert!(!rest.exists() && prepared.len() == 2);
    std::fs::remove_file(&full).unwrap();
    first.secure(&prepared).unwrap();
    assert_eq!(std::fs::read_to_string(&rest).unwrap(), "1\n");
    // It is not: what is visible stays so, and goes with the next one.
    first.abort(&prepared).unwrap();
    first.secure(&prepared).unwrap();
    std::fs::remove_file(&rest).unwrap();
    first.commit(&prepared).unwrap();
    first.recover(&prepared).unwrap();
    assert!(!full.exists() && !rest.exists(), "nobody brings back what was taken");
    drop(first);
    // Nor does anybody miss it who promises more by now.
    let late = sink(DeliveryGuarantee::ExactlyOnce);
    let mut second = committer(&late, &disk).unwrap();
    second.recover(&prepared).unwrap();
    // What was prepared under the other promise is kept.
    let mut writer = Sink::<u64>::open(&late, &context(0, 1, false)).unwrap();
    writer.write(2_u64, 0).unwrap();
    let prepared = SinkWriter::<u64>::pre_commit(&mut writer, 1).unwrap();
    second.secure(&prepared).unwrap();
    drop(second);
    assert!(!out.join("part-3-0-0.csv").exists());
    committer(&early, &disk).unwrap().recover(&prepared).unwrap();
    assert_eq!(std::fs::read_to_string(out.join("part-3-0-0.csv")).unwrap(), "2\n");
}

#[test]
fn a_job_that_begins_from_nothing_where_an_earlier_run_has_committed_is_refused_unless_that_is_meant() {
    let disk = MemoryDisk::default();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let begin_anew = |sink: &FileSink| committer(sink, &shared).unwrap().begin_anew();
    // Whatever is there that no such sink has named, and files that no checkpoint has.
    begin_anew(&sink()).unwrap();
    for other in ["rows.csv", "part-0", "part-00000.csv", "part-1-2.csv", "part-1-x-3.csv", "part-1-2-3"] {
        disk.put(&Path::new(OUT).join(other), b"1\n");
    }
    disk.put(&Path::new(OUT).join(".tidemill/part-1-0-0.csv.inprogress"), b"1\n");
    begin_anew(&sink()).unwrap();
    disk.put(&Path::new(OUT).join("part-10-0-1.csv"), b"1\n");
    disk.put(&Path::new(OUT).join("part-7-0-0.jsonl"), b"1\n");
    let before = disk.files();
    let error = begin_anew(&sink()).unwrap_err().to_string();
    assert_eq!(disk.files(), before);
    let parts = [
        "begin anew in /out",
        "2 committed files",
        "such as /out/part-10-0-1.csv",
        "bring it back",
        "move",
        "append",
    ];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    begin_anew(&sink().append()).unwrap();
    begin_anew(&at_least_once()).unwrap();
    // A checkpoint or savepoint that names no files is not nothing.
    committer(&sink(), &shared).unwrap().recover(&[]).unwrap();
}

#[test]
fn what_was_committed_is_recovered_and_what_is_lost_is_told() {
    let disk = MemoryDisk::default();
    let mut newest = Checkpoint::default();
    live(&disk, &mut newest).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    // Committed already: nothing happens, also the second time.
    let mut again = committer(&sink(), &shared).unwrap();
    again.recover(&newest.committables).unwrap();
    again.recover(&newest.committables).unwrap();
    // One of the files is cut short, then gone.
    let file =
        disk.list(Path::new(OUT)).unwrap().into_iter().rfind(|path| path.extension().is_some()).unwrap();
    disk.put(&file, b"1\n");
    let error = again.commit(&newest.committables).unwrap_err().to_string();
    assert!(error.contains("it has 2 bytes") && error.contains(file.to_str().unwrap()), "{error}");
    disk.remove(&file).unwrap();
    let error = again.commit(&newest.committables).unwrap_err().to_string();
    assert!(error.contains("neither it nor") && error.contains(file.to_str().unwrap()), "{error}");
    let error = again.recover(&newest.committables).unwrap_err().to_string();
    assert!(error.contains("neither it nor") && error.contains(file.to_str().unwrap()), "{error}");
    // As earlier versions named files.
    let error = again.recover(&[br#"{"name":"part-9-0-0.csv","bytes":1}"#.to_vec()]).unwrap_err().to_string();
    assert!(error.contains("neither it nor") && error.contains("part-9-0-0.csv"), "{error}");
    let error = again.commit(&[br#"{"name":"part-../../x","bytes":1}"#.to_vec()]).unwrap_err().to_string();
    assert!(error.contains("another sink"), "{error}");
    // Two jobs do not share a directory.
    let error = committer(&sink(), &shared).err().unwrap().to_string();
    assert!(error.contains("in use"), "{error}");
}

#[test]
fn a_file_that_could_not_be_made_durable_is_never_believed() {
    let disk = MemoryDisk::default();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let sink = sink();
    let mut committer = committer(&sink, &shared).unwrap();
    committer.recover(&[]).unwrap();
    let mut writer = writer(&sink, 0, &shared).unwrap();
    writer.write(7_u64, 0).unwrap();
    let prepared = SinkWriter::<u64>::pre_commit(&mut writer, 1).unwrap();
    disk.set_faults(Faults { fail_at: Some(0), ..Faults::default() });
    assert!(committer.secure(&prepared).is_err());
    let error = committer.secure(&prepared).unwrap_err().to_string();
    assert!(error.contains("could not be made durable before"), "{error}");
    // Without checkpoints it is given up.
    committer.abort(&prepared).unwrap();
    assert!(
        disk.list(&Path::new(OUT).join(".tidemill"))
            .unwrap()
            .iter()
            .all(|path| !path.ends_with("inprogress"))
    );
}

struct SetClock(std::sync::atomic::AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> Nanos {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn wall_millis(&self) -> i64 {
        0
    }
}

#[test]
fn files_roll_by_size_time_and_checkpoint_on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    let clock = Arc::new(SetClock(0.into()));
    let out = directory.path().join("made");
    let sink = FileSink::csv(&out).columns(["n"]).roll_bytes(8).roll_after(Duration::from_secs(10));
    let mut committer = committer(&sink, &disk).unwrap();
    committer.recover(&[]).unwrap();
    let context = SubtaskContext { clock: clock.clone(), ..context(0, 1, false) };
    let mut writer = Sink::<u64>::open(&sink, &context).unwrap();
    let commit = |writer: &mut FileSinkWriter, committer: &mut dyn Committer| {
        let prepared = SinkWriter::<u64>::pre_commit(writer, 1).unwrap();
        committer.secure(&prepared).unwrap();
        committer.commit(&prepared).unwrap();
        prepared.len()
    };
    let contents = || {
        let mut files: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let files = files.iter().filter(|path| path.is_file());
        files.map(|path| std::fs::read_to_string(path).unwrap()).collect::<Vec<_>>()
    };
    // No row, no file.
    assert_eq!(commit(&mut writer, &mut *committer), 0);
    // By size: a row of nine digits fills a file.
    writer.write(123_456_789_u64, 0).unwrap();
    writer.write(1_u64, 0).unwrap();
    assert_eq!(contents(), [""; 0]);
    assert_eq!(commit(&mut writer, &mut *committer), 2);
    assert_eq!(contents(), ["n\n123456789\n", "n\n1\n"]);
    // By time.
    writer.write(2_u64, 0).unwrap();
    clock.0.store(11_000_000_000, std::sync::atomic::Ordering::SeqCst);
    SinkWriter::<u64>::flush(&mut writer).unwrap();
    writer.write(3_u64, 0).unwrap();
    assert_eq!(commit(&mut writer, &mut *committer), 2);
    assert_eq!(contents().len(), 4);
    // The next attempt gives other names; what the last one left is gone.
    writer.write(4_u64, 0).unwrap();
    SinkWriter::<u64>::flush(&mut writer).unwrap();
    committer.recover(&[]).unwrap();
    let mut writer = Sink::<u64>::open(&sink, &context).unwrap();
    writer.write(5_u64, 0).unwrap();
    assert_eq!(commit(&mut writer, &mut *committer), 1);
    assert_eq!(contents().len(), 5);
    assert!(out.join("part-2-0-0.csv").exists());
    assert_eq!(std::fs::read_dir(out.join(".tidemill")).unwrap().count(), 2, "the lock and the attempt");
}

fn job(environment: &StreamEnvironment) {
    environment
        .from_source("numbers", from_vec((0..ROWS * 20).collect()), WatermarkStrategy::none())
        .rebalance()
        .map(|number| number.to_native())
        .sink("files", sink());
}

#[test]
fn a_simulated_job_that_is_killed_at_any_turn_commits_every_row_once() {
    let mut all_deaths = 0;
    for seed in 0..60_u64 {
        let disk = MemoryDisk::default();
        let mut deaths = 0;
        loop {
            let faults = if deaths < 3 {
                let dying = disk.clone();
                let cut = move || dying.set_faults(Faults { dead_from: Some(0), ..Faults::default() });
                SimFaults {
                    kill_at_turn: Some((seed * 37 + deaths * 101) % 300),
                    on_kill: Some(Arc::new(cut)),
                    ..SimFaults::default()
                }
            } else {
                SimFaults::default()
            };
            let platform = SimPlatform::new(seed * 10 + deaths).disk(Arc::new(disk.clone())).faults(faults);
            let checkpoints = CheckpointConfig { interval_ms: 1, ..CheckpointConfig::new("/checkpoints") };
            let config = JobConfig {
                parallelism: 1 + ((seed + deaths) % 3) as usize,
                step_records_max: 8,
                max_parallelism: Some(128),
                checkpoints: Some(checkpoints),
                ..JobConfig::default()
            };
            let environment = StreamEnvironment::on(Arc::new(platform.turn_ns_max(200_000)), config);
            job(&environment);
            match environment.execute() {
                Ok(_) => break,
                Err(error) => assert!(deaths < 3, "seed {seed}: {error}"),
            }
            disk.crash(seed + deaths);
            deaths += 1;
            all_deaths += 1;
            let seen = visible(&disk);
            assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: a row is there twice");
        }
        assert_eq!(visible(&disk), (0..ROWS * 20).collect::<Vec<_>>(), "seed {seed}");
    }
    assert!(all_deaths > 60, "{all_deaths}");
}

#[test]
fn files_are_made_durable_while_state_is_written() {
    let mut ahead = 0;
    for seed in 0..20 {
        let disk = MemoryDisk::default();
        let platform = SimPlatform::new(seed).disk(Arc::new(disk.clone())).turn_ns_max(200_000);
        let trace = platform.trace();
        let checkpoints = CheckpointConfig { interval_ms: 1, ..CheckpointConfig::new("/checkpoints") };
        let config = JobConfig {
            parallelism: 2,
            step_records_max: 8,
            max_parallelism: Some(128),
            checkpoints: Some(checkpoints),
            ..JobConfig::default()
        };
        let environment = StreamEnvironment::on(Arc::new(platform), config);
        environment
            .from_source("numbers", from_vec((0..ROWS * 5).collect()), WatermarkStrategy::none())
            .key_by(|number| *number)
            .fold(0, |last: &mut u64, number| *last = number.to_native())
            .map(|(_, number)| number)
            .sink("files", sink());
        environment.execute().unwrap();
        assert_eq!(visible(&disk), (0..ROWS * 5).collect::<Vec<_>>(), "seed {seed}");
        let trace = trace.to_string();
        ahead += trace.lines().filter(|line| line.ends_with("sinks are ahead of its state")).count();
        // The end waits for both.
        let end = trace.lines().last().unwrap_or_default();
        assert!(!end.ends_with("sinks are ahead of its state"), "{trace}");
    }
    assert!(ahead > 20, "{ahead}");
}

#[test]
fn a_job_without_checkpoints_commits_at_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let environment = StreamEnvironment::with_config(JobConfig { parallelism: 2, ..JobConfig::default() });
    environment
        .from_source("numbers", from_vec((0..100_u64).collect()), WatermarkStrategy::none())
        .sink("files", FileSink::json_lines(&out).roll_bytes(20));
    environment.execute().unwrap();
    let files =
        std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let text: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mut rows: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    rows.sort_unstable();
    assert_eq!(rows, (0..100).collect::<Vec<_>>());
}
