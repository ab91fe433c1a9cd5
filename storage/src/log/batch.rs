//! Updates of many keys at once, as a pipeline that keeps the memory busy.
//!
//! A look-up waits for two cache misses one after the other: the bucket of the index, then the record. So
//! the keys pass stations, a few keys apart: fetch the bucket; read it and fetch the likely record; update. While
//! one key waits, sixteen others do. At the last station, the record is nearly always the one: its hash says so,
//! and no search is needed.
//!
//! Where pages of the index are nearly full, one key in twenty is not in its own bucket but in one behind it. A search
//! for it at the last station would wait for that bucket and then for its record with nothing else under way, which
//! costs as much as ten other keys do. So there is a station between the last two: it reads the next bucket,
//! which the one before has fetched, and fetches the record.
//!
//! A table that is small enough to lie in the core's own caches has little to wait for: there a few keys are looked up together and
//! then updated, without stations.

use std::{
    ops::Range,
    ptr::{NonNull, null_mut},
};

use super::{
    index::{Bucket, Slot, prefetch},
    place::{Form, Place},
    table::LogTable,
};
use crate::{
    key::Key,
    record::Record,
    state::{KeyColumn, KeyView},
};

/// Keys between two stations: enough to hide a miss, few enough for the core's miss buffers.
const DISTANCE: usize = 16;
/// The last station, in distances behind the first.
const LAST: usize = 3;
/// Keys that one station takes in a row.
const STRIDE: usize = 8;
/// Keys under way at once, as a power of two.
const UNDER_WAY: usize = 64;
/// Keys of a small table that are looked up together.
const NEAR_TOGETHER: usize = 16;
/// Records by which the tail is fetched ahead of those that are copied to it.
const TAIL_AHEAD: usize = 16;
/// Keys whose cold records are read together.
const COLD_BATCH: usize = 1024;

const _: () = assert!(LAST * DISTANCE + STRIDE <= UNDER_WAY && DISTANCE.is_multiple_of(STRIDE));

/// What was found for the keys under way.
struct Way {
    buckets: [*mut Bucket; UNDER_WAY],
    slots: [Option<Slot>; UNDER_WAY],
    /// Whether the marks of records are fetched.
    mark: bool,
    /// How often pages of the index have moved. Slots and buckets found before that, by keys before `moved_at`, are not to be
    /// followed.
    moves: u64,
    moved_at: usize,
}

impl Way {
    #[inline(always)]
    fn new(mark: bool, moves: u64) -> Self {
        Self { buckets: [null_mut(); UNDER_WAY], slots: [None; UNDER_WAY], mark, moves, moved_at: 0 }
    }

    #[inline(always)]
    fn slot(&self, i: usize) -> Option<Slot> {
        if i >= self.moved_at { self.slots[i % UNDER_WAY] } else { None }
    }

    /// Notes that pages may have moved when the front was here.
    #[inline(always)]
    fn note_moves(&mut self, moves: u64, front: usize) {
        if self.moves != moves {
            // All that passed the first station by now.
            (self.moves, self.moved_at) = (moves, front + STRIDE);
        }
    }
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// Updates the values of the keys of all records in `range`, in this order.
    #[inline]
    pub(super) fn pipeline<C: KeyColumn>(
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
                self.run_near(keys, from..to, &mut create, &mut update);
            } else {
                self.run(keys, from..to, &mut create, &mut update);
            }
            from = to;
        }
        self.after_batch(range.len());
    }

    /// The record in a slot, to be changed in place, if it is in memory and the hash's, as that of the first tag that fits nearly
    /// always is; of records of one size.
    #[inline(always)]
    fn likely_place(&mut self, slot: Slot, hash: u64) -> Option<Place> {
        let (memory, open) = self.blocks.look(slot.address(), Form::<K, V>::SHAPE);
        if memory.is_null() || Place(memory).hash() != hash {
            return None;
        }
        Some(if open { Place(memory) } else { self.renew(slot, memory) })
    }

    /// The record of a key, to be changed in place, which is made where there is none; of plain values.
    #[inline(never)]
    fn plain_place(&mut self, key: KeyView<'_>, create: impl FnOnce() -> V) -> Place {
        match self.find(key) {
            Some(slot) => self.open(slot),
            None => self.add(key, &create()),
        }
    }

    /// A few plain values after a few others: all are looked up, then all updated, so that no look-up waits for the record of the
    /// one before. A function of its own, as [`run`](Self::run) is: these are the loops that count, and each has the registers for
    /// itself.
    #[inline(never)]
    fn run_near<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        create: &mut impl FnMut(usize) -> V,
        update: &mut impl FnMut(usize, &mut V),
    ) {
        if !V::PLAIN {
            for i in range {
                self.update_one(key_of::<K>(keys, i), || create(i), |value| update(i, value));
            }
            return;
        }
        let mut from = range.start;
        while from < range.end {
            let together = from..range.end.min(from + NEAR_TOGETHER);
            from = together.end;
            let mut likely = [null_mut(); NEAR_TOGETHER];
            let mut homes = [null_mut(); NEAR_TOGETHER];
            for (home, i) in homes.iter_mut().zip(together.clone()) {
                *home = self.index.prefetch(keys.hash(i));
            }
            for ((place, home), i) in likely.iter_mut().zip(&homes).zip(together.clone()) {
                *place = self.likely_open(*home, keys.hash(i));
                prefetch(*place);
            }
            let mut capacity = self.blocks.tail_capacity();
            for (at, i) in together.enumerate() {
                let (place, key) = (likely[at], key_of::<K>(keys, i));
                if !place.is_null() && Place(place).hash() == key.hash {
                    update(i, Place(place).plain::<K, V>());
                    continue;
                }
                update(i, self.plain_place(key, || create(i)).plain::<K, V>());
                if capacity != self.blocks.tail_capacity() {
                    // A small block has moved, since it has grown.
                    capacity = self.blocks.tail_capacity();
                    likely = [null_mut(); NEAR_TOGETHER];
                }
            }
        }
    }

    /// The record that a hash's first tag leads to, if it may be changed in place, or null; of records of one size.
    #[inline(always)]
    fn likely_open(&self, home: *mut Bucket, hash: u64) -> *mut u8 {
        let likely = self.index.candidates(home, hash).next();
        likely.map_or(null_mut(), |slot| self.blocks.open_at(slot.address(), Form::<K, V>::SHAPE))
    }

    /// All stations.
    #[inline(never)]
    fn run<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        create: &mut impl FnMut(usize) -> V,
        update: &mut impl FnMut(usize, &mut V),
    ) {
        let (from, len) = (range.start, range.len());
        let mut way = Way::new(self.blocks.has_dead(), self.index.moves());
        for front in (0..len + LAST * DISTANCE).step_by(STRIDE) {
            self.fetch(keys, from, front, len, &mut way);
            for i in stretch(front, LAST * DISTANCE, len) {
                let key = key_of::<K>(keys, from + i);
                if Form::<K, V>::STRIDED && V::PLAIN {
                    let place = match way.slot(i).and_then(|slot| self.likely_place(slot, key.hash)) {
                        Some(place) => place,
                        None => {
                            let place = self.plain_place(key, || create(from + i));
                            way.note_moves(self.index.moves(), front);
                            place
                        }
                    };
                    update(from + i, place.plain::<K, V>());
                } else {
                    self.update_one(key, || create(from + i), |value| update(from + i, value));
                    way.note_moves(self.index.moves(), front);
                }
            }
        }
    }

    /// The stations before the last.
    #[inline(always)]
    fn fetch<C: KeyColumn>(&self, keys: &C, from: usize, front: usize, len: usize, way: &mut Way) {
        for i in stretch(front, 0, len) {
            way.buckets[i % UNDER_WAY] = self.index.prefetch(keys.hash(from + i));
        }
        for i in stretch(front, DISTANCE, len) {
            let hash = keys.hash(from + i);
            let has_moved = i < way.moved_at;
            let bucket = if has_moved { self.index.prefetch(hash) } else { way.buckets[i % UNDER_WAY] };
            let mut candidates = self.index.candidates(bucket, hash);
            let likely = candidates.next();
            way.slots[i % UNDER_WAY] = likely;
            match likely {
                Some(slot) => {
                    self.prefetch_record(slot, way.mark);
                    candidates.for_each(|slot| self.prefetch_record(slot, way.mark));
                }
                None => {
                    let next = self.index.prefetch_next(bucket, hash);
                    way.buckets[i % UNDER_WAY] = next.map_or(null_mut(), NonNull::as_ptr);
                }
            }
        }
        for i in stretch(front, 2 * DISTANCE, len) {
            let bucket = way.buckets[i % UNDER_WAY];
            if way.slots[i % UNDER_WAY].is_none() && i >= way.moved_at && !bucket.is_null() {
                let candidates = self.index.candidates(bucket, keys.hash(from + i));
                way.slots[i % UNDER_WAY] = candidates.clone().next();
                candidates.for_each(|slot| self.prefetch_record(slot, way.mark));
            }
        }
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

    /// Fetches what a record has in its first lines, and with `mark` the mark that it gets if it is sealed.
    #[inline(always)]
    fn prefetch_record(&self, slot: Slot, mark: bool) {
        if mark {
            self.blocks.prefetch_mark(slot.address(), Form::<K, V>::SHAPE);
        }
        let record = self.blocks.at(slot.address(), Form::<K, V>::SHAPE);
        prefetch(record);
        // Records do not begin with a cache line, but some sizes never cross into another.
        if !Form::<K, V>::STRIDED || !64_usize.is_multiple_of(Form::<K, V>::STRIDE) {
            prefetch(record.wrapping_add(if Form::<K, V>::STRIDED { Form::<K, V>::STRIDE - 8 } else { 64 }));
        }
    }
}

/// The key of record `i`, of which only the hash is asked for if it is all there is.
#[inline(always)]
fn key_of<'k, K: Key>(keys: &'k impl KeyColumn, i: usize) -> KeyView<'k> {
    if K::WIDTH.is_narrow() { KeyView { hash: keys.hash(i), bytes: &[] } } else { keys.key(i) }
}

/// The keys that a station `behind` the front takes now.
#[inline(always)]
fn stretch(front: usize, behind: usize, len: usize) -> Range<usize> {
    match front.checked_sub(behind) {
        Some(at) => at.min(len)..(at + STRIDE).min(len),
        None => 0..0,
    }
}
