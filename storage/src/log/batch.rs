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
//! A table that is small enough to lie in the core's own caches has nothing to wait for: there each key is looked up and updated
//! at once.

use std::{ops::Range, ptr::NonNull};

use super::{
    index::{Slot, prefetch},
    place::{Form, Place},
    table::LogTable,
};
use crate::{key::Key, record::Record, state::KeyColumn};

/// Keys between two stations: enough to hide a miss, few enough for the core's miss buffers.
const DISTANCE: usize = 16;
/// The last station, in distances behind the first.
const LAST: usize = 3;
/// Keys that one station takes in a row.
const STRIDE: usize = 8;
/// Keys under way at once, as a power of two.
const UNDER_WAY: usize = 64;
/// Records by which the tail is fetched ahead of those that are copied to it.
const TAIL_AHEAD: usize = 16;
/// Keys whose cold records are read together.
const COLD_BATCH: usize = 1024;

const _: () = assert!(LAST * DISTANCE + STRIDE <= UNDER_WAY && DISTANCE.is_multiple_of(STRIDE));

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
            if self.is_near() {
                self.run_near(keys, from..to, &mut create, &mut update);
            } else {
                self.run(keys, from..to, &mut create, &mut update);
            }
            from = to;
        }
        self.after_batch(range.len());
    }

    /// Whether fetching ahead would cost more than it saves.
    #[inline(always)]
    fn is_near(&self) -> bool {
        Form::<K, V>::STRIDED && self.index.len() <= self.near_keys_max
    }

    /// One key after the other. As in [`run`](Self::run), the first record whose tag fits is nearly always the one.
    #[inline(always)]
    fn run_near<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        create: &mut impl FnMut(usize) -> V,
        update: &mut impl FnMut(usize, &mut V),
    ) {
        for i in range {
            let key = keys.key(i);
            if Form::<K, V>::STRIDED && V::PLAIN {
                let likely = self.index.candidates(self.index.home(key.hash), key.hash).next();
                if let Some(slot) = likely {
                    let (memory, open) = self.blocks.look(slot.address(), Form::<K, V>::SHAPE);
                    if !memory.is_null() && Place(memory).hash() == key.hash {
                        let place = if open { Place(memory) } else { self.renew(slot, memory) };
                        update(i, place.plain::<K, V>());
                        continue;
                    }
                }
            }
            self.update_one(key, || create(i), |value| update(i, value));
        }
    }

    #[inline(always)]
    fn run<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        create: &mut impl FnMut(usize) -> V,
        update: &mut impl FnMut(usize, &mut V),
    ) {
        let shape = Form::<K, V>::SHAPE;
        let mark = self.blocks.has_dead();
        let mut buckets = [std::ptr::null_mut(); UNDER_WAY];
        let mut slots: [Option<Slot>; UNDER_WAY] = [None; UNDER_WAY];
        let (from, len) = (range.start, range.len());
        // Slots and buckets found before pages of the index moved are not to be followed.
        let mut moved_at = 0;
        for front in (0..len + LAST * DISTANCE).step_by(STRIDE) {
            for i in stretch(front, 0, len) {
                buckets[i % UNDER_WAY] = self.index.prefetch(keys.key(from + i).hash);
            }
            for i in stretch(front, DISTANCE, len) {
                let hash = keys.key(from + i).hash;
                let bucket = if i < moved_at { self.index.prefetch(hash) } else { buckets[i % UNDER_WAY] };
                let mut candidates = self.index.candidates(bucket, hash);
                let likely = candidates.next();
                slots[i % UNDER_WAY] = likely;
                match likely {
                    Some(slot) => {
                        self.prefetch_record(slot, mark);
                        candidates.for_each(|slot| self.prefetch_record(slot, mark));
                    }
                    None => {
                        let next = self.index.prefetch_next(bucket, hash);
                        buckets[i % UNDER_WAY] = next.map_or(std::ptr::null_mut(), NonNull::as_ptr);
                    }
                }
            }
            for i in stretch(front, 2 * DISTANCE, len) {
                let bucket = buckets[i % UNDER_WAY];
                if slots[i % UNDER_WAY].is_none() && i >= moved_at && !bucket.is_null() {
                    let candidates = self.index.candidates(bucket, keys.key(from + i).hash);
                    slots[i % UNDER_WAY] = candidates.clone().next();
                    candidates.for_each(|slot| self.prefetch_record(slot, mark));
                }
            }
            for i in stretch(front, LAST * DISTANCE, len) {
                let key = keys.key(from + i);
                if Form::<K, V>::STRIDED
                    && V::PLAIN
                    && i >= moved_at
                    && let Some(slot) = slots[i % UNDER_WAY]
                {
                    let (memory, open) = self.blocks.look(slot.address(), shape);
                    if !memory.is_null() && Place(memory).hash() == key.hash {
                        let place = if open { Place(memory) } else { self.renew(slot, memory) };
                        update(from + i, place.plain::<K, V>());
                        continue;
                    }
                }
                let moves = self.index.moves();
                self.update_one(key, || create(from + i), |value| update(from + i, value));
                if self.index.moves() != moves {
                    // All that passed the first station by now.
                    moved_at = (front + STRIDE).min(len);
                }
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
        // Most records are not aligned to cache lines.
        prefetch(record.wrapping_add(if Form::<K, V>::STRIDED { Form::<K, V>::STRIDE - 8 } else { 64 }));
    }
}

/// The keys that a station `behind` the front takes now.
#[inline(always)]
fn stretch(front: usize, behind: usize, len: usize) -> Range<usize> {
    match front.checked_sub(behind) {
        Some(at) => at.min(len)..(at + STRIDE).min(len),
        None => 0..0,
    }
}
