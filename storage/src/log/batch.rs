//! Updates of many keys at once, in groups that keep the memory busy.
//!
//! A look-up waits for two cache misses one after the other: the bucket of the index, then the record. So
//! a few keys together take each step: fetch all buckets; read them and fetch the likely records; update. While one key waits, the
//! others of its group do. At the last step, the record is nearly always the one: its hash says so, and no search
//! is needed. (A pipeline, in which each key is a few steps behind the next, was no faster where all is in memory, and slower where it
//! is in a cache: what it keeps of keys under way costs more than the gaps between groups.)
//!
//! Where pages of the index are nearly full, some keys are not in their own bucket but in one behind it. A search
//! for such a key at the last step would wait for that bucket and then for its record with nothing else under way, which
//! costs as much as ten other keys do. So there are steps for them before the last: each reads the next bucket,
//! which the one before has fetched, and fetches the record.

use std::{ops::Range, ptr::null_mut};

use super::{
    in_place::Way,
    index::{Bucket, Slot},
    interval::Mode,
    place::{Form, Place},
    table::LogTable,
};
use crate::{
    key::Key,
    prefetch::prefetch,
    record::Record,
    state::{KeyColumn, KeyView},
};

/// Keys that take each step together: enough to hide a miss, and few enough for what they fetch to stay in the nearest cache.
const GROUP: usize = 64;
/// The same, of a table that lies in the core's cache: there is less to hide.
const NEAR_GROUP: usize = 16;
/// Buckets of one search that are fetched ahead of it.
const BUCKETS_AHEAD: usize = 4;
/// Records by which the tail is fetched ahead of those that are copied to it.
const TAIL_AHEAD: usize = 16;
/// Keys whose cold records are read together.
const COLD_BATCH: usize = 1024;

/// Where a record lies that may be changed there, and whether what it becomes has to go to the journal.
#[derive(Clone, Copy)]
struct Found {
    place: Place,
    in_place: bool,
}

/// What changing sealed records takes: their marks, as they are copied, or the journal.
#[derive(Clone, Copy)]
struct Sealed {
    marked: bool,
    journaled: bool,
}

/// What is known of the records of a group before they are updated.
struct Ahead<const GROUP: usize> {
    /// Where they lie, if they may be changed there, else null; a byte further if the change has to go to the journal.
    open: [*mut u8; GROUP],
    /// Their likely slots; none of a near table.
    slots: [Option<Slot>; GROUP],
}

impl<const GROUP: usize> Ahead<GROUP> {
    #[inline(always)]
    fn nothing() -> Self {
        Self { open: [null_mut(); GROUP], slots: [None; GROUP] }
    }

    /// The record of the group's nth key, if it is what its bucket made likely; else at null.
    #[inline(always)]
    fn found(&self, at: usize) -> Found {
        let tagged = self.open[at];
        Found { place: Place(tagged.map_addr(|address| address & !1)), in_place: tagged.addr() & 1 == 1 }
    }
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// Updates the values of the keys of all records in `range`, in this order.
    #[inline]
    pub(super) fn update_all<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        mut create: impl FnMut(usize) -> V,
        mut update: impl FnMut(usize, &mut V),
    ) {
        let mut from = range.start;
        while from < range.end {
            let to = if self.blocks.cold > 0 { range.end.min(from + COLD_BATCH) } else { range.end };
            self.warm(keys, from..to);
            if Form::<K, V>::STRIDED && self.index.len() <= self.near_keys_max {
                self.run::<true, NEAR_GROUP, C>(keys, from..to, &mut create, &mut update);
            } else {
                self.run::<false, GROUP, C>(keys, from..to, &mut create, &mut update);
                self.note_updates(keys, from..to);
            }
            from = to;
        }
        self.after_batch(range.len());
    }

    /// Notes what the next seal has to know of updates. Where nothing is done with a change that could tell, it asks the keys.
    fn note_updates(&mut self, keys: &impl KeyColumn, range: Range<usize>) {
        let interval = &mut self.journal.interval;
        interval.updates += range.len() as u64;
        if interval.mode == Mode::Reopened {
            for hash in range.map(|i| keys.hash(i)) {
                if interval.is_sample(hash) {
                    interval.sample(hash);
                }
            }
        }
    }

    /// The record in a slot, to be changed, if it is in memory and the hash's, as that of the first tag that fits nearly
    /// always is; of records of one size.
    #[inline(always)]
    fn likely_place(&mut self, slot: Slot, hash: u64) -> Option<Found> {
        let (memory, open) = self.blocks.look(slot.address(), Form::<K, V>::SHAPE);
        if memory.is_null() || Place(memory).hash() != hash {
            return None;
        }
        if open {
            return Some(Found { place: Place(memory), in_place: false });
        }
        Some(self.change_in_place(slot, memory).unwrap_or_else(|| {
            self.journal.note_copied();
            Found { place: self.renew(slot, memory), in_place: false }
        }))
    }

    /// A sealed record, which lies at `memory`, if it may be changed there.
    #[inline(always)]
    fn change_in_place(&mut self, slot: Slot, memory: *mut u8) -> Option<Found> {
        let journaled = self.journal.is_on();
        let way = self.blocks.way_to_change(slot.address(), Form::<K, V>::SHAPE, journaled)?;
        Some(Found { place: Place(memory), in_place: way == Way::Journaled })
    }

    /// The record of a key, to be changed, which is made where there is none; of plain values of one size.
    #[inline(never)]
    fn plain_place(&mut self, key: KeyView<'_>, create: impl FnOnce() -> V) -> Found {
        let Some(slot) = self.find(key) else {
            return Found { place: self.add(key, &create()), in_place: false };
        };
        let (memory, open) = self.blocks.look(slot.address(), Form::<K, V>::SHAPE);
        if open {
            return Found { place: Place(memory), in_place: false };
        }
        let in_place = if memory.is_null() { None } else { self.change_in_place(slot, memory) };
        in_place.unwrap_or_else(|| {
            self.journal.note_copied();
            Found { place: self.copy_to_tail(slot), in_place: false }
        })
    }

    /// All groups, as [`look_near`](Self::look_near) or [`look_far`](Self::look_far) has them. A function of its own, so that the
    /// loops that count have the registers for themselves.
    #[inline(never)]
    fn run<const NEAR: bool, const GROUP: usize, C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        create: &mut impl FnMut(usize) -> V,
        update: &mut impl FnMut(usize, &mut V),
    ) {
        let mut from = range.start;
        while from < range.end {
            let group = from..range.end.min(from + GROUP);
            from = group.end;
            let mut ahead: Ahead<GROUP> =
                if NEAR { self.look_near(keys, group.clone()) } else { self.look_far(keys, group.clone()) };
            let mut moves = self.moves();
            for (at, i) in group.enumerate() {
                let key = key_of::<K>(keys, i);
                if !Form::<K, V>::STRIDED || !V::PLAIN {
                    self.update_one(key, || create(i), |value| update(i, value));
                    continue;
                }
                let Found { place, in_place } = ahead.found(at);
                if !place.0.is_null() && place.hash() == key.hash {
                    update(i, place.plain::<K, V>());
                    if !NEAR && in_place {
                        self.journal.note_changed::<K, V>(place);
                    }
                    continue;
                }
                let Found { place, in_place } =
                    match ahead.slots[at].and_then(|slot| self.likely_place(slot, key.hash)) {
                        Some(likely) => likely,
                        None => self.plain_place(key, || create(i)),
                    };
                update(i, place.plain::<K, V>());
                if in_place {
                    self.journal.note_changed::<K, V>(place);
                    continue;
                }
                if moves != self.moves() {
                    moves = self.moves();
                    ahead = Ahead::nothing();
                }
            }
        }
    }

    /// Changes when a page of the index or a small block has moved, the one since it was split and the other since it has grown.
    #[inline(always)]
    fn moves(&self) -> (u64, u32) {
        (self.index.moves(), self.blocks.tail_capacity())
    }

    /// The steps before the last, of a table that lies in the core's cache, with nothing fetched that is seldom needed.
    #[inline(always)]
    fn look_near<const GROUP: usize>(&self, keys: &impl KeyColumn, group: Range<usize>) -> Ahead<GROUP> {
        let mut ahead = Ahead::nothing();
        let buckets: [_; GROUP] = self.fetch_buckets(keys, group.clone());
        for ((open, bucket), i) in ahead.open.iter_mut().zip(&buckets).zip(group) {
            if let Some(slot) = self.index.candidates(*bucket, keys.hash(i)).next() {
                *open = self.blocks.open_at(slot.address(), Form::<K, V>::SHAPE);
                prefetch(*open);
            }
        }
        ahead
    }

    /// The steps before the last.
    #[inline(always)]
    fn look_far<const GROUP: usize>(&self, keys: &impl KeyColumn, group: Range<usize>) -> Ahead<GROUP> {
        let journaled = self.journal.has_room(GROUP);
        let copies = !journaled && !self.blocks.reopening.is_on;
        let sealed = Sealed { marked: self.blocks.has_dead() && copies, journaled };
        let mut ahead = Ahead::nothing();
        let mut buckets: [_; GROUP] = self.fetch_buckets(keys, group.clone());
        let (mut elsewhere, mut count) = ([0; GROUP], 0);
        // As `look_elsewhere`, of all keys: with one loop for both, updates of 100,000 keys were 4 % slower.
        for (at, i) in group.clone().enumerate() {
            if self.fetch(buckets[at], keys.hash(i), sealed, at, &mut ahead) {
                continue;
            }
            if let Some(next) = self.index.prefetch_next(buckets[at], keys.hash(i)) {
                buckets[at] = next.as_ptr();
                elsewhere[count] = at;
                count += 1;
            }
        }
        let mut bucket = 1;
        while count > 0 && bucket < BUCKETS_AHEAD {
            let hash = |at| keys.hash(group.start + at);
            count = self.look_elsewhere(hash, &mut elsewhere, count, sealed, &mut buckets, &mut ahead);
            bucket += 1;
        }
        ahead
    }

    /// Goes on with the searches of `count` keys, whose buckets were fetched: fetches their records, or the next buckets. How many
    /// there are of the latter.
    #[inline(never)]
    fn look_elsewhere<const GROUP: usize>(
        &self,
        hash: impl Fn(usize) -> u64,
        elsewhere: &mut [usize; GROUP],
        count: usize,
        sealed: Sealed,
        buckets: &mut [*mut Bucket; GROUP],
        ahead: &mut Ahead<GROUP>,
    ) -> usize {
        let mut further = 0;
        for n in 0..count {
            let at = elsewhere[n];
            if self.fetch(buckets[at], hash(at), sealed, at, ahead) {
                continue;
            }
            if let Some(next) = self.index.prefetch_next(buckets[at], hash(at)) {
                buckets[at] = next.as_ptr();
                elsewhere[further] = at;
                further += 1;
            }
        }
        further
    }

    /// The first step: fetches the buckets in which the searches begin.
    #[inline(always)]
    fn fetch_buckets<const GROUP: usize>(
        &self,
        keys: &impl KeyColumn,
        group: Range<usize>,
    ) -> [*mut Bucket; GROUP] {
        let mut buckets = [null_mut(); GROUP];
        for (bucket, i) in buckets.iter_mut().zip(group) {
            *bucket = self.index.prefetch(keys.hash(i));
        }
        buckets
    }

    /// Fetches the records in a bucket that a hash may be of. Whether there are any.
    #[inline(always)]
    fn fetch<const GROUP: usize>(
        &self,
        bucket: *mut Bucket,
        hash: u64,
        sealed: Sealed,
        at: usize,
        ahead: &mut Ahead<GROUP>,
    ) -> bool {
        let mut candidates = self.index.candidates(bucket, hash);
        let Some(slot) = candidates.next() else { return false };
        ahead.slots[at] = Some(slot);
        ahead.open[at] = self.fetch_record(slot, sealed);
        candidates.for_each(|slot| _ = self.fetch_record(slot, sealed));
        true
    }

    /// Copies a sealed record, which lies at `old`, to the tail, as [`copy_to_tail`](Self::copy_to_tail) does.
    #[inline(always)]
    pub(super) fn renew(&mut self, slot: Slot, old: *mut u8) -> Place {
        if !Form::<K, V>::STRIDED || !self.blocks.has_room() {
            // A small block moves when it grows, and `old` may be in it.
            return self.copy_to_tail(slot);
        }
        let shape = Form::<K, V>::SHAPE;
        let (address, memory) = self.blocks.append(1, shape);
        // Nobody has touched the tail further on: what is written to it would be read again before its line has come.
        prefetch(memory.wrapping_add(TAIL_AHEAD * shape.unit));
        Place(memory).copy::<K, V>(old, 1);
        self.blocks.died(slot.address(), 1, shape);
        slot.set(address);
        Place(memory)
    }

    /// Fetches what a record has in its first lines, and its mark where sealed ones are marked. Where it lies, as
    /// [`Ahead::open`] has it.
    #[inline(always)]
    fn fetch_record(&self, slot: Slot, sealed: Sealed) -> *mut u8 {
        if sealed.marked {
            self.blocks.prefetch_mark(slot.address(), Form::<K, V>::SHAPE);
        }
        let (record, open) = self.blocks.look(slot.address(), Form::<K, V>::SHAPE);
        prefetch(record);
        // Records do not begin with a cache line, but some sizes never cross into another.
        if !Form::<K, V>::STRIDED || !64_usize.is_multiple_of(Form::<K, V>::STRIDE) {
            prefetch(record.wrapping_add(if Form::<K, V>::STRIDED { Form::<K, V>::STRIDE - 8 } else { 64 }));
        }
        if open {
            return record;
        }
        let (block, unit) = Form::<K, V>::SHAPE.split(slot.address());
        if self.blocks.is_owed(block) {
            self.blocks.fetch_around(block, unit);
        }
        if sealed.journaled && self.blocks.is_changed_in_place(block) {
            record.wrapping_add(1)
        } else {
            null_mut()
        }
    }
}

/// The key of record `i`, of which only the hash is asked for if it is all there is.
#[inline(always)]
fn key_of<'k, K: Key>(keys: &'k impl KeyColumn, i: usize) -> KeyView<'k> {
    if K::WIDTH.is_narrow() { KeyView { hash: keys.hash(i), bytes: &[] } } else { keys.key(i) }
}
