//! Marks: which records of a block count no more, a bit per unit, set for the first of each record.
//!
//! They are shared with whoever copies what the block was at a seal, as [`owed`](super::owed) says.

use std::{cell::Cell, ops::Range, rc::Rc};

use crate::prefetch::prefetch;

/// Units that one word has marks of.
pub(super) const WORD_UNITS: u32 = u64::BITS;

/// The marks of one block, or of its first units: what is behind them is not marked.
#[derive(Clone, Default)]
pub(super) struct Marks(Rc<[Cell<u64>]>);

impl Marks {
    /// The same, with room for so many units.
    pub(super) fn with_room(&self, units: usize) -> Self {
        let words = units.div_ceil(WORD_UNITS as usize);
        Self((0..words).map(|at| self.0.get(at).cloned().unwrap_or_default()).collect())
    }

    /// Marks a unit, if there is room for its mark; whether there is.
    #[inline(always)]
    pub(super) fn mark(&self, unit: u32) -> bool {
        let Some(word) = self.0.get((unit / WORD_UNITS) as usize) else { return false };
        word.set(word.get() | 1 << (unit % WORD_UNITS));
        true
    }

    /// Whether a unit is marked.
    #[inline(always)]
    pub(super) fn has(&self, unit: u32) -> bool {
        self.word(unit) >> (unit % WORD_UNITS) & 1 == 1
    }

    /// Fetches what [`mark`](Self::mark) changes, where there is something to fetch.
    #[inline(always)]
    pub(super) fn prefetch(&self, unit: u32) {
        if let Some(word) = self.0.get((unit / WORD_UNITS) as usize) {
            prefetch(word.as_ptr().cast());
        }
    }

    /// Puts the units from `from` on that are not marked into `live`, until it is full or `to` is reached: how many they are,
    /// and where to go on; of a block whose records have one unit each.
    #[inline(always)]
    pub(super) fn live_units(&self, from: u32, to: u32, live: &mut [u32]) -> (usize, u32) {
        let (mut found, mut unit) = (0, from);
        while unit < to {
            let first = unit / WORD_UNITS * WORD_UNITS;
            let end = to.min(first + WORD_UNITS);
            let mut rest = !self.word(unit) & (u64::MAX << (unit % WORD_UNITS));
            while rest != 0 {
                unit = first + rest.trailing_zeros();
                if unit >= end {
                    break;
                }
                if found == live.len() {
                    return (found, unit);
                }
                live[found] = unit;
                found += 1;
                rest &= rest - 1;
            }
            unit = end;
        }
        (found, unit)
    }

    /// The first units from `from` on that are not marked and lie together, at most so many; if there are none, or only up to
    /// it, it ends at `to`. Of a block whose records have one unit each.
    #[inline(always)]
    pub(super) fn live_run(&self, from: u32, to: u32, max: usize) -> Range<u32> {
        let start = self.first_unit(from, to, |marks| !marks);
        let end = to.min(start.saturating_add(u32::try_from(max).unwrap_or(u32::MAX)));
        start..self.first_unit(start, end, |marks| marks)
    }

    /// The first unit from `from` on whose bit is set in the `looked_for` of its word of marks, else `to`.
    #[inline(always)]
    fn first_unit(&self, from: u32, to: u32, looked_for: impl Fn(u64) -> u64) -> u32 {
        let mut unit = from;
        while unit < to {
            let Some(word) = self.0.get((unit / WORD_UNITS) as usize) else {
                return if looked_for(0) == 0 { to } else { unit };
            };
            let rest = looked_for(word.get()) >> (unit % WORD_UNITS);
            if rest != 0 {
                return to.min(unit + rest.trailing_zeros());
            }
            unit = (unit / WORD_UNITS + 1) * WORD_UNITS;
        }
        to
    }

    /// The word that a unit's mark is in.
    #[inline(always)]
    fn word(&self, unit: u32) -> u64 {
        self.0.get((unit / WORD_UNITS) as usize).map_or(0, Cell::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(words: &[u64]) -> Marks {
        Marks(words.iter().map(|word| Cell::new(*word)).collect())
    }

    #[test]
    fn live_runs_are_all_that_is_not_marked_and_nothing_else() {
        let marks_of = marks(&[0b1011, u64::MAX, 1 << 63 | 0b110 << 30]);
        for (from, to) in
            [(0, 0), (0, 3), (2, 3), (3, 130), (64, 128), (70, 191), (5, 192), (100, 230), (190, 400)]
        {
            let expected: Vec<_> = (from..to).filter(|unit| !marks_of.has(*unit)).collect();
            for max in [1, 3, 64, usize::MAX] {
                let (mut unit, mut found) = (from, Vec::new());
                while unit < to {
                    let run = marks_of.live_run(unit, to, max);
                    assert!(run.start >= unit && run.end > unit && run.end <= to && run.len() <= max);
                    unit = run.end;
                    found.extend(run);
                }
                assert_eq!(found, expected, "{from}..{to}, at most {max} at once");
            }
        }
        assert_eq!(marks(&[]).live_run(3, 1_000, 5_000), 3..1_000);
    }

    #[test]
    fn live_units_are_those_that_are_not_marked() {
        let marks = marks(&[0b1011, u64::MAX, 1 << 63]);
        for (from, to) in
            [(0, 0), (0, 3), (2, 3), (3, 130), (64, 128), (70, 191), (5, 192), (100, 230), (0, 230)]
        {
            let expected: Vec<_> = (from..to).filter(|unit| !marks.has(*unit)).collect();
            for room in [1, 7, 61, 64, 300] {
                let (mut found, mut unit, mut live) = (Vec::new(), from, vec![0; room]);
                while unit < to {
                    let (count, next) = marks.live_units(unit, to, &mut live);
                    assert!(next > unit && (count == room || next == to));
                    found.extend_from_slice(&live[..count]);
                    unit = next;
                }
                assert_eq!(found, expected, "{from}..{to} with room for {room}");
            }
        }
    }

    #[test]
    fn marks_stay_when_there_is_room_for_more() {
        let few = marks(&[0b1011]);
        assert!(!few.mark(64) && few.mark(5));
        let more = few.with_room(130);
        assert!(more.mark(64) && more.mark(130));
        let marked: Vec<_> = (0..300).filter(|unit| more.has(*unit)).collect();
        assert_eq!(marked, [0, 1, 3, 5, 64, 130]);
    }
}
