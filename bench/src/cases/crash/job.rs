//! The job that is killed: numbers, keyed, summed up in windows of event time, to files and, where there is a server, to a table
//! of PostgreSQL, both exactly once.

use std::{env, path::Path, time::Duration};

use serde::Serialize;
use tidemill::prelude::*;

use super::outside::{Mode, TABLE};
use crate::error::BenchError;

/// The job's directory: with it in the environment, this program is the job.
pub(super) const DIRECTORY_VARIABLE: &str = "TIDEMILL_CRASH_DIRECTORY";
/// How many cores it has.
pub(super) const CORES_VARIABLE: &str = "TIDEMILL_CRASH_CORES";
/// Milliseconds after which barriers overtake; never, if it is not set.
pub(super) const UNALIGNED_VARIABLE: &str = "TIDEMILL_CRASH_UNALIGNED_MS";
/// How many records there are.
pub(super) const RECORDS_VARIABLE: &str = "TIDEMILL_CRASH_RECORDS";
/// How to connect to PostgreSQL; files alone, if it is not set.
pub(super) const POSTGRES_VARIABLE: &str = "TIDEMILL_CRASH_POSTGRES";
/// How rows get there: the name of a [`Mode`].
pub(super) const MODE_VARIABLE: &str = "TIDEMILL_CRASH_POSTGRES_MODE";

/// Records of a job: some seconds of work.
pub(super) const RECORDS: u64 = 40_000_000;
/// Different keys.
pub(super) const KEYS: u64 = 64;
/// Records per millisecond of event time.
pub(super) const RECORDS_PER_MS: u64 = 100;
/// Size of a window.
pub(super) const WINDOW_MS: i64 = 1_000;
/// Number of key groups, which has to be the same in every life.
const MAX_PARALLELISM: u32 = 128;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn at(record: u64) -> i64 {
    (record / RECORDS_PER_MS) as i64
}

/// Spread over the keys without a pattern.
pub(super) fn key(record: u64) -> u64 {
    (record.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % KEYS
}

/// What is committed of a window and key.
#[derive(Record, Serialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: u64,
    pub(super) start_ms: i64,
    /// Number and sum of the records.
    pub(super) count: u64,
    pub(super) sum: u64,
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
    let rows = env
        .from_source("numbers", source, strategy)
        .key_by(|record| key(*record))
        .window(TumblingEventTime::of(Duration::from_millis(WINDOW_MS as u64)))
        .aggregate(CountAndSum)
        .uid("windows")
        .map(|window| Row {
            key: window.key,
            start_ms: window.window.start,
            count: window.value.0,
            sum: window.value.1,
        });
    let files = FileSink::csv(directory.join("rows")).header(false);
    match env::var(POSTGRES_VARIABLE) {
        Ok(connection) => {
            let (to_files, to_table) = rows.fork();
            to_files.sink("files", files);
            to_table.sink("postgres", table(connection));
        }
        Err(_) => {
            rows.sink("files", files);
        }
    }
    env.execute()?;
    Ok(())
}

fn table(connection: String) -> PostgresSink<Row> {
    let columns = ["key", "start_ms", "count", "sum"];
    let values = |row: &Row| {
        [row.key as i64, row.start_ms, row.count as i64, row.sum as i64].map(sql_value).into_iter().collect()
    };
    if env::var(MODE_VARIABLE).is_ok_and(|mode| mode == Mode::Upsert.name()) {
        PostgresSink::upsert(connection, TABLE, ["key", "start_ms"], columns, values)
    } else {
        PostgresSink::insert(connection, TABLE, columns, values)
    }
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
