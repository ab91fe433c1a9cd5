//! `slice-expire`: windows end, and the tables of their slices are dropped: how long one takes, and whether its memory is
//! there for the next at once.

use std::time::Instant;

use tidemill::storage::{log::table::LogTable, state::StateBackend, store::StoreOptions};

use super::{
    Options,
    bed::{Bed, Value, each, pin, resident_bytes, update},
};
use crate::{
    error::BenchError,
    floor,
    report::{Line, Reporter},
};

const KEYS: u64 = 10_000;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    pin();
    let slices = options.pick(1_000, 100);
    let mut bed = Bed::new::<u64, Value>(StoreOptions::new())?;
    let mut residents = Vec::new();
    for (row, sealed) in [("slice-expire", false), ("slice-expire-sealed", true)] {
        let mut tables = fill(&mut bed, slices);
        if sealed {
            let mut seal = bed.store.begin_seal();
            tables.iter_mut().for_each(|table| table.seal(seal.sealed()));
            drop(bed.store.finish_seal(seal));
        }
        residents.push(resident_bytes()?);
        let used = bed.pool.used_bytes();
        let (mut took, quiet) =
            (floor::histogram(), std::time::Duration::from_millis(options.pick(1_000, 100)));
        for table in tables {
            let start = Instant::now();
            drop(table);
            took.saturating_record(start.elapsed().as_nanos() as u64);
        }
        let left = bed.pool.used_bytes();
        let noise = floor::measure(1, quiet);
        let line = Line::new("state", row, 1).latencies(&took, &noise);
        reporter.print(&line.over(slices as u64, None))?;
        let freed = 100.0 * (1.0 - left as f64 / used as f64);
        let line = Line::new("state", &format!("{row}-freed"), 1).value(freed, "% of used bytes");
        reporter.print(&line.over(used as u64, None))?;
    }
    // What the third thousand takes beyond the second: nothing, if they lie where the second lay.
    let tables = fill(&mut bed, slices);
    let grown = resident_bytes()? as f64 / residents[1] as f64;
    drop(tables);
    let line = Line::new("state", "slice-expire-resident", 1).value(grown, "of the thousand before");
    reporter.print(&line.over(residents[1], None))
}

/// As many tables, all with the same keys.
fn fill(bed: &mut Bed, slices: i64) -> Vec<LogTable<u64, Value>> {
    let mut hashes = Vec::new();
    let slices = 0..slices;
    slices
        .map(|slice| {
            let mut table = bed.store.table(bed.state, slice);
            each(0..KEYS, |batch| update(&mut table, &mut hashes, batch));
            table
        })
        .collect()
}
