//! A part of an id range: what one source reads.
//!
//! A split is every `of`-th block of consecutive event numbers. Neighbouring blocks lie on different
//! cores, so all sources move through event time together, and a watermark never waits for one of them.
//! The position, an event number, can be stored and sought.

use std::ops::Range;

/// The event numbers of one source, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    next: u64,
    block_end: u64,
    first: u64,
    end: u64,
    block: u64,
    stride: u64,
}

impl Split {
    /// Consecutive events that one source of many takes at a time: a whole number of epochs, 10 ms of
    /// event time at the usual rate.
    pub const BLOCK_EVENTS: u64 = 1_000;

    /// The whole range.
    pub fn whole(range: Range<u64>) -> Self {
        let events = range.end.saturating_sub(range.start).max(1);
        Self::blocks(range.start, range.end, events, events)
    }

    /// Every `of`-th block of the range, beginning with block `index`.
    ///
    /// # Panics
    /// When `index` is not below `of`.
    pub fn interleaved(range: Range<u64>, index: u64, of: u64) -> Self {
        assert!(index < of, "split {index} of {of}");
        let first = range.start + index * Self::BLOCK_EVENTS;
        Self::blocks(first, range.end, Self::BLOCK_EVENTS, of * Self::BLOCK_EVENTS)
    }

    fn blocks(first: u64, end: u64, block: u64, stride: u64) -> Self {
        Self { next: first, block_end: (first + block).min(end), first, end, block, stride }
    }

    /// The number of the event to be read next; at or beyond the end when all are read.
    #[inline]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Continues at a position that [`Split::position`] gave.
    pub fn seek(&mut self, position: u64) {
        let first = self.first + position.saturating_sub(self.first) / self.stride * self.stride;
        self.next = position.max(self.first);
        self.block_end = (first + self.block).min(self.end);
    }

    /// The next number at which, counted in `skip`, a wanted event lies: `skip[n % 50]` is the distance from
    /// event `n` to the next wanted event, `n` included.
    #[inline]
    pub(super) fn take(&mut self, skip: &[u8; 50]) -> Option<u64> {
        loop {
            let n = self.next + u64::from(skip[(self.next % 50) as usize]);
            if n < self.block_end {
                self.next = n + 1;
                return Some(n);
            }
            let following = self.block_end.saturating_add(self.stride - self.block);
            if self.block_end >= self.end || following >= self.end {
                self.next = self.end;
                self.block_end = self.end;
                return None;
            }
            self.next = following;
            self.block_end = (following + self.block).min(self.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(mut split: Split) -> Vec<u64> {
        std::iter::from_fn(|| split.take(&[0; 50])).collect()
    }

    #[test]
    fn splits_cover_a_range_exactly_once() {
        for (range, of) in [(0..10_000, 1), (0..10_500, 3), (7..12_345, 4), (0..999, 5), (5..5, 2), (0..1, 2)]
        {
            let mut all: Vec<_> =
                (0..of).flat_map(|index| numbers(Split::interleaved(range.clone(), index, of))).collect();
            all.sort_unstable();
            assert_eq!(all, range.clone().collect::<Vec<_>>(), "{range:?} over {of}");
            assert_eq!(numbers(Split::whole(range.clone())), range.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_split_continues_where_it_was_left() {
        for taken in [0, 1, 999, 1_000, 1_001, 2_500, 5_000] {
            let mut split = Split::interleaved(3..9_000, 1, 2);
            let mut seen: Vec<_> = (0..taken).map_while(|_| split.take(&[0; 50])).collect();
            let mut again = Split::interleaved(3..9_000, 1, 2);
            again.seek(split.position());
            seen.extend(numbers(again));
            assert_eq!(seen, numbers(Split::interleaved(3..9_000, 1, 2)), "after {taken}");
        }
    }
}
