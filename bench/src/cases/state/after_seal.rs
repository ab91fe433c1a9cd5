//! `rmw-after-seal`: every update is its key's first since a seal, so every record is copied to the tail, and what was
//! sealed is compacted away meanwhile.
//!
//! Nothing keeps the sealed blocks, so their memory goes round: that is the steady state of a job whose
//! snapshots are written fast enough. (A table of which so much changes is copied behind the seal as a rule; not here, as the copies to
//! the tail are what is measured.) The map, which cannot be sealed, just updates the same keys in the same order.

use std::time::Duration;

use tidemill::storage::store::StoreOptions;

use super::{
    Options,
    bed::{MAP, Table, check, map_with, pin, timed, update_map},
    keys::{BATCH, Deck},
    sampled,
};
use crate::{
    error::BenchError,
    floor,
    report::{Line, Reporter},
    versus::{Rounds, Versus, per_second},
};

const ROW: &str = "rmw-after-seal";

/// Rounds that do not count: until memory is mapped and goes round.
const WARM_UP: usize = 3;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    pin();
    let (keys, rounds) = options.pick((10_000_000, 9), (500_000, 3));
    let quiet = Duration::from_millis(options.pick(3_000, 200));
    let options_of_table = StoreOptions { reopened_bytes_max: 0, ..StoreOptions::new() };
    let (mut table, mut map) =
        (Table::with_options(options_of_table, u64::from(keys))?, map_with(u64::from(keys)));
    let mut deck = Deck::new(keys, 2);
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + rounds {
        deck.shuffle();
        drop(table.seal());
        let one = deal(&deck, |batch| table.update(batch));
        let other = deal(&deck, |batch| update_map(&mut map, batch));
        if round >= WARM_UP {
            ours.push(per_second(u64::from(keys), one));
            peer.push(per_second(u64::from(keys), other));
        }
    }
    check(ROW, &mut table.table, &map)?;

    let mut noise = floor::measure(1, quiet);
    let mut recorded = floor::histogram();
    for _ in 0..options.pick(5, 1) {
        deck.shuffle();
        drop(table.seal());
        sampled::record(&deck, &mut recorded, |batch| {
            table.update(batch);
            Ok(())
        })?;
        deck.batches(BATCH).for_each(|batch| update_map(&mut map, &batch.collect::<Vec<_>>()));
    }
    floor::add(&mut noise, &floor::measure(1, quiet));
    check(ROW, &mut table.table, &map)?;

    let versus = Versus { ours: Rounds::from(ours), peer: Rounds::from(peer) };
    let line = Line::new("state", ROW, 1).versus(&versus, "updates/s", MAP).over(u64::from(keys), None);
    reporter.print(&line.latencies(&recorded, &noise))?;
    sampled::print_clock(ROW, reporter)
}

/// Gives all keys of the deck to `update`, in batches.
fn deal(deck: &Deck, update: impl FnMut(&[u64])) -> Duration {
    let mut batches = deck.batches(BATCH);
    // The last batch is left out if it is not whole, on both sides.
    let whole = deck.len() / BATCH;
    let make = |batch: &mut [u64]| {
        let next = batches.next().into_iter().flatten();
        batch.iter_mut().zip(next).for_each(|(to, key)| *to = key);
    };
    timed(whole, make, update)
}
