//! Latency of single operations within a load: 96 keys are updated in one call, then one alone, which is timed.
//!
//! An update of one key does what any call does: it looks the key up, copies a sealed record, and then its share
//! of compaction.

use std::time::Instant;

use hdrhistogram::Histogram;

use super::keys::Deck;
use crate::{
    error::BenchError,
    floor,
    report::{Latencies, Line, Reporter},
};

/// One operation of so many is timed.
const EVERY: usize = 97;

/// Gives all keys of the deck to `update` and records how long those took that came alone.
pub(super) fn record(
    deck: &Deck,
    into: &mut Histogram<u64>,
    mut update: impl FnMut(&[u64]) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let mut batch = Vec::with_capacity(EVERY);
    for keys in deck.batches(EVERY) {
        batch.clear();
        batch.extend(keys);
        let Some((alone, together)) = batch.split_last() else { break };
        update(together)?;
        let start = Instant::now();
        update(std::slice::from_ref(alone))?;
        into.saturating_record(start.elapsed().as_nanos() as u64);
    }
    Ok(())
}

/// What the clock costs, which is in every latency.
pub(super) fn print_clock(row: &str, reporter: &mut Reporter) -> Result<(), BenchError> {
    let mut histogram = floor::histogram();
    for _ in 0..100_000 {
        let start = Instant::now();
        histogram.saturating_record(start.elapsed().as_nanos() as u64);
    }
    let mut line = Line::new("state", &format!("{row}-clock"), 1);
    line.latencies = Some(Latencies::of_nanos(&histogram));
    reporter.print(&line)
}
