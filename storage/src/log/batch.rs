//! Updates of many keys at once, as a pipeline that keeps the memory busy.
//!
//! A look-up waits for two cache misses one after the other: the bucket of the index, then the record. So
//! the keys pass three stations, a few keys apart: fetch the bucket; read it and fetch the likely record; update.
//! While one key waits, sixteen others do. At the last station, the record is nearly always the one: its
//! hash says so, and no search is needed.

use std::ops::Range;

use super::{
    index::prefetch,
    place::{Form, Place},
    table::LogTable,
};
use crate::{key::Key, record::Record, state::KeyColumn};

/// Keys between two stations: enough to hide a miss, few enough for the core's miss buffers.
const DISTANCE: usize = 16;
/// Keys that one station takes in a row.
const STRIDE: usize = 8;
/// Keys under way at once, as a power of two.
const UNDER_WAY: usize = 64;
/// Keys whose cold records are read together.
const COLD_BATCH: usize = 1024;

const _: () = assert!(2 * DISTANCE + STRIDE <= UNDER_WAY && DISTANCE.is_multiple_of(STRIDE));

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
            self.run(keys, from..to, &mut create, &mut update);
            from = to;
        }
        self.after_batch(range.len());
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
        let mut buckets = [std::ptr::null_mut(); UNDER_WAY];
        let mut slots = [None; UNDER_WAY];
        let (from, len) = (range.start, range.len());
        // Slots and buckets found before the index changed are not to be followed.
        let mut changed_at = 0;
        for front in (0..len + 2 * DISTANCE).step_by(STRIDE) {
            for i in stretch(front, 0, len) {
                buckets[i % UNDER_WAY] = self.index.prefetch(keys.key(from + i).hash);
            }
            for i in stretch(front, DISTANCE, len) {
                let hash = keys.key(from + i).hash;
                let bucket = if i < changed_at { self.index.prefetch(hash) } else { buckets[i % UNDER_WAY] };
                let slot = self.index.candidate(bucket, hash);
                let record = self.blocks.at(slot.address(), shape);
                prefetch(record);
                // Most records are not aligned to cache lines.
                prefetch(record.wrapping_add(if Form::<K, V>::STRIDED {
                    Form::<K, V>::STRIDE - 8
                } else {
                    64
                }));
                slots[i % UNDER_WAY] = Some(slot);
            }
            for i in stretch(front, 2 * DISTANCE, len) {
                let key = keys.key(from + i);
                if Form::<K, V>::STRIDED
                    && V::PLAIN
                    && i >= changed_at
                    && let Some(slot) = slots[i % UNDER_WAY]
                {
                    let memory = self.blocks.open_at(slot.address(), shape);
                    if !memory.is_null() && Place(memory).hash() == key.hash {
                        update(from + i, Place(memory).plain::<K, V>());
                        continue;
                    }
                }
                let len_before = self.index.len();
                self.update_one(key, || create(from + i), |value| update(from + i, value));
                if self.index.len() != len_before {
                    // All that passed the first station by now.
                    changed_at = (front + STRIDE).min(len);
                }
            }
        }
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
