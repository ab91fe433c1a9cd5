//! Savepoints in directories: a job goes on while one is written, whatever becomes of it, and one needs nothing of the job that took it.

use std::{fs, path::Path, sync::Arc};

use tidemill_engine::{
    control::{handle::JobHandle, manifest::JobManifest},
    model::{checkpoint_config::CheckpointConfig, config::JobConfig, watermark::WatermarkStrategy},
    platform::{SimFaults, SimPlatform, remote::MemoryStore},
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    source::{Feeder, channel},
};
use tidemill_storage::snapshot::disk::{
    Disk,
    memory::{Faults, MemoryDisk},
    os::OsDisk,
};

use super::{
    recovery::{Place, rows},
    savepoints::{check_going_on, endless, on},
};

/// Longer than any simulation, by the clock of the job.
const FOR_EVER_MS: u64 = 1_000_000_000;
const TARGET: &str = "/savepoint";
const KEYS: u64 = 1_000;
/// Of the state of each key.
const WORDS: usize = 1_000;

/// A job with eight megabytes of state, of which a simulated disk copies a gigabyte in a second.
struct Large {
    job: JobHandle,
    disk: MemoryDisk,
    _feed: Feeder<u64>,
}

impl Large {
    fn start(interval_ms: u64, timeout_ms: u64) -> Self {
        let disk = MemoryDisk::default();
        let checkpoints =
            CheckpointConfig { interval_ms, timeout_ms, retained_max: 1, ..CheckpointConfig::new("/job") };
        let config = JobConfig {
            parallelism: 2,
            max_parallelism: Some(128),
            checkpoints: Some(checkpoints),
            ..JobConfig::default()
        };
        let platform = SimPlatform::new(3).disk(Arc::new(disk.clone())).open_world().turn_ns_max(20_000);
        let environment = StreamEnvironment::on(Arc::new(platform), config);
        let (feed, fed) = channel::<u64>(16);
        environment
            .from_source("fed", fed, WatermarkStrategy::none())
            .key_by(|number| *number)
            .fold(Vec::new(), |words: &mut Vec<u64>, number| words.resize(WORDS, number.to_native()))
            .for_each(drop);
        let job = environment.start().unwrap();
        (0..KEYS).for_each(|key| feed.send(key).unwrap());
        let is_in = |job: &JobHandle| {
            job.metrics().operator("fold").is_some_and(|fold| fold.counters.records_in == KEYS)
        };
        while !is_in(&job) {}
        job.monitor().checkpoint().unwrap();
        Self { job, disk, _feed: feed }
    }

    fn target_bytes(&self) -> u64 {
        self.disk.used_bytes_in(Path::new(TARGET))
    }
}

#[test]
fn checkpoints_go_on_while_a_savepoint_is_copied() {
    let Large { job, disk, _feed } = Large::start(1, FOR_EVER_MS);
    let before = job.metrics().checkpoints.completed;
    job.monitor().savepoint(TARGET).unwrap();
    let stats = job.metrics().checkpoints;
    assert!(stats.completed >= before + 5, "{before}, and then {stats:?}");
    assert!(disk.used_bytes_in(Path::new(TARGET)) > KEYS * WORDS as u64 * 8);
    // Those behind it have taken the place of the checkpoint that it is of.
    job.monitor().checkpoint().unwrap();
    assert_eq!(disk.list(Path::new("/job/checkpoints")).unwrap().len(), 1);
    job.monitor().stop().unwrap();
    job.wait().unwrap();
}

#[test]
fn a_savepoint_that_takes_too_long_fails_alone_and_is_taken_away() {
    let large = Large::start(FOR_EVER_MS, 4);
    let message = large.job.monitor().savepoint(TARGET).unwrap_err().to_string();
    assert!(message.contains("was not in /savepoint when its time was up"), "{message}");
    assert_eq!(large.target_bytes(), 0);
    large.job.monitor().checkpoint().unwrap();
    // Where the job stands still behind it, it takes as long as it takes.
    large.job.monitor().stop_with_savepoint(TARGET, false).unwrap();
    assert!(large.target_bytes() > 0);
    assert_eq!(large.job.wait().unwrap().checkpoints.restarts, 0);
}

#[test]
fn a_target_that_fills_up_fails_its_savepoint_and_the_job_goes_on() {
    let large = Large::start(FOR_EVER_MS, FOR_EVER_MS);
    let capacity_bytes = Some(large.disk.used_bytes() + 4_000_000);
    large.disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    let monitor = large.job.monitor();
    for (is_stop, restarts) in [(false, 0), (true, 1)] {
        let asked =
            if is_stop { monitor.stop_with_savepoint(TARGET, false) } else { monitor.savepoint(TARGET) };
        let message = asked.unwrap_err().to_string();
        assert!(message.contains("/savepoint/") && message.contains("no storage space"), "{message}");
        assert_eq!(large.target_bytes(), 0, "what was copied is taken away");
        monitor.checkpoint().unwrap();
        assert_eq!(
            monitor.metrics().checkpoints.restarts,
            restarts,
            "a stop that failed goes on from its checkpoint"
        );
    }
    large.disk.set_faults(Faults::default());
    monitor.stop_with_savepoint(TARGET, false).unwrap();
    assert_eq!(large.job.wait().unwrap().checkpoints.failed, 0, "no checkpoint fails with its savepoint");
}

#[test]
fn a_target_that_cannot_be_written_is_refused_before_anything_is_stopped() {
    let large = Large::start(FOR_EVER_MS, FOR_EVER_MS);
    let monitor = large.job.monitor();
    large.disk.set_faults(Faults { read_only: true, ..Faults::default() });
    for asked in [monitor.savepoint(TARGET), monitor.stop_with_savepoint(TARGET, false)] {
        let message = asked.unwrap_err().to_string();
        assert!(message.contains("cannot write a savepoint in /savepoint: read-only"), "{message}");
    }
    large.disk.set_faults(Faults::default());
    for target in ["/job", "/job/savepoint"] {
        let message = monitor.stop_with_savepoint(target, false).unwrap_err().to_string();
        assert!(message.contains("the directory is the job's own, or in it"), "{message}");
    }
    monitor.stop().unwrap();
    assert_eq!(large.job.wait().unwrap().checkpoints.restarts, 0);

    // On a real disk.
    let place = Place::new();
    let job = place.describe_endless(place.config()).start().unwrap();
    let file = place.0.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let message = job.monitor().stop_with_savepoint(file.join("savepoint"), false).unwrap_err().to_string();
    assert!(message.contains("cannot create ") && message.contains("file/savepoint"), "{message}");
    job.monitor().suspend().unwrap();
    assert_eq!(job.wait().unwrap().checkpoints.restarts, 0);
}

#[test]
fn a_second_savepoint_is_not_written_to_a_directory_while_one_is() {
    let large = Large::start(FOR_EVER_MS, FOR_EVER_MS);
    let asked = [large.job.monitor(), large.job.monitor()]
        .map(|monitor| std::thread::spawn(move || monitor.savepoint(TARGET)))
        .map(|asked| asked.join().unwrap());
    let refused: Vec<_> = asked.iter().filter_map(|asked| asked.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{asked:?}");
    let message = refused[0].to_string();
    let is_said = |part| message.contains(part);
    assert!(
        is_said("another savepoint is being written") || is_said("holds a savepoint already"),
        "{message}"
    );
    assert!(large.target_bytes() > 0);
    large.job.cancel();
}

/// Stops a job behind a savepoint whose checkpoint has rows to commit: none came before it.
fn stop_with_rows_before_the_barrier(place: &Place, savepoint: &Path) {
    let mut config = place.config();
    config.checkpoints.as_mut().unwrap().interval_ms = 3_600_000;
    let job = place.describe_endless(config).start().unwrap();
    while job.metrics().operator("rows").is_none_or(|rows| rows.counters.records_in == 0) {}
    job.monitor().stop_with_savepoint(savepoint, false).unwrap();
    job.wait().unwrap();
}

#[test]
fn a_fork_of_a_savepoint_needs_no_file_of_the_job_that_took_it() {
    let place = Place::new();
    let savepoint = place.0.path().join("savepoint");
    stop_with_rows_before_the_barrier(&place, &savepoint);
    let rows_before = place.check_endless();
    // Another directory for the rows: none of those that the savepoint follows are there.
    let fork = Place::new();
    let mut config = fork.config();
    config.checkpoints.as_mut().unwrap().savepoint = Some((&savepoint).into());
    fork.run_for_a_while(config).unwrap();
    let mut all = rows(&place.0.path().join("rows"));
    let of_fork = rows(&fork.0.path().join("rows"));
    assert!(!of_fork.is_empty());
    all.extend(&of_fork);
    all.sort_unstable();
    let different = all.windows(2).filter(|two| two[0] != two[1]).count() + 1;
    assert_eq!((all.len(), different), (rows_before + of_fork.len(), all.len()), "a row is there twice");

    // A consumer has taken the files away.
    fs::remove_dir_all(place.checkpoints()).unwrap();
    for entry in fs::read_dir(place.0.path().join("rows")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    let mut config = place.config();
    config.checkpoints.as_mut().unwrap().savepoint = Some((&savepoint).into());
    place.run_for_a_while(config).unwrap();
    assert!(!rows(&place.0.path().join("rows")).is_empty());
}

#[test]
fn a_savepoint_that_names_what_sinks_prepared_has_it_committed() {
    // As earlier versions wrote them, whose process may have died before it had committed.
    let place = Place::new();
    let savepoint = place.0.path().join("savepoint");
    stop_with_rows_before_the_barrier(&place, &savepoint);
    let file = savepoint.join("savepoint");
    let mut manifest = JobManifest::read(&OsDisk::default(), &file, &savepoint).unwrap();
    let none = manifest.operators.keys().flat_map(|id| manifest.committables(id)).count();
    assert_eq!(none, 0, "it is there only when all is committed");
    let missing = br#"{"name":"part-77-0-0.csv","bytes":4}"#.to_vec();
    let sink = manifest.operators.values_mut().find(|operator| operator.name == "rows");
    match sink {
        Some(sink) => sink.subtasks[0].committables.push(missing),
        None => panic!("the sink has no part in it"),
    }
    fs::write(&file, manifest.encode(&savepoint)).unwrap();
    fs::remove_dir_all(place.checkpoints()).unwrap();
    let mut config = place.config();
    config.checkpoints.as_mut().unwrap().savepoint = Some((&savepoint).into());
    let message = place.run_for_a_while(config.clone()).unwrap_err().to_string();
    assert!(message.contains("part-77-0-0.csv"), "{message}");
    fs::write(place.0.path().join("rows/.tidemill/part-77-0-0.csv.inprogress"), "1,1\n").unwrap();
    place.run_for_a_while(config).unwrap();
    assert_eq!(fs::read_to_string(place.0.path().join("rows/part-77-0-0.csv")).unwrap(), "1,1\n");
}

#[test]
fn whenever_the_process_dies_that_takes_a_savepoint_no_row_is_committed_twice_behind_it() {
    let (mut there, mut missing) = (0, 0);
    for turn in (20..260).step_by(4) {
        let (disk, store) = (MemoryDisk::default(), MemoryStore::default());
        let dying = disk.clone();
        let cut = move || dying.set_faults(Faults { dead_from: Some(0), ..Faults::default() });
        let faults =
            SimFaults { kill_at_turn: Some(turn), on_kill: Some(Arc::new(cut)), ..SimFaults::default() };
        let platform = on(&disk, &store, turn).faults(faults);
        let own = || CheckpointConfig::new("/first");
        let job = endless(platform, 2, own()).start().unwrap();
        let saved = job.monitor().stop_with_savepoint(TARGET, false);
        drop(job.wait());
        if turn % 8 == 0 {
            disk.end_process();
        } else {
            disk.crash(turn);
        }
        let is_there = disk.contents(&Path::new(TARGET).join("savepoint")).is_some();
        assert!(is_there || saved.is_err(), "killed at turn {turn}");
        let checkpoints = if is_there {
            there += 1;
            CheckpointConfig { savepoint: Some(TARGET.into()), ..CheckpointConfig::new("/second") }
        } else {
            missing += 1;
            if disk.list(Path::new("/first/checkpoints")).unwrap().is_empty() {
                continue;
            }
            own()
        };
        let next = endless(on(&disk, &store, 9), 3, checkpoints);
        check_going_on(&disk, next, &format!("killed at turn {turn}"));
    }
    assert!(there >= 5 && missing >= 5, "{there} there, {missing} missing");
}
