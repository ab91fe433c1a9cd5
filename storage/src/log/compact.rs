//! Compaction: the live records of mostly-dead blocks move to the tail, in small steps, and the block is free.
//!
//! It begins when more of a table is dead than alive: so a table takes at most twice its live records, and where all
//! keys change between two seals, blocks die by themselves before they are compacted.
//!
//! Each block has a bit per record that says whether it is dead, so nothing is looked up for dead ones. Where the table is half
//! dead and all keys change alike, four of five records of the oldest block are: compaction then costs a quarter of a move per
//! update. Where all records have one size, those of the next step are fetched from memory while those of this one move.

use super::{
    index::Slot,
    place::{Form, Place},
    table::LogTable,
};
use crate::{key::Key, prefetch::prefetch, record::Record};

/// Live records moved in one step: some microseconds.
const STEP_RECORDS: usize = 64;
/// Units looked at in one step.
const STEP_UNITS: u32 = 16 * STEP_RECORDS as u32;

impl<K: Key, V: Record> LogTable<K, V> {
    /// Does as much of what has to be done now and then as the `records` just updated have made necessary.
    #[inline(always)]
    pub(super) fn after_batch(&mut self, records: usize) {
        self.forget_fetched();
        if self.blocks.take_grown() || self.over_budget {
            self.keep_budget();
        }
        self.keep_journal_short(records);
        if self.compacting.is_some() || self.blocks.is_wasteful() {
            // A block that is half dead gives a place at least for each record that is moved: so compaction keeps up
            // with any number of updates.
            for _ in 0..records.div_ceil(STEP_RECORDS) {
                if !self.compact_step() {
                    break;
                }
            }
        }
    }

    /// Moves the next few live records of the block that is being compacted; whether there is more to do.
    pub fn compact_step(&mut self) -> bool {
        let Some((block, from)) = self.under_compaction() else { return false };
        let (shape, used) = (Form::<K, V>::SHAPE, self.blocks.used(block));
        let first = self.blocks.first(block, shape);
        let (mut addresses, mut live, mut unit) = ([0; STEP_RECORDS], 0, from);
        if Form::<K, V>::STRIDED {
            let to = used.min(from + STEP_UNITS);
            (live, unit) = self.blocks.marks[block].live_units(from, to, &mut addresses);
            addresses[..live].iter_mut().for_each(|address| *address += first);
        } else {
            while unit < used && live < STEP_RECORDS && unit - from < STEP_UNITS {
                if !self.blocks.is_dead(block, unit) {
                    addresses[live] = first + unit;
                    live += 1;
                }
                unit += self.place(first + unit).units::<K, V>();
            }
        }
        let slots = self.fetch_slots(&addresses[..live]);
        self.fetch_ahead(block, unit, used);
        for (address, slot) in addresses[..live].iter().zip(slots) {
            let place = self.place(*address);
            let Some(slot) = slot.or_else(|| self.index.find(place.hash(), |own| own == *address)) else {
                unreachable!("a record that was replaced or removed is marked")
            };
            let (key, value) = (place.key::<K, V>(), place.value::<K, V>());
            if self.expired.as_ref().is_some_and(|expired| expired(key, value)) {
                self.take_out(key, *address);
            } else {
                self.renew(slot, place.0);
            }
        }
        // The last live record to move lets the block go.
        if self.blocks.used(block) == used {
            if unit < used {
                self.compacting = Some((self.blocks.infos[block].id, block, unit));
            } else {
                // It was dead to the last record before it came here.
                self.blocks.give_up(block);
            }
        }
        true
    }

    /// The slots of some records, of those that are in the bucket where their search begins. All look-ups wait for memory
    /// together, not one after the other: for the records, for these buckets, and for those behind them where they are not.
    #[inline(always)]
    fn fetch_slots(&self, addresses: &[u32]) -> [Option<Slot>; STEP_RECORDS] {
        let mut buckets = [std::ptr::null_mut(); STEP_RECORDS];
        let mut slots = [None; STEP_RECORDS];
        if !Form::<K, V>::STRIDED {
            addresses.iter().for_each(|address| prefetch(self.place(*address).0));
        }
        for (bucket, address) in buckets.iter_mut().zip(addresses) {
            *bucket = self.index.prefetch(self.place(*address).hash());
        }
        for ((slot, bucket), address) in slots.iter_mut().zip(buckets).zip(addresses) {
            let hash = self.place(*address).hash();
            *slot = self.index.candidates(bucket, hash).find(|slot| slot.address() == *address);
            if slot.is_none() {
                self.index.prefetch_next(bucket, hash);
            }
        }
        slots
    }

    /// Fetches the records that the next step moves, if it goes on in this block and it can be told which they are.
    #[inline(always)]
    fn fetch_ahead(&self, block: usize, from: u32, used: u32) {
        if !Form::<K, V>::STRIDED {
            return;
        }
        let mut units = [0; STEP_RECORDS];
        let (live, _) = self.blocks.marks[block].live_units(from, used.min(from + STEP_UNITS), &mut units);
        let first = self.blocks.first(block, Form::<K, V>::SHAPE);
        for unit in &units[..live] {
            let record = self.place(first + unit).0;
            prefetch(record);
            // Most records are not aligned to cache lines.
            prefetch(record.wrapping_add(Form::<K, V>::STRIDE - 8));
        }
    }

    /// The block that is being compacted and how far it is, or the next one; in memory.
    fn under_compaction(&mut self) -> Option<(usize, u32)> {
        let resumed = self.compacting.take().filter(|(id, block, _)| {
            // Updates may have emptied it meanwhile, and its number may be another block's.
            self.blocks.infos[*block].id == *id
        });
        let (block, unit) = match resumed {
            Some((_, block, unit)) => (block, unit),
            None => (self.blocks.victim()?, 0),
        };
        if self.blocks.infos[block].cold {
            self.blocks.thaw(block, Form::<K, V>::SHAPE);
        }
        Some((block, unit))
    }

    /// Compaction when nothing else is to do.
    pub(super) fn maintain(&mut self) {
        if self.compacting.is_some() || self.blocks.is_wasteful() {
            self.compact_step();
        }
        self.keep_journal_short(STEP_RECORDS);
        self.forget_fetched();
        if self.blocks.take_grown() || self.over_budget || self.blocks.shared.excess_bytes() > 0 {
            self.keep_budget();
        }
    }

    /// Visits the live records of a block from a unit on until `visit` returns false; returns the unit to go on from.
    /// A cold block is read whole, beside the memory that records have.
    pub(super) fn walk(
        &mut self,
        block: usize,
        from: u32,
        mut visit: impl FnMut(Place) -> bool,
    ) -> Option<u32> {
        let (shape, used) = (Form::<K, V>::SHAPE, self.blocks.used(block));
        if from >= used {
            return None;
        }
        let info = &self.blocks.infos[block];
        let id = info.id;
        let first = self.blocks.first(block, shape);
        let start = if info.cold {
            if self.walked.as_ref().is_none_or(|(walked, _)| *walked != id) {
                self.walked = Some((id, self.blocks.load(block, shape)));
            }
            self.walked.as_ref().map(|(_, loaded)| loaded.start().as_ptr())
        } else {
            None
        };
        let start = start.unwrap_or_else(|| self.blocks.at(first, shape));
        let mut unit = from;
        while unit < used {
            let place = Place(start.wrapping_add(unit as usize * shape.unit));
            let is_live = !self.blocks.is_dead(block, unit);
            unit += place.units::<K, V>();
            if is_live && !visit(place) {
                return Some(unit);
            }
        }
        self.walked = None;
        None
    }
}
