//! The commands that ask something of a running job as a user runs them, on a job in this process.
#![allow(clippy::unwrap_used)]

mod command_kit;

use std::{fs, path::PathBuf, sync::mpsc, time::Duration};

use command_kit::{done, refused, text, tidemill};
use tempfile::TempDir;
use tidemill::{control::handle::JobHandle, operators::source::from_parallel_iter, prelude::*};

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn manifest(&self, checkpoint: u64) -> String {
        self.path(&format!("job/checkpoints/{checkpoint:020}"))
    }

    /// A job that does not end by itself, takes no checkpoint by itself, and has no checkpoint left when it is cancelled. It has one window
    /// for each of four keys, which none of its numbers closes, and tells how many numbers are in it when it fires.
    fn start(&self) -> (JobHandle, Collected<(u64, u64)>) {
        self.start_with(CheckpointConfig::new(self.path("job")), |_| {})
    }

    /// As [`start`](Self::start), elsewhere; `look` is called with each number that is read.
    fn start_with(
        &self,
        checkpoints: CheckpointConfig,
        look: impl Fn(u64) + Clone + Send + 'static,
    ) -> (JobHandle, Collected<(u64, u64)>) {
        let checkpoints = CheckpointConfig { interval_ms: 3_600_000, retain_on_cancel: false, ..checkpoints };
        let env = StreamEnvironment::new()
            .name("orders")
            .parallelism(1)
            .max_parallelism(128)
            .checkpoints(checkpoints);
        let (sink, windows) = CollectSink::new();
        let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|_: &u64| 1_000);
        env.from_source("numbers", from_parallel_iter(|subtask, _| subtask as u64..), strategy)
            .uid("numbers")
            .inspect(move |number| look(*number))
            .key_by(|number| number % 4)
            .window(TumblingEventTime::of(Duration::from_secs(3_600)))
            .aggregate(Count)
            .uid("counts")
            .map(|counted| (counted.key, counted.value))
            .sink("windows", sink);
        let job = env.start().unwrap();
        // The job is in full swing.
        while job.metrics().operator("counts").is_none_or(|counts| counts.counters.records_in < 100) {}
        (job, windows)
    }
}

#[test]
fn a_job_takes_a_checkpoint_when_it_is_asked_and_goes_on() {
    let place = Place::new();
    let (job, _) = place.start();
    let directory = place.path("job");
    for number in [1, 2] {
        let printed = done(&["checkpoint", &directory]);
        assert_eq!(printed, format!("{}\n", place.manifest(number)));
        assert!(fs::exists(printed.trim_end()).unwrap());
    }
    assert_eq!(job.metrics().checkpoints.completed, 2);
    job.monitor().stop().unwrap();
    job.wait().unwrap();
    assert!(refused(&["checkpoint", &directory]).contains("no job runs with its checkpoints in"));
}

#[test]
fn a_job_that_is_stopped_goes_on_from_the_checkpoint_that_is_printed() {
    let place = Place::new();
    let (job, windows) = place.start();
    let directory = place.path("job");
    assert_eq!(done(&["stop", &directory]), format!("{}\n", place.manifest(1)));
    job.wait().unwrap();
    assert!(windows.take().is_empty(), "no window fires at a stop");
    assert!(refused(&["stop", &directory]).contains("no job runs with its checkpoints in"));
    let (job, _) = place.start();
    assert_eq!(job.metrics().checkpoints.restored_from, Some(1));
    job.cancel();
    drop(job.wait());
}

#[test]
fn a_job_that_is_drained_fires_its_windows_and_one_that_begins_with_its_savepoint_reads_on() {
    let place = Place::new();
    let (job, windows) = place.start();
    let (directory, savepoint) = (place.path("job"), place.path("savepoint"));
    let output = tidemill(&["stop", &directory, "--drain"]);
    assert_eq!(output.status.code(), Some(2), "--drain needs --savepoint");
    assert!(text(&output.stderr).contains("--savepoint"));
    let printed = done(&["stop", &directory, "--savepoint", &savepoint, "--drain"]);
    assert_eq!(printed, format!("{savepoint}\n"));
    job.wait().unwrap();
    let read = windows.take().iter().map(|(_, count)| count).sum::<u64>();
    assert!(read >= 100);
    assert!(done(&["checkpoints", &savepoint]).starts_with("savepoint 1 of `orders`"));
    // From the first number that was not counted, to where it is drained in its turn.
    let (tell, told) = mpsc::channel();
    let elsewhere = CheckpointConfig {
        savepoint: Some(savepoint.as_str().into()),
        ..CheckpointConfig::new(place.path("elsewhere"))
    };
    let (job, windows) = place.start_with(elsewhere, move |number| {
        let _ = tell.send(number);
    });
    assert_eq!(job.metrics().checkpoints.restored_from, Some(1));
    done(&["stop", &place.path("elsewhere"), "--savepoint", &place.path("second"), "--drain"]);
    job.wait().unwrap();
    let numbers: Vec<u64> = told.try_iter().collect();
    assert!(
        numbers.iter().copied().eq(read..read + numbers.len() as u64),
        "from {read} on: {:?}",
        numbers.first()
    );
    let mut counts = windows.take();
    counts.sort_unstable();
    let count = |key| numbers.iter().filter(|number| **number % 4 == key).count() as u64;
    assert_eq!(counts, [0, 1, 2, 3].map(|key| (key, count(key))));
}

#[test]
fn a_job_that_is_cancelled_ends_and_takes_its_checkpoints_away_if_it_is_to() {
    let place = Place::new();
    let (job, _) = place.start();
    let directory = place.path("job");
    done(&["checkpoint", &directory]);
    done(&["cancel", &directory]);
    assert!(matches!(job.wait(), Err(Error::Cancelled)));
    let left = fs::read_dir(PathBuf::from(&directory).join("checkpoints")).unwrap().count();
    assert_eq!(left, 0);
    assert!(refused(&["cancel", &directory]).contains("no job runs with its checkpoints in"));
}
