//! The job that is killed: numbers, keyed, summed up in windows of event time, to files that are committed exactly once; and what
//! it should have committed.

use std::{collections::BTreeMap, env, fs, path::Path, time::Duration};

use tidemill::prelude::*;

use crate::error::BenchError;

/// The job's directory: with it in the environment, this program is the job.
pub(super) const DIRECTORY_VARIABLE: &str = "TIDEMILL_CRASH_DIRECTORY";
/// How many cores it has.
pub(super) const CORES_VARIABLE: &str = "TIDEMILL_CRASH_CORES";
/// Milliseconds after which barriers overtake; never, if it is not set.
pub(super) const UNALIGNED_VARIABLE: &str = "TIDEMILL_CRASH_UNALIGNED_MS";
/// How many records there are.
pub(super) const RECORDS_VARIABLE: &str = "TIDEMILL_CRASH_RECORDS";

/// Records of a job: some seconds of work.
pub(super) const RECORDS: u64 = 40_000_000;
/// Different keys.
const KEYS: u64 = 64;
/// Records per millisecond of event time.
const RECORDS_PER_MS: u64 = 100;
/// Size of a window.
const WINDOW_MS: i64 = 1_000;
/// Number of key groups, which has to be the same in every life.
const MAX_PARALLELISM: u32 = 128;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn at(record: u64) -> i64 {
    (record / RECORDS_PER_MS) as i64
}

/// Spread over the keys without a pattern.
fn key(record: u64) -> u64 {
    (record.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % KEYS
}

/// Runs the job to its end.
pub(super) fn run(directory: &Path) -> Result<(), BenchError> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let records = number(RECORDS_VARIABLE).unwrap_or(RECORDS);
    let config = JobConfig {
        name: "crash".to_owned(),
        parallelism: number(CORES_VARIABLE).unwrap_or(1) as usize,
        max_parallelism: Some(MAX_PARALLELISM),
        ..JobConfig::default()
    };
    let checkpoints = CheckpointConfig {
        interval_ms: 20,
        unaligned_after_ms: number(UNALIGNED_VARIABLE),
        ..CheckpointConfig::new(directory.join("checkpoints"))
    };
    let env = StreamEnvironment::with_config(config).checkpoints(checkpoints);
    let source =
        from_parallel_iter(move |subtask, parallelism| (subtask as u64..records).step_by(parallelism));
    let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|record: &u64| at(*record));
    env.from_source("numbers", source, strategy)
        .key_by(|record| key(*record))
        .window(TumblingEventTime::of(Duration::from_millis(WINDOW_MS as u64)))
        .aggregate(CountAndSum)
        .uid("windows")
        .map(|window| (window.key, window.window.start, window.value.0, window.value.1))
        .sink("files", FileSink::csv(directory.join("rows")).header(false));
    env.execute()?;
    Ok(())
}

/// Number and sum of records.
#[derive(Clone)]
struct CountAndSum;

impl AggregateFunction<u64> for CountAndSum {
    type Accumulator = (u64, u64);
    type Output = (u64, u64);

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, sum: &mut (u64, u64), record: &Archived<u64>) {
        sum.0 += 1;
        sum.1 += record.to_native();
    }

    fn merge(&self, into: &mut (u64, u64), other: &(u64, u64)) {
        into.0 += other.0;
        into.1 += other.1;
    }

    fn result(&self, sum: &(u64, u64)) -> (u64, u64) {
        *sum
    }
}

/// What was found in the files of one job.
#[derive(Debug, Default)]
pub(super) struct Committed {
    pub(super) rows: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) wrong: u64,
}

/// Reads every committed row and compares.
pub(super) fn check(directory: &Path, records: u64) -> Result<Committed, BenchError> {
    let mut expected = BTreeMap::<(u64, i64), (u64, u64)>::new();
    for record in 0..records {
        let start = at(record).div_euclid(WINDOW_MS) * WINDOW_MS;
        let sum = expected.entry((key(record), start)).or_default();
        sum.0 += 1;
        sum.1 += record;
    }
    let (mut committed, mut seen) = (Committed::default(), BTreeMap::<(u64, i64), u64>::new());
    for entry in fs::read_dir(directory.join("rows"))? {
        let path = entry?.path();
        if path.is_dir() {
            continue;
        }
        for line in fs::read_to_string(&path)?.lines() {
            committed.rows += 1;
            let fields: Vec<i128> = line.split(',').filter_map(|field| field.parse().ok()).collect();
            let &[key, start, count, sum] = &fields[..] else {
                committed.wrong += 1;
                continue;
            };
            let window = (key as u64, start as i64);
            *seen.entry(window).or_default() += 1;
            committed.wrong += u64::from(expected.get(&window) != Some(&(count as u64, sum as u64)));
        }
    }
    committed.duplicated = seen.values().map(|times| times - 1).sum();
    committed.lost = expected.keys().filter(|window| !seen.contains_key(window)).count() as u64;
    Ok(committed)
}
