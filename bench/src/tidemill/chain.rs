//! Five fused maps and filters on 32-byte records, against the loop that one would write by hand.

use std::time::{Duration, Instant};

use ::tidemill::prelude::*;

use super::{environment, sums::ChecksumSink, timed};
use crate::{error::BenchError, nexmark::Checksum, peers::pod32::Pod32};

/// What the hand-written side is called in reports.
pub const HAND_WRITTEN: &str = "hand-written loop";

fn record(n: u64) -> Pod32 {
    Pod32 { key: n, payload: [n ^ 0x5555, n << 1, 1] }
}

fn scale(mut record: Pod32) -> Pod32 {
    record.payload[0] = record.payload[0].wrapping_mul(31);
    record
}

fn most(record: &Pod32) -> bool {
    record.payload[0] & 15 != 0
}

fn mix(mut record: Pod32) -> Pod32 {
    record.payload[1] ^= record.payload[0] >> 7;
    record
}

fn some(record: &Pod32) -> bool {
    record.payload[1] & 3 != 1
}

fn sum(mut record: Pod32) -> Pod32 {
    record.payload[2] = record.payload[1].wrapping_add(record.key);
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
    env.from_source(
        "records",
        from_parallel_iter(move |_, _| (0..records).map(record)),
        WatermarkStrategy::none(),
    )
    .map(scale)
    .filter(most)
    .map(mix)
    .filter(some)
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
        for n in 0..records {
            let scaled = scale(record(n));
            if !most(&scaled) {
                continue;
            }
            let mixed = mix(scaled);
            if !some(&mixed) {
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
