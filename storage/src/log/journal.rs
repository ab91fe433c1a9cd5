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

use std::{collections::VecDeque, ptr::null_mut, rc::Rc, sync::Arc};

use super::{
    block::Block,
    filled::Filled,
    place::{Form, Place},
    pool::CHUNK_BYTES,
    seal::{BlockId, SealedRange, TableId},
    shared::Shared,
    sweep::Sweep,
};
use crate::{key::Key, prefetch::prefetch, record::Record};

/// Records by which the memory is fetched ahead of those that are written to it.
const AHEAD: usize = 16;
/// Bytes by which records that are taken one after another are fetched ahead.
const SWEPT_AHEAD: usize = 1024;
/// What is fetched at once.
const LINE_BYTES: usize = 64;
/// One of so many keys is a sample, a power of two.
const SAMPLE: u64 = 256;
/// How many samples are remembered, a power of two.
const SEEN: usize = 1024;

/// What was changed in place.
pub struct Journal {
    table: TableId,
    shared: Rc<Shared>,
    /// Records that may still be changed in place before the next seal.
    left: u64,
    /// Where the block lies that is being filled, and in bytes: how far it is filled and was sealed, and its length.
    start: *mut u8,
    used: usize,
    sealed: usize,
    capacity: usize,
    /// Its memory.
    memory: Option<Arc<Block>>,
    /// All blocks that files need, the one that is being filled behind the others.
    blocks: VecDeque<BlockId>,
    /// Ranges that were filled since the last seal, but for those of that one.
    filled: Filled,
    /// The sweep that is under way.
    pub(super) sweep: Option<Sweep>,
    interval: Interval,
}

/// What happened since the last seal.
#[derive(Default)]
struct Interval {
    /// Records that were updated in batches.
    updates: u64,
    /// How many of them were copied to the tail first.
    copied: u64,
    /// How many of them might be changed in place at most.
    granted: u64,
    /// Of those that were, samples, and how many of them were of a key that had been one before.
    samples: u64,
    repeated: u64,
    /// Hashes of samples.
    seen: Box<[u64]>,
}

impl Interval {
    /// Notes a sample.
    #[cold]
    #[inline(never)]
    fn sample(&mut self, hash: u64) {
        self.samples += 1;
        let seen = &mut self.seen[(hash / SAMPLE) as usize % SEEN];
        self.repeated += u64::from(*seen == hash);
        *seen = hash;
    }

    /// Begins anew; how many may be changed in place of `live` records, if any may.
    fn renew(&mut self, left: u64, live: u64, may: bool) -> u64 {
        let Self { updates, copied, granted, samples, repeated, .. } = *self;
        let changed = granted - left;
        let first_changes = copied + changed - changed * repeated / samples.max(1);
        let was_on = granted > 0;
        let goes_on = if updates == 0 { was_on } else { first_changes * 4 >= updates * 3 };
        let granted = if may && goes_on { live } else { 0 };
        let mut seen = std::mem::take(&mut self.seen);
        if granted > 0 && seen.is_empty() {
            seen = vec![0; SEEN].into();
        }
        seen.fill(0);
        *self = Self { granted, seen, ..Self::default() };
        granted
    }
}

impl Journal {
    /// An empty one, of a table.
    pub fn new(table: TableId, shared: Rc<Shared>) -> Self {
        Self {
            table,
            shared,
            left: 0,
            start: null_mut(),
            used: 0,
            sealed: 0,
            capacity: 0,
            memory: None,
            blocks: VecDeque::new(),
            filled: Filled::default(),
            sweep: None,
            interval: Interval::default(),
        }
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

    /// Notes that so many records were updated in a batch.
    #[inline(always)]
    pub fn note_updates(&mut self, records: usize) {
        self.interval.updates += records as u64;
    }

    /// Notes that a record was copied to the tail to be updated in a batch.
    #[inline(always)]
    pub fn note_copied(&mut self) {
        self.interval.copied += 1;
    }

    /// Notes that a sealed record was changed in place: `record` is it after the change.
    #[inline(always)]
    pub fn note_changed<K: Key, V: Record>(&mut self, record: Place) {
        self.append::<K, V>(record);
        self.left -= 1;
        let hash = record.hash();
        if hash.is_multiple_of(SAMPLE) {
            self.interval.sample(hash);
        }
    }

    /// Writes a record behind the others.
    #[inline(always)]
    pub fn append<K: Key, V: Record>(&mut self, record: Place) {
        if self.used == self.capacity {
            self.begin_block(Form::<K, V>::SHAPE.per_block as usize * Form::<K, V>::STRIDE);
        }
        let memory = self.start.wrapping_add(self.used);
        self.used += Form::<K, V>::STRIDE;
        prefetch(memory.wrapping_add(AHEAD * Form::<K, V>::STRIDE));
        Place(memory).copy::<K, V>(record.0, 1);
    }

    /// Writes records that lie one behind another behind the others.
    pub fn append_all<K: Key, V: Record>(&mut self, first: Place, records: usize) {
        let mut from = first.0.cast_const();
        let mut left = records;
        while left > 0 {
            if self.used == self.capacity {
                self.begin_block(Form::<K, V>::SHAPE.per_block as usize * Form::<K, V>::STRIDE);
            }
            let now = left.min((self.capacity - self.used) / Form::<K, V>::STRIDE);
            let bytes = now * Form::<K, V>::STRIDE;
            for line in (0..bytes).step_by(LINE_BYTES) {
                prefetch(from.wrapping_add(SWEPT_AHEAD + line));
            }
            Place(self.start.wrapping_add(self.used)).copy::<K, V>(from, now as u32);
            from = from.wrapping_add(bytes);
            self.used += bytes;
            left -= now;
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_block(&mut self, capacity: usize) {
        self.close_block();
        let memory = Arc::new(Block::new(CHUNK_BYTES, &self.shared.pool));
        self.start = memory.start().as_ptr();
        self.capacity = capacity;
        self.memory = Some(memory);
        self.blocks.push_back(self.shared.next_block());
    }

    /// Fills no more of the block.
    pub fn close_block(&mut self) {
        if let Some(range) = self.range() {
            self.filled.push(0, range);
        }
        self.memory = None;
        (self.start, self.used, self.sealed, self.capacity) = (null_mut(), 0, 0, 0);
    }

    /// What was filled of the block since the last seal.
    fn range(&self) -> Option<SealedRange> {
        let (memory, block) = self.memory.as_ref().zip(self.blocks.back())?;
        (self.sealed < self.used).then(|| SealedRange {
            table: self.table,
            block: *block,
            memory: Arc::clone(memory),
            from: self.sealed as u32,
            to: self.used as u32,
        })
    }

    /// Whether it is for records like these.
    pub fn is_for<K: Key, V: Record>(&self) -> bool {
        Form::<K, V>::STRIDED && V::PLAIN && Form::<K, V>::STRIDE <= self.shared.journaled_bytes_max
    }

    /// Hands over what was written since the last seal. `live` is how many records the table has, and `may` whether any may be
    /// changed in place.
    pub fn seal(&mut self, sealed: &mut Vec<SealedRange>, live: u64, may: bool) {
        let last = self.range();
        self.sealed = self.used;
        self.filled.hand_over(last, sealed);
        self.left = self.interval.renew(self.left, live, may);
    }

    /// Whether something was written since the last seal.
    pub fn has_open(&self) -> bool {
        self.sealed < self.used || !self.filled.is_empty()
    }

    /// Bytes of memory that it takes, but for what was sealed.
    pub fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.len())
    }

    /// Number of blocks that files need.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Lets the oldest blocks go: what is in them is elsewhere.
    pub fn forget(&mut self, blocks: usize) {
        let table = self.table;
        self.shared.freed.borrow_mut().extend(self.blocks.drain(..blocks).map(|block| (table, block)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an interval grants that had this, of a table of 1,000 records.
    fn next(granted: u64, updates: u64, copied: u64, changed: &[u64]) -> u64 {
        let mut interval = Interval { granted, updates, copied, ..Interval::default() };
        interval.seen = vec![0; SEEN].into();
        changed.iter().for_each(|key| interval.sample(key * SAMPLE));
        interval.renew(granted - changed.len() as u64, 1_000, true)
    }

    #[test]
    fn it_is_used_where_most_updates_are_the_first_of_their_keys() {
        assert_eq!(next(0, 100, 75, &[]), 1_000);
        assert_eq!(next(0, 100, 74, &[]), 0);
        // Without updates nothing is known, and nothing changes.
        assert_eq!(next(0, 0, 0, &[]), 0);
        assert_eq!(next(5, 0, 0, &[]), 1_000);
        // Of those that were changed in place, samples tell.
        assert_eq!(next(100, 8, 0, &[1, 2, 3, 4, 5, 6, 1, 2]), 1_000);
        assert_eq!(next(100, 8, 0, &[1, 2, 3, 4, 5, 1, 2, 3]), 0);
        // What was copied when no more might be changed in place counts, too.
        assert_eq!(next(4, 8, 2, &[1, 2, 3, 4]), 1_000);
        assert_eq!(next(4, 9, 2, &[1, 2, 3, 4]), 0);
    }

    #[test]
    fn it_is_not_used_where_it_may_not_be() {
        let mut interval = Interval { updates: 100, copied: 100, ..Interval::default() };
        assert_eq!(interval.renew(0, 1_000, false), 0);
        assert_eq!(interval.renew(0, 1_000, true), 0, "nothing is known of the interval before");
    }
}
