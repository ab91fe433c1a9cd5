//! Savepoints in remote stores: jobs that write them, begin with them elsewhere, and find what is wrong with them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tidemill_engine::{
    control::{archive::verify, handle::JobHandle},
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        error::Error,
        savepoint::SavepointPlace,
        watermark::WatermarkStrategy,
    },
    platform::{
        SimFaults, SimPlatform,
        remote::{MemoryFaults, MemoryStore, RemoteConfig, Request, Verdict, WatchedStore},
    },
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sink::FileSink,
    source::{Feeder, channel, from_parallel_iter},
};
use tidemill_storage::snapshot::disk::{
    Disk,
    memory::{Faults, MemoryDisk},
};

use super::recovery::Place;

/// A directory that a URL names, which has to be there.
fn remote(place: &Place, name: &str) -> (PathBuf, String) {
    let directory = place.0.path().join(name);
    fs::create_dir_all(&directory).unwrap();
    let url = format!("file://{}", directory.display());
    (directory, url)
}

fn beginning_with(place: &Place, savepoint: &str) -> JobConfig {
    let mut config = place.config();
    config.checkpoints.as_mut().unwrap().savepoint = Some(savepoint.into());
    config
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let inside = entries.map(|entry| entry.unwrap().path());
    inside.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

#[test]
fn a_savepoint_in_a_remote_store_begins_a_job_elsewhere_at_another_parallelism() {
    for has_own in [false, true] {
        let place = Place::new();
        let (first, second) = (remote(&place, "first").1, remote(&place, "second").1);
        let mut config = place.config();
        if has_own {
            let own = RemoteConfig::new(remote(&place, "own").1);
            config.checkpoints.as_mut().unwrap().remote = Some(own);
        }
        let job = place.describe_endless(config).start().unwrap();
        let written = job.monitor().savepoint(&first).unwrap();
        assert_eq!((written.to_string(), written.as_directory()), (first.clone(), None));
        // What is there already is refused before anything is stopped, and kept.
        let message = job.monitor().stop_with_savepoint(&first, false).unwrap_err().to_string();
        assert!(message.contains("holds a savepoint already") && message.contains(&first), "{message}");
        job.monitor().checkpoint().unwrap();
        job.monitor().stop_with_savepoint(&second, false).unwrap();
        job.wait().unwrap();
        let rows_before = place.check_endless();
        // What was committed stays where it is; the rest follows from the savepoint alone.
        fs::remove_dir_all(place.checkpoints()).unwrap();
        let config = JobConfig { parallelism: 3, ..beginning_with(&place, &second) };
        let metrics = place.run_for_a_while(config).unwrap();
        assert!(metrics.checkpoints.restored_from.is_some());
        let rows = place.check_endless();
        assert!(rows > rows_before);
        assert!(!place.checkpoints().join("fetched").exists(), "what was fetched is needed no more");
        // It has checkpoints now: the savepoint may go.
        fs::remove_dir_all(place.0.path().join("second")).unwrap();
        place.run_for_a_while(beginning_with(&place, &second)).unwrap();
        assert!(place.check_endless() > rows);
    }
}

#[test]
fn a_job_begins_with_the_savepoint_of_one_that_was_drained_and_reads_on() {
    let place = Place::new();
    let url = remote(&place, "savepoint").1;
    let job = place.describe_endless(place.config()).start().unwrap();
    job.monitor().checkpoint().unwrap();
    job.monitor().stop_with_savepoint(&url, true).unwrap();
    job.wait().unwrap();
    let rows_before = place.check_endless();
    fs::remove_dir_all(place.checkpoints()).unwrap();
    place.run_for_a_while(beginning_with(&place, &url)).unwrap();
    assert!(place.check_endless() > rows_before);
}

#[test]
fn what_is_wrong_with_a_savepoint_is_said_and_is_no_fresh_start() {
    let place = Place::new();
    let (directory, url) = remote(&place, "savepoint");
    let fails = |savepoint: &str, parts: &[&str]| {
        let message = place.run_for_a_while(beginning_with(&place, savepoint)).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    fails(&url, &["there is no savepoint in", &url, "Check the URL"]);
    fails(
        "gs://bucket/prefix",
        &["checkpoints.savepoint cannot be used", "gs://bucket/prefix", "s3://BUCKET"],
    );
    fails(&format!("{url}/missing"), &["cannot read a savepoint", "Mount or make"]);
    let job = place.describe_endless(place.config()).start().unwrap();
    let refused = job.monitor().savepoint("s3:///").unwrap_err().to_string();
    assert!(refused.contains("the place of the savepoint cannot be used"), "{refused}");
    let refused = job.monitor().stop_with_savepoint(format!("{url}/missing"), false).unwrap_err();
    assert!(refused.to_string().contains("Mount or make"), "{refused}");
    job.monitor().stop_with_savepoint(&url, false).unwrap();
    job.wait().unwrap();
    fs::remove_dir_all(place.checkpoints()).unwrap();
    let block = files_in(&directory.join("savepoint-blocks")).pop().unwrap();
    let sound = fs::read(&block).unwrap();
    let mut bytes = sound.clone();
    bytes[sound.len() / 2] ^= 1;
    fs::write(&block, bytes).unwrap();
    fails(&url, &[&url, "savepoint-blocks/", "the checksum of"]);
    fs::write(&block, sound).unwrap();
    // What was fetched before is of use.
    place.run_for_a_while(beginning_with(&place, &url)).unwrap();
    place.check_endless();
}

#[test]
fn checkpoints_and_savepoints_are_not_taken_for_each_other() {
    let place = Place::new();
    let url = remote(&place, "checkpoints-of-a-job").1;
    let mut config = place.config();
    config.checkpoints.as_mut().unwrap().remote = Some(RemoteConfig::new(&url));
    let job = place.describe_endless(config).start().unwrap();
    let refused = job.monitor().savepoint(&url).unwrap_err().to_string();
    assert!(refused.contains("holds the checkpoints of a job"), "{refused}");
    job.monitor().suspend().unwrap();
    job.wait().unwrap();
    fs::remove_dir_all(place.checkpoints()).unwrap();
    let message = place.run_for_a_while(beginning_with(&place, &url)).unwrap_err().to_string();
    assert!(message.contains("holds the checkpoints of a job") && message.contains("`remote`"), "{message}");
}

/// Where the simulated jobs write their savepoint, and their rows.
const URL: &str = "s3://simulated/savepoint";
const OUT: &str = "/rows";
const KEYS: u64 = 7;

/// Counts numbers by key for ever, and commits each count to files.
pub fn endless(
    platform: SimPlatform,
    parallelism: usize,
    checkpoints: CheckpointConfig,
) -> StreamEnvironment {
    let config = JobConfig {
        parallelism,
        step_records_max: 2,
        batch_records_max: 2,
        checkpoints: Some(CheckpointConfig { interval_ms: 1, retained_max: 1, ..checkpoints }),
        ..JobConfig::default()
    };
    let environment = StreamEnvironment::on(Arc::new(platform.open_world().turn_ns_max(20_000)), config);
    let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
    environment
        .from_source("numbers", numbers, WatermarkStrategy::none())
        .uid("numbers")
        .key_by(|number| number % KEYS)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .uid("counts")
        .sink("rows", FileSink::csv(OUT).header(false));
    environment
}

pub fn on(disk: &MemoryDisk, store: &MemoryStore, seed: u64) -> SimPlatform {
    SimPlatform::new(seed).disk(Arc::new(disk.clone())).remote_at(URL, Arc::new(store.clone()))
}

/// A job that stops with a savepoint, or in another way.
fn first(disk: &MemoryDisk, store: &MemoryStore, seed: u64) -> Result<SavepointPlace, Error> {
    let job = endless(on(disk, store, seed), 2, CheckpointConfig::new("/first")).start().unwrap();
    let saved = job.monitor().stop_with_savepoint(URL, false);
    if saved.is_err() {
        // It goes on, and takes checkpoints.
        job.monitor().checkpoint().unwrap();
        job.monitor().suspend().unwrap();
    }
    job.wait().unwrap();
    saved
}

fn second_config() -> CheckpointConfig {
    CheckpointConfig { savepoint: Some(URL.into()), ..CheckpointConfig::new("/second") }
}

/// A job that begins with the savepoint or what came of it, takes a checkpoint and stops: every count is there once then, and nothing of
/// what was fetched.
fn check_second(disk: &MemoryDisk, store: &MemoryStore, case: &str) {
    check_going_on(disk, endless(on(disk, store, 9), 3, second_config()), case);
}

/// A job that goes on from something, takes a checkpoint and stops: every count is there once then, and nothing of what was fetched.
pub fn check_going_on(disk: &MemoryDisk, job: StreamEnvironment, case: &str) {
    let job = job.start();
    let job = job.unwrap_or_else(|error| panic!("{case}: {error}"));
    job.monitor().checkpoint().unwrap();
    job.monitor().suspend().unwrap();
    let metrics = job.wait().unwrap();
    assert!(metrics.checkpoints.restored_from.is_some(), "{case}: it began anew");
    let fetched = disk.list("/second/fetched".as_ref()).unwrap();
    assert!(fetched.is_empty(), "{case}: what was fetched is still there: {fetched:?}");
    let mut counts = vec![Vec::new(); KEYS as usize];
    for file in disk.list(OUT.as_ref()).unwrap() {
        let text = String::from_utf8(disk.contents(&file).unwrap_or_default()).unwrap();
        for (key, count) in text.lines().map(|line| line.split_once(',').unwrap()) {
            counts[key.parse::<usize>().unwrap()].push(count.parse::<u64>().unwrap());
        }
    }
    for of_key in &mut counts {
        of_key.sort_unstable();
        assert!(of_key.iter().copied().eq(1..=of_key.len() as u64), "{case}: {of_key:?}");
    }
}

#[test]
fn a_process_that_dies_at_any_turn_while_it_begins_with_a_savepoint_leaves_what_the_next_one_needs() {
    for turn in (0..120).step_by(3) {
        let (disk, store) = (MemoryDisk::default(), MemoryStore::default());
        first(&disk, &store, turn).unwrap();
        let dying = disk.clone();
        let cut = move || dying.set_faults(Faults { dead_from: Some(0), ..Faults::default() });
        let faults =
            SimFaults { kill_at_turn: Some(turn), on_kill: Some(Arc::new(cut)), ..SimFaults::default() };
        let platform = on(&disk, &store, turn).faults(faults);
        let killed = endless(platform, 1 + turn as usize % 4, second_config()).start();
        killed.and_then(|job| job.wait()).unwrap_err();
        if turn % 2 == 0 {
            disk.end_process();
        } else {
            disk.crash(turn);
        }
        check_second(&disk, &store, &format!("killed at turn {turn}"));
    }
}

#[test]
fn a_disk_or_a_store_that_dies_at_any_operation_of_a_fetch_is_no_fresh_start() {
    for operation in 0..60 {
        let (disk, store) = (MemoryDisk::default(), MemoryStore::default());
        first(&disk, &store, operation).unwrap();
        let is_disk = operation % 2 == 0;
        if is_disk {
            disk.set_faults(Faults { dead_from: Some(operation / 2), ..Faults::default() });
        } else {
            store.set_faults(MemoryFaults { dead_from: Some(operation / 2), ..MemoryFaults::default() });
        }
        match endless(on(&disk, &store, operation), 2, second_config()).start() {
            // All of it was fetched by then.
            Ok(job) => {
                job.cancel();
                let _ = job.wait();
            }
            Err(error) => assert!(error.to_string().contains("cannot "), "{error}"),
        }
        disk.crash(operation);
        store.set_faults(MemoryFaults::default());
        check_second(&disk, &store, &format!("dead from operation {operation}"));
    }
}

#[test]
fn jobs_that_write_savepoints_to_a_store_that_fails_write_all_of_it_or_fail() {
    let (mut saved, mut failed) = (0, 0);
    for seed in 0..60 {
        let (disk, store) = (MemoryDisk::default(), MemoryStore::default());
        let fail_one_in = [0, 2, 3, 8][seed as usize % 4];
        let dead_from = (seed % 5 == 0).then_some(2 + seed % 7);
        let took_ns_max = [1, 100_000, 3_000_000][seed as usize % 3];
        store.set_faults(MemoryFaults { fail_one_in, dead_from, took_ns_max, seed });
        let outcome = first(&disk, &store, seed);
        store.set_faults(MemoryFaults::default());
        match outcome {
            Ok(_) => {
                saved += 1;
                check_second(&disk, &store, &format!("seed {seed}"));
            }
            Err(_) => {
                failed += 1;
                let found = verify(&store, &SimPlatform::new(0)).unwrap().savepoint;
                let is_none_or_whole = match &found {
                    None | Some(Ok(_)) => true,
                    Some(Err(what)) => what.contains("given up"),
                };
                assert!(is_none_or_whole, "seed {seed}: {found:?}");
            }
        }
    }
    assert!(saved >= 20 && failed >= 5, "{saved} saved, {failed} failed");
}

/// Longer than any simulation, by the clock of the job.
const FOR_EVER_MS: u64 = 1_000_000_000;

/// A job of two regions, whose first savepoint is held up: its first blocks take years to be put, by the clock of the job. A number 13
/// that it is sent fails one of them, once.
struct HeldUp {
    job: JobHandle,
    store: MemoryStore,
    puts: Arc<AtomicU64>,
    feed: Feeder<u64>,
}

impl HeldUp {
    fn start(timeout_ms: u64) -> Self {
        let (store, puts) = (MemoryStore::default(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&puts);
        let held = WatchedStore::new(store.clone(), move |request| match request {
            Request::Put if counted.fetch_add(1, Ordering::Relaxed) == 0 => Verdict::DoneIn(u64::MAX >> 8),
            _ => Verdict::Done,
        });
        let checkpoints =
            CheckpointConfig { timeout_ms, interval_ms: FOR_EVER_MS, ..CheckpointConfig::new("/first") };
        let config = JobConfig {
            parallelism: 2,
            max_parallelism: Some(128),
            step_records_max: 2,
            restart: RestartStrategy::FixedDelay { attempts_max: 1, delay_ms: 1 },
            checkpoints: Some(checkpoints),
            ..JobConfig::default()
        };
        let platform = SimPlatform::new(1).disk(Arc::new(MemoryDisk::default()));
        let platform = platform.remote_at(URL, Arc::new(held)).open_world().turn_ns_max(20_000);
        let environment = StreamEnvironment::on(Arc::new(platform), config);
        let (feed, fed) = channel::<u64>(16);
        let panics_left = Arc::new(AtomicU64::new(1));
        let fed = environment.from_source("fed", fed, WatermarkStrategy::none());
        fed.inspect(move |number| {
            assert!(*number != 13 || panics_left.swap(0, Ordering::Relaxed) == 0, "expected by the test");
        })
        .for_each(drop);
        let numbers = from_parallel_iter(|subtask, _| subtask as u64..);
        environment
            .from_source("numbers", numbers, WatermarkStrategy::none())
            .key_by(|number| number % KEYS)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .for_each(drop);
        Self { job: environment.start().unwrap(), store, puts, feed }
    }

    /// Waits until a savepoint is on its way.
    fn until_it_is_on_its_way(&self) {
        while self.puts.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
    }
}

#[test]
fn a_savepoint_that_takes_too_long_fails_and_the_job_goes_on() {
    let held_up = HeldUp::start(50);
    let message = held_up.job.monitor().savepoint(URL).unwrap_err().to_string();
    assert!(message.contains("was not in memory:///simulated when its time was up"), "{message}");
    assert_eq!(held_up.store.keys(), [""; 0]);
    held_up.job.monitor().checkpoint().unwrap();
    assert_eq!(held_up.job.metrics().checkpoints.restarts, 0);
    held_up.job.cancel();
}

#[test]
fn a_job_is_cancelled_while_its_savepoint_is_on_its_way() {
    let held_up = HeldUp::start(FOR_EVER_MS);
    let asked = thread::scope(|scope| {
        let asked = scope.spawn(|| held_up.job.monitor().savepoint(URL));
        held_up.until_it_is_on_its_way();
        held_up.job.cancel();
        asked.join().unwrap()
    });
    assert!(matches!(asked, Err(Error::Cancelled)), "{asked:?}");
    assert!(matches!(held_up.job.wait(), Err(Error::Cancelled)));
    assert_eq!(held_up.store.keys(), [""; 0]);
}

#[test]
fn neither_checkpoints_nor_a_region_that_fails_wait_for_a_savepoint() {
    let held_up = HeldUp::start(FOR_EVER_MS);
    let monitor = held_up.job.monitor();
    let asked = thread::spawn(move || monitor.savepoint(URL));
    held_up.until_it_is_on_its_way();
    held_up.job.monitor().checkpoint().unwrap();
    held_up.feed.send(13).unwrap();
    while held_up.job.metrics().checkpoints.region_restarts == 0 {
        thread::yield_now();
    }
    held_up.job.monitor().checkpoint().unwrap();
    let stats = held_up.job.metrics().checkpoints;
    assert_eq!((stats.completed, stats.failed, asked.is_finished()), (3, 0, false));
    // Whoever stops the job does not wait for it either.
    held_up.job.monitor().stop().unwrap();
    assert!(matches!(asked.join().unwrap(), Err(Error::Over)));
    held_up.job.wait().unwrap();
    assert_eq!(held_up.store.keys(), [""; 0]);
}
