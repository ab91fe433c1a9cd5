//! `state`: keyed state in the hybrid log on one core, against an in-memory hash map and what the hardware allows.
//!
//! Keys of 8 bytes and values of 32, drawn evenly at random, unless a row says otherwise. Both sides get the same keys in
//! batches that lie in the cache, as an operator gets them; a batch is made before its clock starts, and hashing it is
//! part of its time on both sides. Both sides take turns, and end with the same contents, or the row fails.
//!
//! A row has a file of its own and is run alone by its name: `tidemill-bench state rmw-10m`.

mod after_seal;
mod bed;
mod beyond;
mod counted;
mod disk;
mod in_place;
mod keys;
mod memory;
mod restore;
mod rmw;
#[cfg(feature = "peer-rocksdb")]
mod rocks;
mod sampled;
mod seal;
mod slices;
mod snapshot;
mod string_keys;

use std::thread;

use super::{Options, Row};
use crate::{error::BenchError, report::Reporter};

/// Every row. The first one reads the size of the process, which has to be fresh.
const ROWS: &[Row] = &[
    ("memory", memory::run),
    ("rmw-10m", rmw::run_10m),
    ("rmw-100k", rmw::run_100k),
    ("rmw-10k", rmw::run_10k),
    ("rmw-after-seal", after_seal::run),
    ("seal", seal::run),
    ("string-keys", string_keys::run),
    ("slice-expire", slices::run),
    ("snapshot-10ms", snapshot::run),
    ("snapshot-10ms-count", in_place::run),
    ("restore", restore::run),
    ("beyond-memory", beyond::run),
];

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    for (_, run) in options.rows("state", ROWS)? {
        // On a thread of its own, because a row that pins its thread must not pin those of the next.
        let done = thread::scope(|scope| scope.spawn(|| run(options, reporter)).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    Ok(())
}
