//! The journal of a table: sealed records that were changed where they lie, as they were after each change, for the files
//! alone. No index points to it.
//!
//! Files need what a sealed record was until they have it, so the first change after a seal copies the record to the tail. Where
//! nearly every update is such a first one, that is most of the work: the copy, the mark of the dead one, compaction, and twice
//! the memory, which no cache holds. But once the writer has let a block go, nobody needs what its records were: they are
//! changed in place, and what they have become goes here, one behind another, in the order of the changes. That is a redo log;
//! when it is read back, the last record of a key counts, as it does in all files.
//!
//! It writes a record per change and not per changed key. So between two seals it is used where in the interval before them three
//! of four updates were the first changes of their keys, and for no more records than the table has; and for small records, as
//! with larger ones the bytes cost what the copies did. [Sweeps](super::sweep) bound its length.
//!
//! `docs/design/004-changes-in-place.md` says what it gains and costs; `tidemill-bench state snapshot-10ms-count` measures it.

use std::rc::Rc;

use super::{
    interval::{Allowed, Interval, Mode},
    place::Place,
    seal::{SealedRange, TableId},
    shared::Shared,
    sweep::Sweep,
    tape::Tape,
};
use crate::{key::Key, record::Record};

/// What was changed in place.
pub struct Journal {
    /// Records that may still be changed in place before the next seal.
    left: u64,
    /// Where they are written.
    pub(super) tape: Tape,
    /// The sweep that is under way.
    pub(super) sweep: Option<Sweep>,
    /// What happened since the last seal.
    pub(super) interval: Interval,
}

impl Journal {
    /// An empty one, of a table.
    pub fn new(table: TableId, shared: Rc<Shared>) -> Self {
        let tape = Tape::new(table, shared);
        Self { left: 0, tape, sweep: None, interval: Interval::default() }
    }

    /// Whether sealed records are to be changed in place, where they can be.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.left > 0
    }

    /// Whether so many sealed records are to be changed in place, where they can be.
    #[inline(always)]
    pub fn has_room(&self, records: usize) -> bool {
        self.left >= records as u64
    }

    /// Notes that a record was copied to the tail to be updated in a batch.
    #[inline(always)]
    pub fn note_copied(&mut self) {
        self.interval.copied += 1;
    }

    /// Notes that a sealed record was changed in place: `record` is it after the change.
    #[inline(always)]
    pub fn note_changed<K: Key, V: Record>(&mut self, record: Place) {
        self.tape.append::<K, V>(record);
        self.left -= 1;
        let hash = record.hash();
        if self.interval.is_sample(hash) {
            self.interval.sample(hash);
        }
    }

    /// Hands over what was written since the last seal, of a table that has `live` records now; how records change from now on.
    pub(super) fn seal(&mut self, sealed: &mut Vec<SealedRange>, live: u64, allowed: Allowed) -> Mode {
        self.tape.seal(sealed);
        self.left = self.interval.renew(self.left, live, allowed);
        self.interval.mode
    }
}
