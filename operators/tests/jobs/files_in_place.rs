//! Jobs that write to one file as rows come: it has each row once, whatever fails between two checkpoints.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde::Serialize;
use tidemill_engine::{
    control::handle::{JobHandle, JobMonitor},
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        error::Error,
        sink::Sink,
        watermark::WatermarkStrategy,
    },
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sink::{CsvSink, JsonLinesSink},
    source::from_parallel_iter,
};

#[derive(Clone, Serialize)]
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

    fn start(&self, sink: impl Sink<Row>) -> JobHandle {
        let checkpoints = CheckpointConfig {
            // Only when it is asked.
            interval_ms: 3_600_000,
            ..CheckpointConfig::new(self.directory.path().join("checkpoints"))
        };
        let config = JobConfig {
            parallelism: 1,
            checkpoints: Some(checkpoints),
            restart: RestartStrategy::FixedDelay { attempts_max: 10, delay_ms: 0 },
            ..JobConfig::default()
        };
        let environment = StreamEnvironment::with_config(config);
        let panics = Arc::clone(&self.panics);
        environment
            .from_source("numbers", from_parallel_iter(|_, _| 0_u64..), WatermarkStrategy::none())
            .inspect(move |_| assert!(!panics.swap(false, Ordering::SeqCst), "as it was told"))
            .map(|number| Row { number })
            .sink("rows", sink);
        environment.start().unwrap()
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
