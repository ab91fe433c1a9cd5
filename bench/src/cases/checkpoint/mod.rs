//! `checkpoint`: what checkpoints cost a job, how long they hold records up, what they write, and how fast a job is back.
//!
//! | row | measures |
//! |---|---|
//! | `count-1s`, `count-100ms`, `count-10ms` | a count by 10 M keys with a checkpoint per interval, against the same without; `-later`: of the records after the first ones, when the memory for what changed is there |
//! | `sums-1s`, `sums-100ms`, `sums-10ms` | the same with 32 bytes by key instead of the count's 8 |
//! | `count-writing` | the same count without checkpoints, beside threads that write as a store's writers do: what writing alone takes |
//! | `q5-1s`, `q5-100ms`, `q5-10ms` | the same of Nexmark q5 |
//! | `stall` | how long a task handles no record because it passes a barrier, at 10 M keys, 100 ms apart |
//! | `bytes-1`, `bytes-10`, `bytes-100` | bytes per checkpoint when 1 %, 10 % or all of the keys are touched between two |
//! | `pressure-aligned`, `pressure-unaligned` | how long a checkpoint takes while a slow sink holds the job up |
//! | `latency-10ms` | from a record's birth to its row in a committed file, with a checkpoint every 10 ms |
//! | `recovery` | from the start of a process to its first new result, with 1 GiB of state |

mod count;
mod latency;
mod pressure;
mod q5;
mod recovery;
mod writing;

use std::path::Path;

use tidemill::prelude::CheckpointConfig;

use super::{Options, Row};
use crate::{error::BenchError, report::Reporter};

/// Every row.
const ROWS: &[Row] = &[
    ("count-1s", |options, reporter| count::cost::<1>("count-1s", 1_000, options, reporter)),
    ("count-100ms", |options, reporter| count::cost::<1>("count-100ms", 100, options, reporter)),
    ("count-10ms", |options, reporter| count::cost::<1>("count-10ms", 10, options, reporter)),
    ("sums-1s", |options, reporter| count::cost::<4>("sums-1s", 1_000, options, reporter)),
    ("sums-100ms", |options, reporter| count::cost::<4>("sums-100ms", 100, options, reporter)),
    ("sums-10ms", |options, reporter| count::cost::<4>("sums-10ms", 10, options, reporter)),
    ("count-writing", writing::run),
    ("q5-1s", |options, reporter| q5::cost("q5-1s", 1_000, options, reporter)),
    ("q5-100ms", |options, reporter| q5::cost("q5-100ms", 100, options, reporter)),
    ("q5-10ms", |options, reporter| q5::cost("q5-10ms", 10, options, reporter)),
    ("stall", count::stall),
    ("bytes-1", |options, reporter| count::bytes("bytes-1", 1, options, reporter)),
    ("bytes-10", |options, reporter| count::bytes("bytes-10", 10, options, reporter)),
    ("bytes-100", |options, reporter| count::bytes("bytes-100", 100, options, reporter)),
    ("pressure-aligned", |options, reporter| pressure::duration("pressure-aligned", None, options, reporter)),
    ("pressure-unaligned", |options, reporter| {
        pressure::duration("pressure-unaligned", Some(0), options, reporter)
    }),
    ("latency-10ms", |options, reporter| latency::run("latency-10ms", 10, options, reporter)),
    ("recovery", recovery::run),
];

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    if recovery::is_asked_for() {
        return recovery::run_job();
    }
    options.rows("checkpoint", ROWS)?.into_iter().try_for_each(|(_, run)| run(options, reporter))
}

fn checkpoints(place: &Path, interval_ms: u64) -> CheckpointConfig {
    CheckpointConfig { interval_ms, ..CheckpointConfig::new(place.join("checkpoints")) }
}
