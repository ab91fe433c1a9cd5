//! `rmw-10m`, `rmw-100k`, `rmw-10k`: reading, changing and writing back values of keys drawn evenly at random.

use super::{
    Options,
    bed::{MAP, Table, check, map_with, pin, timed, update_map},
    keys::{BATCH, Uniform},
};
use crate::{
    error::BenchError,
    report::{Line, Reporter},
    versus::{Versus, per_second},
};

pub(super) fn run_10m(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (keys, updates, rounds) = options.pick((10_000_000, 10_000_000, 9), (1_000_000, 1_000_000, 3));
    run("rmw-10m", keys, updates, rounds, reporter)
}

pub(super) fn run_100k(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (updates, rounds) = options.pick((30_000_000, 9), (3_000_000, 3));
    run("rmw-100k", 100_000, updates, rounds, reporter)
}

pub(super) fn run_10k(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (updates, rounds) = options.pick((30_000_000, 9), (3_000_000, 3));
    run("rmw-10k", 10_000, updates, rounds, reporter)
}

fn run(
    row: &str,
    keys: u64,
    updates: usize,
    rounds: usize,
    reporter: &mut Reporter,
) -> Result<(), BenchError> {
    pin();
    let (mut table, mut map) = (Table::with(keys)?, map_with(keys));
    let batches = updates / BATCH;
    let updates = (batches * BATCH) as u64;
    // Both sides draw the same keys.
    let (mut ours, mut theirs) = (Uniform::new(keys, 1), Uniform::new(keys, 1));
    let versus = Versus::alternate(
        rounds,
        || {
            let elapsed = timed(batches, |batch| ours.fill(batch), |batch| table.update(batch));
            Ok::<_, BenchError>(per_second(updates, elapsed))
        },
        || {
            let elapsed = timed(batches, |batch| theirs.fill(batch), |batch| update_map(&mut map, batch));
            Ok(per_second(updates, elapsed))
        },
    )?;
    check(row, &mut table.table, &map)?;
    let line = Line::new("state", row, 1).versus(&versus, "updates/s", MAP);
    reporter.print(&line.over(updates, None))
}
