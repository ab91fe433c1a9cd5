//! Key groups: the fixed number of parts into which all keys fall, and which subtask owns which.
//!
//! A job has `max_parallelism` key groups for its whole life. A key's group depends on its hash alone;
//! the groups are dealt to subtasks in contiguous ranges, so that rescaling moves whole groups and never splits one.

use std::ops::Range;

/// The largest number of key groups that a job may have.
pub const MAX_PARALLELISM_MAX: u32 = 32_768;

/// The key group of a key, in `0..max_parallelism`: `floor(h · max_parallelism / 2^32)` where `h` is the
/// upper half of `hash`.
///
/// Multiply-shift reads the *upper* bits, without a division. Within one group the upper bits hardly vary: an
/// index inside a group must take its slots and tags from the lower 32 bits.
#[inline]
pub const fn key_group(hash: u64, max_parallelism: u32) -> u32 {
    (((hash >> 32) * max_parallelism as u64) >> 32) as u32
}

/// The subtask that owns `key_group`: `floor(key_group · parallelism / max_parallelism)`, as in Flink.
///
/// Needs `1 ≤ parallelism ≤ max_parallelism` and `key_group < max_parallelism`.
#[inline]
pub const fn subtask_of(key_group: u32, max_parallelism: u32, parallelism: u32) -> u32 {
    debug_assert!(parallelism >= 1 && parallelism <= max_parallelism);
    debug_assert!(key_group < max_parallelism);
    (key_group as u64 * parallelism as u64 / max_parallelism as u64) as u32
}

/// The key groups that `subtask` owns, never empty: exactly those for which [`subtask_of`] says `subtask`.
///
/// Needs `1 ≤ parallelism ≤ max_parallelism` and `subtask < parallelism`.
pub const fn key_group_range(subtask: u32, max_parallelism: u32, parallelism: u32) -> Range<u32> {
    debug_assert!(parallelism >= 1 && parallelism <= max_parallelism);
    debug_assert!(subtask < parallelism);
    let (i, max, n) = (subtask as u64, max_parallelism as u64, parallelism as u64);
    let first = (i * max).div_ceil(n);
    let last = ((i + 1) * max - 1) / n;
    first as u32..last as u32 + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn key_groups_are_frozen() {
        assert_eq!(key_group(0, 128), 0);
        assert_eq!(key_group(u64::MAX, 128), 127);
        assert_eq!(key_group(u64::MAX, MAX_PARALLELISM_MAX), MAX_PARALLELISM_MAX - 1);
        assert_eq!(key_group(0xe220_a839_7b1d_cdaf, 128), 113);
        assert_eq!(key_group(0xe220_a839_7b1d_cdaf, 1), 0);
        assert_eq!(key_group(1 << 63, 3), 1);
    }

    #[test]
    fn ranges_are_those_of_flink() {
        let ranges = |max, n| (0..n).map(|i| key_group_range(i, max, n)).collect::<Vec<_>>();
        assert_eq!(key_group_range(0, 128, 1), 0..128);
        assert_eq!(ranges(128, 3), [0..43, 43..86, 86..128]);
        assert_eq!(ranges(10, 4), [0..3, 3..5, 5..8, 8..10]);
        assert_eq!(ranges(3, 3), [0..1, 1..2, 2..3]);
    }

    proptest! {
        #[test]
        fn every_key_group_belongs_to_exactly_one_subtask(
            (max, n) in (1..=MAX_PARALLELISM_MAX).prop_flat_map(|max| (Just(max), 1..=max)),
        ) {
            let mut next = 0;
            for subtask in 0..n {
                let range = key_group_range(subtask, max, n);
                prop_assert_eq!(range.start, next);
                prop_assert!(range.start < range.end);
                for group in range.clone() {
                    prop_assert_eq!(subtask_of(group, max, n), subtask);
                }
                next = range.end;
            }
            prop_assert_eq!(next, max);
        }

        #[test]
        fn every_hash_has_a_group(hash: u64, max in 1..=MAX_PARALLELISM_MAX) {
            prop_assert!(key_group(hash, max) < max);
        }
    }
}
