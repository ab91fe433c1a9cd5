//! The table: a value per key, in the hybrid log of one slice of a state.
//!
//! A record is found by the index and lies in the blocks. Written since the last seal, it is changed in place. Else it
//! is copied to the tail first and the sealed one is dead; or it is changed in place and goes to the [journal](super::journal), or
//! its block is [open again](super::reopened). A value of a plain type is lent where it lies; others are restored, changed and
//! archived again, in place if they still fit.
//!
//! Removing: an open record of one size is replaced by the last open one, so that what a seal takes has no gaps; one of
//! any size is marked as dead. Once anything was sealed, the key is noted as removed, because an older record may be in
//! the files.

use std::{marker::PhantomData, ops::Range, rc::Rc};

use rkyv::Archived;

use super::{
    block::Block,
    blocks::Blocks,
    cold::Fetched,
    index::{Index, Slot},
    interval::Allowed,
    journal::Journal,
    place::{Form, Place, archive},
    seal::{BlockId, RemovedKeys, Sealed, TableId},
    shared::Shared,
};
use crate::{
    key::Key,
    record::{Record, restore},
    state::{Expired, KeyColumn, KeyView, KeyedTable, Slice, StateId},
    writer::RecordWriter,
};

/// After so many single changes a step of compaction may be due: half of what it looks at, so that it keeps up.
const CHANGES_PER_STEP: u32 = 32;

/// Bytes of the index per key, more or less.
const KEY_BYTES_IN_INDEX: usize = 8;

/// A table of the log-structured store.
pub struct LogTable<K: Key, V: Record> {
    pub(super) table: TableId,
    pub(super) index: Index,
    pub(super) blocks: Blocks,
    pub(super) journal: Journal,
    /// Keys up to which the table is taken to lie in the core's cache.
    pub(super) near_keys_max: usize,
    pub(super) scratch: RecordWriter,
    /// Keys removed since the last seal, as [`RemovedKeys`] holds them.
    pub(super) removed: Vec<u8>,
    /// Where compaction is: block, its number, and unit.
    pub(super) compacting: Option<(BlockId, usize, u32)>,
    /// What compaction drops instead of keeping it.
    pub(super) expired: Option<Expired<V>>,
    /// Cold records that were read.
    pub(super) fetched: Fetched,
    /// The cold block that a scan is in.
    pub(super) walked: Option<(BlockId, Block)>,
    /// Changes outside batches since something was done about compaction.
    changes: u32,
    /// Whether the budget was still overdrawn when it was looked at last.
    pub(super) over_budget: bool,
    /// How often the files had something new when they were asked last.
    pub(super) news: u64,
    /// Whether anything changed since the last seal.
    touched: bool,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// An empty table.
    pub fn new(state: StateId, slice: Slice, shared: &Rc<Shared>) -> Self {
        let table = shared.new_table(state, slice);
        Self {
            table,
            index: Index::new(shared.range, shared.pool.clone()),
            blocks: Blocks::new(table, Rc::clone(shared)),
            journal: Journal::new(table, Rc::clone(shared)),
            near_keys_max: shared.near_bytes_max / (Form::<K, V>::STRIDE + KEY_BYTES_IN_INDEX),
            scratch: RecordWriter::default(),
            removed: Vec::new(),
            compacting: None,
            expired: None,
            fetched: Fetched::default(),
            walked: None,
            changes: 0,
            over_budget: false,
            news: 0,
            touched: true,
            types: PhantomData,
        }
    }

    /// Its id.
    pub fn table(&self) -> TableId {
        self.table
    }

    /// Bytes of memory that the table takes: blocks, and index.
    pub fn bytes(&self) -> (usize, usize) {
        (self.blocks.bytes() + self.journal.tape.bytes(), self.index.bytes())
    }

    /// Closes everything written so far and hands over what changed since the last seal. Takes the same time
    /// whatever the table holds, or some 80 nanoseconds for each block that is open again, of a thousand at most: what was filled is handed over as it was
    /// noted when it was.
    pub fn seal(&mut self, sealed: &mut Sealed) {
        if self.blocks.shared.is_bounded() {
            // A table that is not used holds no files open from which its cold records were moved.
            self.hear_of_files();
        }
        let is_new =
            std::mem::take(&mut self.touched) || self.blocks.has_open() || self.journal.tape.has_open();
        if !is_new && self.removed.is_empty() {
            return;
        }
        let live = self.index.len();
        let (before, allowed) = (self.journal.interval.mode, self.allowed());
        let next = self.journal.seal(&mut sealed.journal, live as u64, allowed);
        self.seal_blocks(sealed, before, next);
        if !self.removed.is_empty() {
            let keys = std::mem::take(&mut self.removed);
            sealed.removed.push(RemovedKeys { table: self.table, keys });
        }
        sealed.live.push((self.table, live as u64));
    }

    /// How sealed records may be changed where they lie.
    fn allowed(&self) -> Allowed {
        let is_for_it = Form::<K, V>::STRIDED && V::PLAIN && self.index.len() > self.near_keys_max;
        let is_at_most = |bytes| is_for_it && Form::<K, V>::STRIDE <= bytes;
        let shared = &self.blocks.shared;
        Allowed {
            journal: is_at_most(shared.journaled_bytes_max) && self.blocks.may_stay(),
            reopening: is_at_most(shared.reopened_bytes_max) && self.blocks.may_be_copied(),
        }
    }

    #[inline(always)]
    pub(super) fn place(&self, address: u32) -> Place {
        Place(self.blocks.at(address, Form::<K, V>::SHAPE))
    }

    /// The slot of a key.
    #[inline(always)]
    pub(super) fn find(&mut self, key: KeyView<'_>) -> Option<Slot> {
        if self.blocks.cold > 0 {
            return self.find_cold(key);
        }
        let Self { index, blocks, .. } = self;
        index.find(key.hash, |address| Place(blocks.at(address, Form::<K, V>::SHAPE)).is::<K, V>(key))
    }

    /// Writes a record of a new key at the tail.
    #[inline(always)]
    pub(super) fn add(&mut self, key: KeyView<'_>, value: &V) -> Place {
        self.touched = true;
        let (address, place) = if V::PLAIN {
            let units = Form::<K, V>::units(key, size_of::<V>());
            let (address, memory) = self.blocks.append(units, Form::<K, V>::SHAPE);
            Place(memory).write_plain::<K, V>(key, units, value);
            (address, Place(memory))
        } else {
            let bytes = archive(&mut self.scratch, value);
            let units = Form::<K, V>::units(key, bytes.len());
            let (address, memory) = self.blocks.append(units, Form::<K, V>::SHAPE);
            Place(memory).write::<K, V>(key, units, bytes);
            (address, Place(memory))
        };
        self.add_address(key.hash, address);
        place
    }

    /// Puts a record into the index.
    #[inline(always)]
    pub(super) fn add_address(&mut self, hash: u64, address: u32) {
        let blocks = &self.blocks;
        self.index.insert(hash, address, |address| blocks.hash(address, Form::<K, V>::SHAPE));
    }

    /// The record in a slot, to be changed in place: copied to the tail first if it is sealed.
    #[inline(always)]
    pub(super) fn open(&mut self, slot: Slot) -> Place {
        let memory = self.blocks.open_at(slot.address(), Form::<K, V>::SHAPE);
        if memory.is_null() { self.copy_to_tail(slot) } else { Place(memory) }
    }

    /// Copies a record to the tail; the one that it was is dead.
    #[inline(never)]
    pub(super) fn copy_to_tail(&mut self, slot: Slot) -> Place {
        let units = self.resident(slot.address()).units::<K, V>();
        let (address, memory) = self.blocks.append(units, Form::<K, V>::SHAPE);
        // Asked for again: a small block moves when it grows.
        let old = self.resident(slot.address());
        Place(memory).copy::<K, V>(old.0, units);
        if !Form::<K, V>::STRIDED && self.blocks.is_open(slot.address(), Form::<K, V>::SHAPE) {
            old.mark_dead();
        }
        self.blocks.died(slot.address(), units, Form::<K, V>::SHAPE);
        slot.set(address);
        Place(memory)
    }

    /// Replaces the value of the record in a slot.
    fn rewrite(&mut self, slot: Slot, value: &V) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let bytes = archive(&mut scratch, value);
        let memory = self.blocks.open_at(slot.address(), Form::<K, V>::SHAPE);
        if !memory.is_null() && bytes.len() <= Place(memory).value_room::<K, V>() {
            Place(memory).write_value::<K, V>(bytes);
        } else {
            // One that has outgrown its room once may do it again: it gets a quarter more.
            let grown = if memory.is_null() { bytes.len() } else { bytes.len() + bytes.len() / 4 };
            let units = Form::<K, V>::units(self.resident(slot.address()).key::<K, V>(), grown);
            let (address, new) = self.blocks.append(units, Form::<K, V>::SHAPE);
            // Asked for again: a small block moves when it grows.
            let old = self.resident(slot.address());
            Place(new).write::<K, V>(old.key::<K, V>(), units, bytes);
            if !memory.is_null() {
                old.mark_dead();
            }
            let units = old.units::<K, V>();
            self.blocks.died(slot.address(), units, Form::<K, V>::SHAPE);
            slot.set(address);
        }
        self.scratch = scratch;
    }

    /// Updates one key; in a batch, what was read for the batch stays.
    #[inline(always)]
    pub(super) fn update_one<R>(
        &mut self,
        key: KeyView<'_>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        if let Some(slot) = self.find(key) {
            return self.update_at(slot, update);
        }
        let mut value = create();
        if V::PLAIN {
            return update(self.add(key, &value).plain::<K, V>());
        }
        let result = update(&mut value);
        self.add(key, &value);
        result
    }

    /// What is due after a change outside a batch.
    #[inline(always)]
    fn after_change(&mut self) {
        if self.blocks.cold > 0 {
            self.forget_fetched();
        }
        self.changes += 1;
        if self.changes == CHANGES_PER_STEP || self.blocks.take_grown() || self.over_budget {
            self.changes = 0;
            self.maintain();
        }
    }

    #[inline(always)]
    fn update_at<R>(&mut self, slot: Slot, update: impl FnOnce(&mut V) -> R) -> R {
        if V::PLAIN {
            return update(self.open(slot).plain::<K, V>());
        }
        let mut value = restore::<V>(self.resident(slot.address()).value::<K, V>());
        let result = update(&mut value);
        self.rewrite(slot, &value);
        result
    }

    /// Notes a removed key for the files, if they may know it.
    pub(super) fn note_removed(&mut self, key: KeyView<'_>) {
        if !self.blocks.is_unsealed() {
            self.removed.extend_from_slice(&key.hash.to_le_bytes());
            self.removed.extend_from_slice(&(key.bytes.len() as u32).to_le_bytes());
            self.removed.extend_from_slice(key.bytes);
        }
    }

    /// Removes the record of a key, which is at an address.
    pub(super) fn take_out(&mut self, key: KeyView<'_>, address: u32) {
        self.note_removed(key);
        self.forget(key, address);
    }

    /// Removes the record of a key, which is at an address; the files know of it already, or need not.
    pub(super) fn forget(&mut self, key: KeyView<'_>, address: u32) {
        let shape = Form::<K, V>::SHAPE;
        self.touched = true;
        self.index.remove(key.hash, |own| own == address);
        let open = self.blocks.open_at(address, shape);
        if open.is_null() || self.blocks.is_reopened(shape.split(address).0) {
            let units = self.resident(address).units::<K, V>();
            self.blocks.died(address, units, shape);
        } else if Form::<K, V>::STRIDED {
            self.fill_gap(address);
        } else {
            Place(open).mark_dead();
            self.blocks.died(address, Place(open).units::<K, V>(), shape);
        }
    }

    /// Takes an open record away by putting the last open one in its place.
    fn fill_gap(&mut self, gap: u32) {
        let shape = Form::<K, V>::SHAPE;
        let last = self.blocks.pop(shape);
        if last == gap {
            return;
        }
        let moved = self.place(last);
        let hash = moved.hash();
        self.place(gap).copy::<K, V>(moved.0, 1);
        if let Some(slot) = self.index.find(hash, |address| address == last) {
            slot.set(gap);
        }
    }
}

impl<K: Key, V: Record> KeyedTable<K, V> for LogTable<K, V> {
    fn len(&self) -> usize {
        self.index.len()
    }

    #[inline]
    fn read<R>(&mut self, key: KeyView<'_>, lend: impl FnOnce(&Archived<V>) -> R) -> Option<R> {
        let slot = self.find(key)?;
        let address = slot.address();
        let result = lend(self.resident(address).value::<K, V>());
        self.forget_fetched();
        Some(result)
    }

    #[inline(always)]
    fn update<R>(
        &mut self,
        key: KeyView<'_>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        self.touched = true;
        let result = self.update_one(key, create, update);
        self.after_change();
        result
    }

    #[inline]
    fn update_batch<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        create: impl FnMut(usize) -> V,
        update: impl FnMut(usize, &mut V),
    ) {
        self.touched = true;
        self.update_all(keys, range, create, update);
    }

    fn put(&mut self, key: KeyView<'_>, value: &V) {
        self.touched = true;
        match self.find(key) {
            Some(slot) if V::PLAIN => {
                let place = self.open(slot);
                place.set_plain::<K, V>(value);
            }
            Some(slot) => self.rewrite(slot, value),
            None => {
                self.add(key, value);
            }
        }
        self.after_change();
    }

    fn remove(&mut self, key: KeyView<'_>) -> bool {
        let Some(slot) = self.find(key) else { return false };
        self.take_out(key, slot.address());
        self.forget_fetched();
        true
    }

    /// The cursor is an address, and above it the lower half of the id of its block. Where the table has changed since
    /// and the number is another block's, that is read from its beginning: an address in it may be no record's.
    fn scan(
        &mut self,
        cursor: usize,
        mut visit: impl FnMut(KeyView<'_>, &Archived<V>) -> bool,
    ) -> Option<usize> {
        let (first, unit) = Form::<K, V>::SHAPE.split(cursor as u32);
        let mut from = if self.blocks.id_bits(first) == cursor >> 32 { unit } else { 0 };
        for block in first..self.blocks.len() {
            let id_bits = self.blocks.id_bits(block);
            let stopped = self.walk(block, from, |place| visit(place.key::<K, V>(), place.value::<K, V>()));
            if let Some(unit) = stopped {
                // Behind the last unit of a block is the first of the next one, whose id is another: which is right.
                let address = self.blocks.first(block, Form::<K, V>::SHAPE) + unit;
                return Some(id_bits << 32 | address as usize);
            }
            from = 0;
        }
        None
    }

    fn reserve(&mut self, keys: usize) {
        self.index.reserve(keys);
    }

    fn relieve(&mut self) {
        self.maintain();
    }

    fn seal(&mut self, sealed: &mut Sealed) {
        Self::seal(self, sealed);
    }

    fn expire_with(&mut self, expired: Expired<V>) {
        self.expired = Some(expired);
    }
}
