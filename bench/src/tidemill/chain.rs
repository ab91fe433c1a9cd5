//! Five fused maps and filters on 32-byte records, against the loop that one would write by hand.

use std::time::{Duration, Instant};

use ::tidemill::prelude::*;

use super::{environment, sums::ChecksumSink, timed};
use crate::{error::BenchError, nexmark::Checksum, peers::pod32::Pod32};

/// What the hand-written side is called in reports.
pub const HAND_WRITTEN: &str = "hand-written loop";

/// Records that both sides read again and again: a buffer that stays in the core's cache, as a batch would.
const DIFFERENT_RECORDS: usize = 1_024;

/// Record `n`. The length is part of the buffer's type: the loop by hand knows it anyhow, since the buffer is made where it runs,
/// and its index is checked on neither side.
fn record(buffer: &[Pod32; DIFFERENT_RECORDS], n: u64) -> Pod32 {
    buffer[n as usize % DIFFERENT_RECORDS]
}

fn buffer() -> Box<[Pod32; DIFFERENT_RECORDS]> {
    Box::new(std::array::from_fn(|n| Pod32::nth(n as u64, 1 << 20)))
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
    let buffer = buffer();
    env.from_source(
        "records",
        from_generator(0..records, move |n| record(&buffer, n)),
        WatermarkStrategy::none(),
    )
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
        let buffer = buffer();
        for n in 0..records {
            let converted = convert(record(&buffer, n));
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
