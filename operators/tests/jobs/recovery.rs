//! Jobs on this machine that are stopped, fail, and find damaged, foreign and newer checkpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tidemill_engine::model::{
    checkpoint_config::{CheckpointConfig, RestartStrategy},
    config::{JobConfig, StateBackendKind},
    error::Error,
    metrics::JobMetrics,
    watermark::WatermarkStrategy,
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sink::FileSink,
    source::{from_parallel_iter, from_vec},
};

const RECORDS: u64 = 200_000;
const KEYS: u64 = 17;

/// Where one job keeps everything.
pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.0.path().join("checkpoints")
    }

    pub fn config(&self) -> JobConfig {
        let checkpoints =
            CheckpointConfig { interval_ms: 5, retained_max: 3, ..CheckpointConfig::new(self.checkpoints()) };
        JobConfig {
            name: "counting".to_owned(),
            parallelism: 2,
            checkpoints: Some(checkpoints),
            ..JobConfig::default()
        }
    }

    /// Counts numbers by key and commits each count to files. `look` is called with each number, and may panic.
    fn describe(&self, config: JobConfig, look: impl Fn(u64) + Clone + Send + 'static) -> StreamEnvironment {
        let env = StreamEnvironment::with_config(config);
        env.from_source("numbers", from_vec((0..RECORDS).collect()), WatermarkStrategy::none())
            .uid("numbers")
            .inspect(move |number| look(*number))
            .key_by(|number| number % KEYS)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .uid("counts")
            .sink("rows", FileSink::csv(self.0.path().join("rows")).header(false));
        env
    }

    fn run(&self, config: JobConfig) -> Result<JobMetrics, Error> {
        self.describe(config, |_| {}).execute()
    }

    /// As [`describe`](Self::describe), with numbers that do not end: whatever it is asked, the job is not over before.
    pub fn describe_endless(&self, config: JobConfig) -> StreamEnvironment {
        let env = StreamEnvironment::with_config(config);
        let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
        env.from_source("numbers", numbers, WatermarkStrategy::none())
            .uid("numbers")
            .key_by(|number| number % KEYS)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .uid("counts")
            .sink("rows", FileSink::csv(self.0.path().join("rows")).header(false));
        env
    }

    /// Runs the endless job over some checkpoints, then stops it behind another one.
    pub fn run_for_a_while(&self, config: JobConfig) -> Result<JobMetrics, Error> {
        let job = self.describe_endless(config).start()?;
        let monitor = job.monitor();
        for _ in 0..3 {
            // An attempt that finds its checkpoint damaged takes none, and the next one is asked again.
            let _ = monitor.checkpoint();
        }
        let suspended = monitor.suspend();
        let metrics = job.wait()?;
        suspended.map(|_| metrics)
    }

    fn rows(&self) -> Vec<(u64, u64)> {
        rows(&self.0.path().join("rows"))
    }

    /// Fails unless the counts of every key are 1, 2, 3 and so on, each once; returns how many there are in all.
    pub fn check_endless(&self) -> usize {
        let (different, all) = self.check_gapless();
        assert_eq!(different, all, "counts are there twice");
        all
    }

    /// Fails unless the counts of every key are 1, 2, 3 and so on; returns how many different ones there are, and how many.
    pub fn check_gapless(&self) -> (usize, usize) {
        let rows = self.rows();
        let mut counts = BTreeMap::<u64, BTreeSet<u64>>::new();
        for (key, count) in &rows {
            counts.entry(*key).or_default().insert(*count);
        }
        for of_key in counts.values() {
            assert!(of_key.iter().copied().eq(1..=of_key.len() as u64), "a count is missing");
        }
        (counts.values().map(BTreeSet::len).sum(), rows.len())
    }

    /// The manifests, the oldest first.
    pub fn manifests(&self) -> Vec<PathBuf> {
        let mut manifests: Vec<PathBuf> = fs::read_dir(self.checkpoints().join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        manifests.sort();
        manifests
    }

    /// Fails unless every count of every key was committed once.
    fn check(&self) {
        let mut rows = self.rows();
        rows.sort_unstable();
        let mut expected: Vec<(u64, u64)> =
            (0..RECORDS).map(|number| (number % KEYS, number / KEYS + 1)).collect();
        expected.sort_unstable();
        assert_eq!(rows.len(), expected.len());
        assert!(rows == expected);
    }
}

pub fn rows(directory: &Path) -> Vec<(u64, u64)> {
    let files =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let text: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    let row = |line: &str| {
        let (key, count) = line.split_once(',').unwrap();
        (key.parse().unwrap(), count.parse().unwrap())
    };
    text.lines().map(row).collect()
}

#[test]
fn a_job_that_was_stopped_goes_on_with_another_number_of_workers() {
    let place = Place::new();
    let mut rows_before = 0;
    for parallelism in [2, 3, 1, 4] {
        let metrics = place.run_for_a_while(JobConfig { parallelism, ..place.config() }).unwrap();
        assert_eq!(metrics.checkpoints.restored_from.is_some(), rows_before > 0);
        let rows = place.check_endless();
        assert!(rows > rows_before);
        rows_before = rows;
    }
}

#[test]
fn a_job_that_has_come_to_its_end_finds_that_when_it_is_started_again() {
    let place = Place::new();
    place.run(place.config()).unwrap();
    place.check();
    let metrics = place.run(JobConfig { parallelism: 3, ..place.config() }).unwrap();
    assert!(metrics.checkpoints.restored_from.is_some());
    place.check();
}

#[test]
fn a_job_that_panics_is_started_again_and_loses_nothing() {
    for restart in [
        RestartStrategy::FixedDelay { attempts_max: 3, delay_ms: 1 },
        RestartStrategy::ExponentialDelay {
            initial_ms: 1,
            delay_ms_max: 5,
            factor: 2.0,
            reset_after_ms: 60_000,
        },
        RestartStrategy::FailureRate { failures_max: 3, interval_ms: 60_000, delay_ms: 1 },
    ] {
        // With checkpoints, and without: then from the beginning.
        for kept in [true, false] {
            let place = Place::new();
            let mut config = JobConfig { restart: restart.clone(), ..place.config() };
            config.checkpoints = config.checkpoints.filter(|_| kept);
            let panics = Arc::new(AtomicU64::new(0));
            let look = {
                let panics = Arc::clone(&panics);
                move |number| {
                    // The last record: no checkpoint has it before it has let the job pass.
                    if number == RECORDS - 1 && panics.load(Ordering::Relaxed) < 3 {
                        panics.fetch_add(1, Ordering::Relaxed);
                        panic!("expected by the test");
                    }
                }
            };
            let metrics = place.describe(config, look).execute().unwrap();
            assert_eq!((panics.load(Ordering::Relaxed), metrics.checkpoints.restarts), (3, 3));
            place.check();
        }
    }
}

#[test]
fn a_job_that_fails_too_often_is_given_up_with_its_own_error() {
    let place = Place::new();
    let restart = RestartStrategy::FixedDelay { attempts_max: 2, delay_ms: 1 };
    let panics = |number| assert!(number != RECORDS / 2, "expected by the test");
    let error = place.describe(JobConfig { restart, ..place.config() }, panics).execute().unwrap_err();
    assert!(matches!(&error, Error::Operator { operator, .. } if operator == "inspect"), "{error}");
    // What is wrong with the job was mended: it goes on.
    place.run(place.config()).unwrap();
    place.check();
}

/// Changes one byte in the middle of a file.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_manifest_is_passed_over_and_the_one_before_is_used() {
    let place = Place::new();
    place.run_for_a_while(place.config()).unwrap();
    let manifests = place.manifests();
    assert!(manifests.len() >= 2, "{manifests:?}");
    damage(&manifests[manifests.len() - 1]);
    let metrics = place.run_for_a_while(place.config()).unwrap();
    // What was committed with the checkpoint that is lost is committed again.
    place.check_gapless();
    let before: u64 = manifests[manifests.len() - 2].file_name().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(metrics.checkpoints.restored_from, Some(before));
}

#[test]
fn damaged_state_is_found_while_it_is_restored_and_the_checkpoint_before_is_used() {
    let place = Place::new();
    place.run_for_a_while(place.config()).unwrap();
    // The newest segment of one subtask: older checkpoints do not need it.
    let store = place.checkpoints().join("state/1/counts/0");
    let mut segments: Vec<PathBuf> =
        fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "tms"));
    segments.sort();
    let newest = segments.last().unwrap();
    let mut bytes = fs::read(newest).unwrap();
    // Behind the first page, which is the header: records.
    bytes[4096 + 20] ^= 1;
    fs::write(newest, bytes).unwrap();
    let manifests = place.manifests();
    let metrics = place.run_for_a_while(place.config()).unwrap();
    // What was committed with the checkpoint that is lost is committed again.
    place.check_gapless();
    let last: u64 = manifests[manifests.len() - 1].file_name().unwrap().to_str().unwrap().parse().unwrap();
    assert!(metrics.checkpoints.restored_from.is_some_and(|from| from < last), "{metrics:?}");
}

#[test]
fn checkpoints_that_are_all_damaged_are_no_fresh_start() {
    let place = Place::new();
    place.run_for_a_while(place.config()).unwrap();
    let manifests = place.manifests();
    manifests.iter().for_each(|manifest| damage(manifest));
    let message = place.run_for_a_while(place.config()).unwrap_err().to_string();
    for part in ["none of the checkpoints", "checksum", "savepoint"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(manifests.iter().all(|manifest| message.contains(&*manifest.to_string_lossy())), "{message}");
    assert_eq!(place.manifests(), manifests, "nothing was removed");
}

#[test]
fn a_missing_part_and_a_newer_version_are_told_apart() {
    let place = Place::new();
    place.run_for_a_while(place.config()).unwrap();
    fs::remove_dir_all(place.checkpoints().join("state/1/counts/1")).unwrap();
    let message = place.run_for_a_while(place.config()).unwrap_err().to_string();
    assert!(message.contains("state/1/counts/1") && message.contains("none of the checkpoints"), "{message}");

    let newest = place.manifests().pop().unwrap();
    let text = fs::read_to_string(&newest).unwrap();
    fs::write(&newest, text.replacen("tidemill-checkpoint 1", "tidemill-checkpoint 9", 1)).unwrap();
    let message = place.run_for_a_while(place.config()).unwrap_err().to_string();
    assert!(message.contains("format version 9"), "{message}");
}

#[test]
fn a_directory_of_another_job_or_in_use_or_no_directory_is_refused() {
    let place = Place::new();
    place.run_for_a_while(place.config()).unwrap();
    let message = place
        .run_for_a_while(JobConfig { name: "other".to_owned(), ..place.config() })
        .unwrap_err()
        .to_string();
    assert!(message.contains("`counting`") && message.contains("`other`"), "{message}");

    let running = place.describe_endless(place.config()).start().unwrap();
    let message = place.run_for_a_while(place.config()).unwrap_err().to_string();
    assert!(message.contains("in use"), "{message}");
    drop(running);

    let place = Place::new();
    fs::write(place.checkpoints(), "not a directory").unwrap();
    let message = place.run_for_a_while(place.config()).unwrap_err().to_string();
    assert!(message.contains("cannot create") && message.contains("checkpoints"), "{message}");

    let memory = JobConfig { state_backend: StateBackendKind::Memory, ..Place::new().config() };
    let message = place.run_for_a_while(memory).unwrap_err().to_string();
    assert!(message.contains("state_backend is `memory`"), "{message}");
}

#[test]
fn another_number_of_key_groups_is_refused_with_both() {
    let place = Place::new();
    place.run_for_a_while(place.config()).unwrap();
    let message = place
        .run_for_a_while(JobConfig { max_parallelism: Some(64), ..place.config() })
        .unwrap_err()
        .to_string();
    assert!(message.contains("max_parallelism 256") && message.contains("64"), "{message}");
    // What is stored, in words, is as good as no word.
    place.run_for_a_while(JobConfig { max_parallelism: Some(256), ..place.config() }).unwrap();
    place.check_endless();
}

#[test]
fn a_job_that_names_no_number_of_key_groups_has_that_of_its_checkpoint_or_savepoint_for_life() {
    let place = Place::new();
    let first = JobConfig { max_parallelism: Some(3), ..place.config() };
    let savepoint = place.0.path().join("savepoint");
    let job = place.describe_endless(first).start().unwrap();
    job.monitor().stop_with_savepoint(&savepoint, false).unwrap();
    job.wait().unwrap();
    let beginnings = [None, Some((&savepoint).into())];
    for savepoint in beginnings {
        if savepoint.is_some() {
            // What was committed stays where it is; the savepoint is of the same moment.
            fs::remove_dir_all(place.checkpoints()).unwrap();
        }
        let config = |parallelism| {
            let mut config = JobConfig { parallelism, ..place.config() };
            config.checkpoints.as_mut().unwrap().savepoint = savepoint.clone();
            config
        };
        let message = place.run_for_a_while(config(4)).unwrap_err().to_string();
        for part in ["3 key groups", "parallelism is 4", "set parallelism to 3 or less"] {
            assert!(message.contains(part), "{message}");
        }
        if savepoint.is_some() {
            for parallelism in [3, 1, 3] {
                let metrics = place.run_for_a_while(config(parallelism)).unwrap();
                assert!(metrics.checkpoints.restored_from.is_some());
                place.check_endless();
            }
            // It is still three.
            assert!(place.run_for_a_while(config(4)).is_err());
        }
    }
}

#[test]
fn a_savepoint_is_whole_by_itself_and_begins_a_job_elsewhere() {
    let place = Place::new();
    let savepoint = place.0.path().join("savepoint");
    let job = place.describe_endless(place.config()).start().unwrap();
    job.monitor().savepoint(&savepoint).unwrap();
    // What is there already is refused before anything is stopped, and kept.
    let message = job.monitor().stop_with_savepoint(&savepoint, false).unwrap_err().to_string();
    assert!(message.contains("holds a savepoint already"), "{message}");
    fs::remove_dir_all(&savepoint).unwrap();
    job.monitor().stop_with_savepoint(&savepoint, false).unwrap();
    job.wait().unwrap();
    let rows_before = place.check_endless();
    // What was committed stays where it is; the rest follows from the savepoint alone.
    fs::remove_dir_all(place.checkpoints()).unwrap();
    let mut config = JobConfig { parallelism: 3, ..place.config() };
    config.checkpoints.as_mut().unwrap().savepoint = Some((&savepoint).into());
    place.run_for_a_while(config).unwrap();
    assert!(place.check_endless() > rows_before);

    // A job that has no operator for what the savepoint holds.
    let elsewhere = Place::new();
    let checkpoints = CheckpointConfig {
        savepoint: Some(savepoint.into()),
        ..CheckpointConfig::new(elsewhere.checkpoints())
    };
    let mut config = JobConfig { checkpoints: Some(checkpoints), ..elsewhere.config() };
    let run = |config: JobConfig| {
        let env = StreamEnvironment::with_config(config);
        let numbers = from_vec((0..10_u64).collect());
        env.from_source("numbers", numbers, WatermarkStrategy::none()).uid("others").for_each(|_| {});
        env.execute()
    };
    let message = run(config.clone()).unwrap_err().to_string();
    assert!(message.contains("`counts`") && message.contains("allow_non_restored_state"), "{message}");
    config.checkpoints.as_mut().unwrap().allow_non_restored_state = true;
    run(config).unwrap();
}
