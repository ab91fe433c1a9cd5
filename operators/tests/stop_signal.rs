//! A process that is asked to stop takes a last checkpoint, exits with 0, and its next life goes on from there.
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{self, Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tidemill_engine::model::{
    checkpoint_config::CheckpointConfig,
    config::JobConfig,
    sink::{Sink, SinkWriter},
    source::{BoxError, SubtaskContext},
    time::Timestamp,
    watermark::WatermarkStrategy,
};
use tidemill_operators::{api::environment::StreamEnvironment, sink::FileSink, source::from_parallel_iter};

/// The variables that tell a child where it works, on how many workers, and before which number its input ends.
const PLACE: &str = "TIDEMILL_TEST_STOP_PLACE";
const WORKERS: &str = "TIDEMILL_TEST_STOP_WORKERS";
const END: &str = "TIDEMILL_TEST_STOP_END";
/// One number in so many becomes a row, so that an input that does not end makes no large files.
const STRIDE: u64 = 256;
/// Rows that are left for the last life, at least.
const LAST_ROWS: u64 = 1_000;

/// Writes numbers to files until there are no more or it is asked to stop. Is run by the test below, as a process of its own.
#[test]
#[ignore = "is run by another test"]
fn a_process_that_writes() {
    let (Ok(place), Ok(workers), Ok(end)) = (env::var(PLACE), env::var(WORKERS), env::var(END)) else {
        return;
    };
    let (place, end) = (Path::new(&place), end.parse::<u64>().unwrap());
    let checkpoints =
        CheckpointConfig { interval_ms: 20, ..CheckpointConfig::new(place.join("checkpoints")) };
    let config = JobConfig {
        parallelism: workers.parse().unwrap(),
        max_parallelism: Some(128),
        checkpoints: Some(checkpoints),
        ..JobConfig::default()
    };
    let environment = StreamEnvironment::with_config(config);
    let numbers = from_parallel_iter(move |subtask, parallelism| (subtask as u64..end).step_by(parallelism));
    let written = Arc::new(AtomicU64::new(0));
    let writing = Arc::clone(&written);
    environment
        .from_source("numbers", numbers, WatermarkStrategy::none())
        .filter(|number| *number % STRIDE == 0)
        .rebalance()
        .map(|number| number.to_native())
        .inspect(move |_| {
            writing.fetch_add(1, Ordering::Relaxed);
        })
        .sink("rows", FileSink::json_lines(place.join("rows")));
    environment.execute().unwrap();
    println!("written {}", written.load(Ordering::Relaxed));
}

/// A sink that takes nothing.
struct Shut;

struct ShutWriter(SubtaskContext);

impl Sink<u64> for Shut {
    type Writer = ShutWriter;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, context: &SubtaskContext) -> Result<ShutWriter, BoxError> {
        Ok(ShutWriter(context.clone()))
    }
}

impl SinkWriter<u64> for ShutWriter {
    fn write(&mut self, _record: u64, _timestamp: Timestamp) -> Result<(), BoxError> {
        Ok(())
    }

    fn ready(&mut self) -> Result<bool, BoxError> {
        // To be asked again.
        self.0.waker.wake();
        Ok(false)
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Holds up its own last barrier, but no other, which overtake. Is run by a test below, as a process of its own.
#[test]
#[ignore = "is run by another test"]
fn a_process_that_is_held_up() {
    let Ok(place) = env::var(PLACE) else { return };
    let checkpoints = CheckpointConfig {
        interval_ms: 20,
        timeout_ms: 1_000,
        failures_max: u32::MAX,
        unaligned_after_ms: Some(0),
        retain_on_cancel: false,
        ..CheckpointConfig::new(Path::new(&place).join("checkpoints"))
    };
    let config = JobConfig { parallelism: 2, checkpoints: Some(checkpoints), ..JobConfig::default() };
    let environment = StreamEnvironment::with_config(config);
    let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
    environment
        .from_source("numbers", numbers, WatermarkStrategy::none())
        .rebalance()
        .map(|number| number.to_native())
        .sink("shut", Shut);
    if let Err(error) = environment.execute() {
        println!("ended with: {error}");
        process::exit(3);
    }
}

fn start(place: &Path, workers: u64, end: u64) -> (Child, BufReader<ChildStdout>) {
    run("a_process_that_writes", place, workers, end)
}

fn run(process: &str, place: &Path, workers: u64, end: u64) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", process])
        .env(PLACE, place)
        .env(WORKERS, workers.to_string())
        .env(END, end.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    (child, said)
}

/// Waits for the end of a process that is to exit with 0; returns how many rows it has written.
fn written(mut child: Child, said: BufReader<ChildStdout>) -> u64 {
    // The line may stand behind what the test harness says.
    let number = |line: String| line.split_once("written ")?.1.parse::<u64>().ok();
    let written = said.lines().map_while(Result::ok).filter_map(number).last();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
    written.unwrap()
}

/// Whether the process does something of its own when it is asked to stop.
fn heeds(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    caught >> (Signal::TERM.as_raw() - 1) & 1 == 1
}

/// What is committed, sorted.
fn rows(place: &Path) -> Vec<u64> {
    let Ok(files) = fs::read_dir(place.join("rows")) else { return Vec::new() };
    let files = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let text: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut rows: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    rows.sort_unstable();
    rows
}

/// Waits until a condition holds, as long as the process lives.
fn wait_until(child: &mut Child, holds: impl Fn(&Child) -> bool) {
    while !holds(child) {
        assert_eq!(child.try_wait().unwrap(), None, "it has ended");
        thread::yield_now();
    }
}

#[test]
fn a_process_that_is_asked_to_stop_has_committed_all_that_it_read_and_goes_on_to_the_end() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let mut rows_before = 0;
    for workers in [2, 3] {
        let (mut child, said) = start(place, workers, u64::MAX / 2);
        wait_until(&mut child, |child| heeds(child) && rows(place).len() > rows_before);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let written = written(child, said) as usize;
        let committed = rows(place);
        assert_eq!(committed.len(), rows_before + written, "what it read is committed when it exits");
        rows_before = committed.len();
    }
    // Behind all that was read.
    let end = rows(place).last().unwrap() + STRIDE * LAST_ROWS;
    let (child, said) = start(place, 1, end);
    assert!(written(child, said) >= LAST_ROWS - 1, "it goes on to the end");
    assert!(rows(place).into_iter().eq((0..end).step_by(STRIDE as usize)), "a row is missing or there twice");
}

#[test]
fn a_process_that_cannot_take_its_last_checkpoint_says_why_and_keeps_those_before() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let (mut child, mut said) = run("a_process_that_is_held_up", place, 2, 0);
    let manifests = || fs::read_dir(place.join("checkpoints/checkpoints")).map_or(0, Iterator::count);
    wait_until(&mut child, |child| heeds(child) && manifests() > 0);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{text}");
    let reason = "ended with: the last checkpoint of the job failed: ";
    assert!(text.contains(reason) && text.contains("had not passed its barrier after 1000 ms"), "{text}");
    assert!(manifests() > 0, "they were destroyed");
}
