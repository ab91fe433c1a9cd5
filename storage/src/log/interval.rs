//! What happened to a table between two seals, and what it says about how records had better change until the next one.

use std::collections::HashSet;

/// Of how many keys of a table one is a sample: so that there are at most twice as many samples.
const SAMPLES_MIN: u64 = 1024;
/// How many samples are told from each other.
const SEEN_MAX: usize = 4 * SAMPLES_MIN as usize;

/// How sealed records are changed in batches between two seals, where more than one way is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Copied to the tail first.
    #[default]
    Copied,
    /// Where they lie, and each change goes to the [journal](super::journal).
    Journaled,
    /// Where they lie, in [reopened](super::reopened) blocks that are copied whole behind the next seal.
    Reopened,
}

/// What else than copying a table allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Records may go to the journal.
    pub(super) journal: bool,
    /// Blocks may be reopened.
    pub(super) reopening: bool,
}

/// What happened since the last seal.
#[derive(Debug, Default)]
pub(super) struct Interval {
    pub(super) mode: Mode,
    /// Records that were updated in batches.
    pub(super) updates: u64,
    /// How many of them were copied to the tail first.
    pub(super) copied: u64,
    /// How many records might go to the journal at most.
    granted: u64,
    /// Which hashes are samples: those that have none of these bits.
    mask: u64,
    /// Samples, and the hashes they had.
    samples: u64,
    seen: HashSet<u64>,
}

impl Interval {
    /// Whether the key with this hash is a sample.
    #[inline(always)]
    pub(super) fn is_sample(&self, hash: u64) -> bool {
        hash & self.mask == 0
    }

    /// Notes a sample.
    #[cold]
    #[inline(never)]
    pub(super) fn sample(&mut self, hash: u64) {
        self.samples += 1;
        if self.seen.len() < SEEN_MAX {
            self.seen.insert(hash);
        }
    }

    /// How many keys were changed for the first time, more or less; `left` of the records that were granted have not gone to the journal.
    fn changed_keys(&self, left: u64) -> u64 {
        let seen = self.seen.len() as u64;
        let journaled = self.granted - left;
        match self.mode {
            Mode::Reopened => seen * (self.mask + 1),
            _ if self.samples == 0 => self.copied + journaled,
            _ => self.copied + journaled * seen / self.samples,
        }
    }

    /// How records had better change from now on, of a table of `live` records.
    fn next_mode(&self, left: u64, live: u64, allowed: Allowed) -> Mode {
        let changed = self.changed_keys(left);
        // To copy all records together takes as long as to copy a fifth of them one by one. Whoever has begun with it goes on until
        // it is clearly too much.
        let part = if self.mode == Mode::Reopened { 4 } else { 3 };
        let most = self.updates > 0 && changed * part >= live;
        let once =
            if self.updates == 0 { self.mode == Mode::Journaled } else { changed * 4 >= self.updates * 3 };
        if allowed.reopening && most {
            Mode::Reopened
        } else if allowed.journal && once {
            Mode::Journaled
        } else {
            Mode::Copied
        }
    }

    /// Begins anew; how many records may go to the journal.
    pub(super) fn renew(&mut self, left: u64, live: u64, allowed: Allowed) -> u64 {
        self.mode = self.next_mode(left, live, allowed);
        self.granted = if self.mode == Mode::Journaled { live } else { 0 };
        self.mask = (live / SAMPLES_MIN).next_power_of_two() - 1;
        (self.updates, self.copied, self.samples) = (0, 0, 0);
        self.seen.clear();
        self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Allowed = Allowed { journal: false, reopening: false };
    const JOURNAL: Allowed = Allowed { journal: true, ..NOTHING };
    const ALL: Allowed = Allowed { journal: true, reopening: true };

    /// What an interval is followed by that had this, of a table of 1,000 records.
    fn next(mode: Mode, updates: u64, copied: u64, keys: &[u64], allowed: Allowed) -> Mode {
        let changed = if mode == Mode::Journaled { keys.len() as u64 } else { 0 };
        let granted = if mode == Mode::Journaled { 1_000 } else { 0 };
        let mut interval = Interval { mode, updates, copied, granted, ..Interval::default() };
        keys.iter().for_each(|key| interval.sample(*key));
        let granted = interval.renew(granted - changed, 1_000, allowed);
        assert_eq!(granted, if interval.mode == Mode::Journaled { 1_000 } else { 0 });
        interval.mode
    }

    #[test]
    fn the_journal_is_used_where_most_updates_are_the_first_of_their_keys() {
        let next = |mode, updates, copied, keys: &[u64]| next(mode, updates, copied, keys, JOURNAL);
        assert_eq!(next(Mode::Copied, 100, 75, &[]), Mode::Journaled);
        assert_eq!(next(Mode::Copied, 100, 74, &[]), Mode::Copied);
        // Without updates nothing is known, and nothing changes.
        assert_eq!(next(Mode::Copied, 0, 0, &[]), Mode::Copied);
        assert_eq!(next(Mode::Journaled, 0, 0, &[]), Mode::Journaled);
        // Of those that went to the journal, samples tell.
        assert_eq!(next(Mode::Journaled, 8, 0, &[1, 2, 3, 4, 5, 6, 1, 2]), Mode::Journaled);
        assert_eq!(next(Mode::Journaled, 8, 0, &[1, 2, 3, 4, 5, 1, 2, 3]), Mode::Copied);
        // What was copied when no more might go there counts, too.
        assert_eq!(next(Mode::Journaled, 8, 2, &[1, 2, 3, 4]), Mode::Journaled);
        assert_eq!(next(Mode::Journaled, 9, 2, &[1, 2, 3, 4]), Mode::Copied);
    }

    #[test]
    fn blocks_are_reopened_where_most_keys_change() {
        let next = |mode, updates, copied, keys: &[u64]| next(mode, updates, copied, keys, ALL);
        assert_eq!(next(Mode::Copied, 5_000, 334, &[]), Mode::Reopened);
        assert_eq!(next(Mode::Copied, 5_000, 333, &[]), Mode::Copied);
        assert_eq!(next(Mode::Copied, 333, 333, &[]), Mode::Journaled);
        let keys: Vec<u64> = (0..250).collect();
        assert_eq!(next(Mode::Reopened, 5_000, 0, &keys), Mode::Reopened);
        assert_eq!(next(Mode::Reopened, 5_000, 0, &keys[1..]), Mode::Copied);
        assert_eq!(next(Mode::Reopened, 250, 0, &keys[1..]), Mode::Journaled);
        // Changes one by one are none that samples tell of.
        assert_eq!(next(Mode::Reopened, 0, 0, &[]), Mode::Copied);
    }

    #[test]
    fn samples_of_a_large_table_tell_how_many_keys_changed() {
        let mut interval = Interval::default();
        interval.renew(0, 1_000_000, NOTHING);
        let hashes = |keys: u64| (0..keys).map(crate::key::hash_bits);
        for hash in hashes(400_000).chain(hashes(400_000)) {
            if interval.is_sample(hash) {
                interval.sample(hash);
            }
        }
        assert!((500..1_000).contains(&interval.samples), "{} samples", interval.samples);
        interval.mode = Mode::Reopened;
        let changed = interval.changed_keys(0);
        assert!((350_000..450_000).contains(&changed), "{changed} keys");
    }

    #[test]
    fn records_are_copied_where_nothing_else_is_allowed() {
        assert_eq!(next(Mode::Copied, 900, 900, &[], NOTHING), Mode::Copied);
        assert_eq!(next(Mode::Copied, 900, 900, &[], JOURNAL), Mode::Journaled);
    }
}
