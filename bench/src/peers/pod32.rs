//! The plain record of the exchange benchmark, and what both sides must agree on about it.

use std::collections::HashMap;

use ::tidemill::Record;

use crate::nexmark::{Checksum, q2_row, random::Draw};

/// A record of 32 bytes without pointers.
#[derive(Record, Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pod32 {
    /// What it is exchanged and counted by.
    pub key: u64,
    /// The rest, carried along.
    pub payload: [u64; 3],
}

impl Pod32 {
    /// Record `n` of a stream whose keys are spread evenly over `0..keys`: a pure function of `n`, so that
    /// every split of the numbers over producers gives the same records.
    #[inline]
    pub fn nth(n: u64, keys: u64) -> Self {
        let random = Draw::new(0, n).word(0);
        let key = ((u128::from(random) * u128::from(keys)) >> 64) as u64;
        Self { key, payload: [n, random, n ^ random] }
    }
}

/// The row of a new count of a key.
#[inline]
pub fn count_row(key: u64, count: u64) -> u64 {
    q2_row(key as i64, count as i64)
}

/// The checksum of all counts that there ever are of `records` records with keys in `0..keys`, counted by a loop. The order does
/// not matter.
pub fn expected_counts(records: u64, keys: u64) -> Checksum {
    let mut counts = HashMap::<u64, u64, ahash::RandomState>::default();
    let mut checksum = Checksum::default();
    for n in 0..records {
        let key = Pod32::nth(n, keys).key;
        let count = counts.entry(key).or_default();
        *count += 1;
        checksum.add(count_row(key, *count));
    }
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spread_evenly() {
        assert_eq!(size_of::<Pod32>(), 32);
        let mut counts = [0u64; 1024];
        (0..1 << 20).for_each(|n| counts[Pod32::nth(n, 1024).key as usize] += 1);
        assert!(counts.iter().all(|&count| (850..=1200).contains(&count)));
    }
}
