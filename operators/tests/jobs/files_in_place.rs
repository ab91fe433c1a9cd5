//! Jobs that write to files as rows come: these have each row once, whatever fails between two checkpoints, and wherever the job goes on.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde::{Deserialize, Serialize};
use tidemill_engine::{
    control::handle::{JobHandle, JobMonitor},
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        error::Error,
        savepoint::SavepointPlace,
        sink::Sink,
        watermark::WatermarkStrategy,
    },
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sim::{SimReport, Simulation, csv_rows, json_rows},
    sink::{CsvSink, JsonLinesSink},
    source::{from_parallel_iter, from_vec},
};

/// Seeds per simulated job. `TIDEMILL_SIM_SEEDS` runs more.
const SEEDS: u64 = 40;
/// Records per simulated job: enough for several checkpoints.
const RECORDS: u64 = 1_500;
const KEYS: u64 = 13;
/// Where simulated jobs write to.
const OUT: &str = "/results/rows";

#[derive(Clone, Deserialize, Serialize)]
struct Row {
    number: u64,
}

/// A job that writes numbers without an end, and panics when it is told so.
struct Numbers {
    directory: tempfile::TempDir,
    panics: Arc<AtomicBool>,
}

impl Numbers {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), panics: Arc::default() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("numbers")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&self, sink: impl Sink<Row>) -> JobHandle {
        self.try_start(1, CheckpointConfig::new(self.at("checkpoints")), sink).unwrap()
    }

    fn try_start(
        &self,
        parallelism: usize,
        checkpoints: CheckpointConfig,
        sink: impl Sink<Row>,
    ) -> Result<JobHandle, Error> {
        // Only when it is asked.
        let checkpoints = CheckpointConfig { interval_ms: 3_600_000, ..checkpoints };
        let config = JobConfig {
            parallelism,
            checkpoints: Some(checkpoints),
            restart: RestartStrategy::FixedDelay { attempts_max: 10, delay_ms: 0 },
            ..JobConfig::default()
        };
        let environment = StreamEnvironment::with_config(config);
        let panics = Arc::clone(&self.panics);
        let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
        environment
            .from_source("numbers", numbers, WatermarkStrategy::none())
            .inspect(move |_| assert!(!panics.swap(false, Ordering::SeqCst), "as it was told"))
            .map(|number| Row { number })
            .sink("rows", sink);
        environment.start()
    }

    /// Runs a job until it has written some rows, and stops it behind a checkpoint.
    fn run_for_a_while(
        &self,
        parallelism: usize,
        checkpoints: CheckpointConfig,
        sink: impl Sink<Row>,
    ) -> Result<(), Error> {
        let job = self.try_start(parallelism, checkpoints, sink)?;
        let monitor = job.monitor();
        while monitor.metrics().operators.iter().all(|operator| operator.counters.records_in < 1_000) {
            thread::yield_now();
        }
        monitor.suspend()?;
        job.wait().map(drop)
    }

    /// Waits until some more rows are in the file.
    fn wait_for_rows(&self) {
        let length = || fs::metadata(self.file()).map_or(0, |file| file.len());
        let before = length();
        while length() < before + 100_000 {
            thread::yield_now();
        }
    }

    fn panic(&self, monitor: &JobMonitor) {
        let before = monitor.metrics().checkpoints.restarts;
        self.panics.store(true, Ordering::SeqCst);
        while monitor.metrics().checkpoints.restarts == before {
            thread::yield_now();
        }
    }

    /// The first life fails behind a checkpoint and goes on, the second is cancelled behind one, the third stops. `number` reads
    /// a row.
    fn check<S: Sink<Row>>(&self, sink: impl Fn(PathBuf) -> S, header: &str, number: impl Fn(&str) -> u64) {
        fs::write(self.file(), "something older\n").unwrap();
        let job = self.start(sink(self.file()));
        let monitor = job.monitor();
        self.wait_for_rows();
        monitor.checkpoint().unwrap();
        self.wait_for_rows();
        self.panic(&monitor);
        self.wait_for_rows();
        monitor.checkpoint().unwrap();
        monitor.suspend().unwrap();
        job.wait().unwrap();
        let job = self.start(sink(self.file()));
        job.monitor().checkpoint().unwrap();
        self.wait_for_rows();
        job.monitor().cancel();
        assert!(matches!(job.wait(), Err(Error::Cancelled)));
        let job = self.start(sink(self.file()));
        job.monitor().suspend().unwrap();
        job.wait().unwrap();
        let text = fs::read_to_string(self.file()).unwrap();
        let rows = text.strip_prefix(header).unwrap();
        let rows: Vec<u64> = rows.lines().map(number).collect();
        assert!(
            rows.iter().copied().eq(0..rows.len() as u64),
            "rows are missing, twice, or in another order"
        );
    }
}

#[test]
fn one_file_has_each_row_once_though_its_job_fails_and_is_started_again() {
    Numbers::new().check(CsvSink::file, "number\n", |row| row.parse().unwrap());
    Numbers::new().check(JsonLinesSink::file, "", |row| {
        serde_json::from_str::<serde_json::Value>(row).unwrap()["number"].as_u64().unwrap()
    });
}

/// The numbers in a file of one JSON value per line.
fn numbers_in(path: &Path) -> Vec<u64> {
    let rows: Vec<Row> = json_rows(&fs::read(path).unwrap()).unwrap();
    rows.into_iter().map(|row| row.number).collect()
}

#[test]
fn a_job_that_begins_with_a_savepoint_writes_on_in_its_files() {
    for is_remote in [false, true] {
        let numbers = Numbers::new();
        let savepoint: SavepointPlace = if is_remote {
            fs::create_dir(numbers.at("savepoint")).unwrap();
            format!("file://{}", numbers.at("savepoint").display()).as_str().into()
        } else {
            numbers.at("savepoint").into()
        };
        let job = numbers.start(JsonLinesSink::file(numbers.file()));
        numbers.wait_for_rows();
        job.monitor().stop_with_savepoint(savepoint.clone(), false).unwrap();
        job.wait().unwrap();
        let before = numbers_in(&numbers.file());
        let second = || CheckpointConfig {
            savepoint: Some(savepoint.clone()),
            ..CheckpointConfig::new(numbers.at("second"))
        };
        numbers.run_for_a_while(1, second(), JsonLinesSink::file(numbers.file())).unwrap();
        let all = numbers_in(&numbers.file());
        assert!(all.len() > before.len() && all.iter().copied().eq(0..all.len() as u64));
        // A fork that writes elsewhere begins there.
        let fork = CheckpointConfig { directory: numbers.at("fork"), ..second() };
        numbers.run_for_a_while(1, fork, JsonLinesSink::file(numbers.at("elsewhere"))).unwrap();
        let rest = numbers_in(&numbers.at("elsewhere"));
        let from = before.len() as u64;
        assert!(!rest.is_empty() && rest.iter().copied().eq(from..from + rest.len() as u64));
        assert_eq!(numbers_in(&numbers.file()), all, "what the job has written stays");
    }
}

#[test]
fn parts_that_no_subtask_writes_any_more_outlive_every_restart() {
    let numbers = Numbers::new();
    let part = |part| numbers.at("rows").join(format!("part-{part}.jsonl"));
    let mut before: Vec<Vec<u64>> = Vec::new();
    for parallelism in [2, 1, 1, 3, 1, 1, 2] {
        let checkpoints = CheckpointConfig::new(numbers.at("checkpoints"));
        numbers
            .run_for_a_while(parallelism, checkpoints, JsonLinesSink::directory(numbers.at("rows")))
            .unwrap();
        let parts: Vec<Vec<u64>> =
            (0..3).map(part).filter(|path| path.exists()).map(|path| numbers_in(&path)).collect();
        for (part, (now, before)) in parts.iter().zip(&before).enumerate() {
            assert!(now.starts_with(before), "part {part} has lost rows at parallelism {parallelism}");
        }
        let rows: Vec<u64> = parts.iter().flatten().copied().collect();
        assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len(), "a row is there twice");
        before = parts;
    }
    assert_eq!(before.len(), 3);
}

#[test]
fn a_file_that_is_not_what_its_checkpoint_knows_is_said_and_not_gone_on_with() {
    let numbers = Numbers::new();
    let file = numbers.file();
    let run = || {
        let checkpoints = CheckpointConfig::new(numbers.at("checkpoints"));
        numbers.run_for_a_while(1, checkpoints, JsonLinesSink::file(&file))
    };
    run().unwrap();
    let known = fs::read(&file).unwrap();
    let refused = |said: &str| {
        let error = run().unwrap_err().to_string();
        let whole = format!("the checkpoint knows {} bytes of it, and {said}", known.len());
        let parts = ["rows", file.to_str().unwrap(), &whole, "Put it back"];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    // A disk that is not mounted; a copy that was cut short; a file of something else.
    fs::remove_file(&file).unwrap();
    refused("it is not there");
    assert!(!file.exists(), "what was looked for is not made");
    fs::write(&file, &known[..100]).unwrap();
    refused("it has 100");
    let others = vec![b'\n'; known.len() + 1];
    fs::write(&file, &others).unwrap();
    refused("others are there");
    assert_eq!(fs::read(&file).unwrap(), others);
    // It is put back, with rows behind the checkpoint.
    fs::write(&file, [&known, b"{\"number\":".as_slice()].concat()).unwrap();
    run().unwrap();
    let all = numbers_in(&file);
    assert!(all.iter().copied().eq(0..all.len() as u64));
    // It is taken away on purpose.
    fs::write(&file, "").unwrap();
    run().unwrap();
    let (rest, from) = (numbers_in(&file), all.len() as u64);
    assert!(!rest.is_empty() && rest.iter().copied().eq(from..from + rest.len() as u64));
}

/// Fails if the simulation was too kind to prove anything.
fn was_hard(report: &SimReport) {
    let runs = report.runs;
    let enough = report.deaths >= runs / 2
        && report.recoveries >= runs / 5
        && report.checkpoints >= runs
        && report.begun_with_savepoint >= runs / 20
        && report.files >= runs;
    assert!(enough, "too little went wrong: {report:?}");
}

fn counts() -> impl Iterator<Item = (u64, u64)> {
    (0..RECORDS).map(|number| (number % KEYS, number / KEYS + 1))
}

/// Counts numbers by key.
fn count<S: Sink<(u64, u64)>>(environment: &StreamEnvironment, name: &str, sink: S) {
    environment
        .from_source(name, from_vec((0..RECORDS).collect()), WatermarkStrategy::none())
        .key_by(|number| number % KEYS)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .sink(name, sink);
}

#[test]
fn simulated_parts_have_every_row_once_whatever_the_number_of_subtasks() {
    let numbers = || (0..2 * RECORDS).collect::<Vec<u64>>();
    let simulation = Simulation::new().seeds(SEEDS);
    was_hard(&simulation.check_files_in_place(OUT, json_rows, numbers(), |environment| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .rebalance()
            .map(|number| number.to_native())
            .sink("out", JsonLinesSink::directory(OUT));
    }));
    let simulation = Simulation::new().seeds(SEEDS);
    was_hard(&simulation.check_files_in_place(OUT, csv_rows, counts(), |environment| {
        count(environment, "counts", CsvSink::directory(OUT).columns(["key", "count"]));
    }));
}

#[test]
fn one_simulated_file_has_every_row_once_also_where_checkpoints_are_kept_elsewhere_too() {
    let describe = |environment: &StreamEnvironment| {
        environment
            .from_source("numbers", from_vec((0..RECORDS).collect()), WatermarkStrategy::none())
            .key_by(|number| number % KEYS)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .global()
            .sink("counts", CsvSink::file(format!("{OUT}/counts")).columns(["key", "count"]));
    };
    was_hard(&Simulation::new().seeds(SEEDS).check_files_in_place(OUT, csv_rows, counts(), describe));
    let report =
        Simulation::new().seeds(SEEDS).remote().check_files_in_place(OUT, csv_rows, counts(), describe);
    assert!(report.deaths >= SEEDS / 2 && report.machines_lost == 0, "{report:?}");
}

#[test]
fn simulated_parts_of_regions_that_fail_apart_have_every_row_once() {
    let simulation = Simulation::new().seeds(SEEDS).operator_failures(3);
    let rows = |file: &[u8]| csv_rows::<(u64, u64)>(file);
    let report = simulation.check_files_in_place(OUT, rows, counts().chain(counts()), |environment| {
        for region in ["one", "other"] {
            count(
                environment,
                region,
                CsvSink::directory(format!("{OUT}/{region}")).columns(["key", "count"]),
            );
        }
    });
    was_hard(&report);
    assert!(report.region_restarts >= report.runs / 4, "{report:?}");
}
