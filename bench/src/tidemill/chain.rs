//! Five fused maps and filters on 32-byte records, against the loop that one would write by hand.

use std::time::{Duration, Instant};

use ::tidemill::prelude::*;

use super::{environment, sums::ChecksumSink, timed};
use crate::{error::BenchError, nexmark::Checksum, peers::pod32::Pod32};

/// What the hand-written side is called in reports.
pub const HAND_WRITTEN: &str = "hand-written loop";

/// Records that both sides read again and again: a buffer that stays in the core's cache, as a batch would.
const DIFFERENT_RECORDS: usize = 1_024;

/// The length is part of the buffer's type: the loop by hand knows it anyhow, since the buffer is made where it runs, and
/// its index is checked on neither side.
fn input(records: u64) -> impl Iterator<Item = Pod32> {
    let buffer: Box<[Pod32; DIFFERENT_RECORDS]> =
        Box::new(std::array::from_fn(|n| Pod32::nth(n as u64, 1 << 20)));
    (0..records).map(move |n| buffer[n as usize % DIFFERENT_RECORDS])
}

/// To another currency, as Nexmark's q1 does it.
fn convert(mut record: Pod32) -> Pod32 {
    record.payload[1] = (record.payload[1] >> 24) * 908 / 1_000;
    record
}

fn affordable(record: &Pod32) -> bool {
    !record.payload[1].is_multiple_of(16)
}

fn mix(mut record: Pod32) -> Pod32 {
    record.payload[2] ^= record.payload[1] >> 7;
    record
}

/// As Nexmark's q2 chooses, but most.
fn chosen(record: &Pod32) -> bool {
    record.key % 123 > 20
}

fn sum(mut record: Pod32) -> Pod32 {
    record.payload[2] = record.payload[2].wrapping_add(record.key);
    record
}

fn row(record: &Pod32) -> u64 {
    record.payload[2]
}

/// The chain, on one core.
///
/// # Errors
/// [`BenchError::Peer`] when the job fails.
pub fn fused(records: u64) -> Result<(Checksum, Duration), BenchError> {
    let env = environment(1);
    let (sink, total) = ChecksumSink::new(row);
    env.from_source("records", from_parallel_iter(move |_, _| input(records)), WatermarkStrategy::none())
        .map(convert)
        .filter(affordable)
        .map(mix)
        .filter(chosen)
        .map(sum)
        .sink("sum", sink);
    let elapsed = timed(env)?;
    Ok((total.get(), elapsed))
}

/// The same by hand, on a thread of its own, as the chain runs.
pub fn by_hand(records: u64) -> (Checksum, Duration) {
    let work = move || {
        let start = Instant::now();
        let mut total = Checksum::default();
        for record in input(records) {
            let converted = convert(record);
            if !affordable(&converted) {
                continue;
            }
            let mixed = mix(converted);
            if !chosen(&mixed) {
                continue;
            }
            total.add(row(&sum(mixed)));
        }
        (std::hint::black_box(total), start.elapsed())
    };
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_computes_what_the_loop_does() {
        assert_eq!(fused(100_000).unwrap().0, by_hand(100_000).0);
    }
}
