//! `memory`: bytes that a record takes beyond its key and value, by the table's own count and by the kernel's.

use super::{
    Options,
    bed::{Table, pin, resident_bytes},
};
use crate::{
    error::BenchError,
    report::{Line, Reporter},
};

/// Of a key and its value.
const PAYLOAD_BYTES: f64 = 40.0;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    pin();
    let keys = options.pick(10_000_000, 1_000_000);
    let before = resident_bytes()?;
    let table = Table::with(keys)?;
    let after = resident_bytes()?;
    let (blocks, index) = table.table.bytes();
    let beyond = |bytes: u64| bytes as f64 / keys as f64 - PAYLOAD_BYTES;
    for (name, value) in [
        ("memory", beyond((blocks + index) as u64)),
        ("memory-resident", beyond(after.saturating_sub(before))),
        ("memory-index", index as f64 / keys as f64),
    ] {
        reporter.print(&Line::new("state", name, 1).value(value, "bytes/record").over(keys, None))?;
    }
    Ok(())
}
