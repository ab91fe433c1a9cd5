//! A process whose state has a bound on memory takes no more of it however much state there is.
#![allow(clippy::unwrap_used)]

use std::{env, fs, path::Path, process::Command};

use tidemill_engine::model::{
    checkpoint_config::CheckpointConfig, config::JobConfig, watermark::WatermarkStrategy,
};
use tidemill_operators::{
    api::environment::StreamEnvironment, sink::BlackholeSink, source::from_parallel_iter,
};

/// The variables that tell a child where it works and how many keys it has.
const PLACE: &str = "TIDEMILL_TEST_MEMORY_PLACE";
const KEYS: &str = "TIDEMILL_TEST_MEMORY_KEYS";
/// Bytes of a key's state.
const TEXT_BYTES: usize = 1_000;
/// The bound, in bytes per worker.
const STATE_BYTES_MAX: u64 = 8 << 20;
/// By how much two runs may differ that have the same bound: what is being written, and what the allocator keeps.
const SLACK_KIB: u64 = 40 << 10;

/// Keeps a long text per key and says how much memory it took at most. Is run by the test below, as a process of its own.
#[test]
#[ignore = "is run by another test"]
fn a_process_that_hoards() {
    let (Ok(place), Ok(keys)) = (env::var(PLACE), env::var(KEYS)) else { return };
    let keys = keys.parse::<u64>().unwrap();
    let checkpoints = CheckpointConfig { interval_ms: 200, ..CheckpointConfig::new(Path::new(&place)) };
    let config = JobConfig {
        parallelism: 2,
        max_parallelism: Some(128),
        state_memory_bytes_max: Some(STATE_BYTES_MAX),
        checkpoints: Some(checkpoints),
        ..JobConfig::default()
    };
    let environment = StreamEnvironment::with_config(config);
    let numbers = from_parallel_iter(move |subtask, parallelism| (subtask as u64..keys).step_by(parallelism));
    environment
        .from_source("numbers", numbers, WatermarkStrategy::none())
        .key_by(|number| *number)
        .fold(String::new(), |text, number| text.push_str(&format!("{number:0>TEXT_BYTES$}")))
        .map(|(_, text)| text.len() as u64)
        .sink("lengths", BlackholeSink::new());
    environment.execute().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("at most {}", most.trim().trim_end_matches(" kB"));
}

/// The most memory that a job with so many keys took, in KiB.
fn most_kib(keys: u64) -> u64 {
    let place = tempfile::tempdir().unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "a_process_that_hoards"])
        .env(PLACE, place.path())
        .env(KEYS, keys.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let most = said.lines().find_map(|line| line.split_once("at most ")).unwrap();
    most.1.trim().parse().unwrap()
}

#[test]
fn a_process_takes_no_more_memory_for_more_state_than_its_bound() {
    // Twice the bound, and eight times as much again.
    let keys = 4 * STATE_BYTES_MAX / TEXT_BYTES as u64;
    let (some, much) = (most_kib(keys), most_kib(8 * keys));
    assert!(much < some + SLACK_KIB, "{some} KiB with {keys} keys, {much} KiB with eight times as many");
}
