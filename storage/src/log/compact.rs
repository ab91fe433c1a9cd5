//! Compaction: the live records of mostly-dead blocks move to the tail, in small steps, and the block is free.
//!
//! It begins when more of a table is dead than alive: so a table takes at most twice its live records, and where all
//! keys change between two seals, blocks die by themselves before they are compacted.
//!
//! A record is live if the index has its address under its hash, which takes one look-up and no read of the record it
//! may have been replaced by.

use super::{
    place::{Form, Place},
    table::LogTable,
};
use crate::{key::Key, record::Record};

/// Records looked at in one step: some 10 µs.
const STEP_RECORDS: usize = 64;

/// What the look-ups of a step wait for.
#[derive(Clone, Copy)]
enum Stage {
    First,
    Next,
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// Does as much of what has to be done now and then as the `records` just updated have made necessary.
    #[inline(always)]
    pub(super) fn after_batch(&mut self, records: usize) {
        self.forget_fetched();
        if self.blocks.take_grown() || self.over_budget {
            self.keep_budget();
        }
        if self.compacting.is_some() || self.blocks.is_wasteful() {
            // A block that is half dead gives one place for each two looked at: so compaction keeps up with
            // any number of updates.
            for _ in 0..(2 * records).div_ceil(STEP_RECORDS) {
                if !self.compact_step() {
                    break;
                }
            }
        }
    }

    /// Looks at the next few records of the block that is being compacted; whether there is more to do.
    pub fn compact_step(&mut self) -> bool {
        let Some((block, from)) = self.under_compaction() else { return false };
        let (shape, used) = (Form::<K, V>::SHAPE, self.blocks.used(block));
        let first = self.blocks.first(block, shape);
        // All look-ups of the step wait for memory together, not one after the other: first for the buckets in which
        // they begin, then for those behind them where the record is not in the first.
        let mut buckets = [std::ptr::null_mut(); STEP_RECORDS];
        for stage in [Stage::First, Stage::Next] {
            let mut ahead = from;
            for bucket in &mut buckets {
                if ahead >= used {
                    break;
                }
                let (address, place) = (first + ahead, self.place(first + ahead));
                match stage {
                    Stage::First => *bucket = self.index.prefetch(place.hash()),
                    Stage::Next => {
                        let mut found = self.index.candidates(*bucket, place.hash());
                        if !found.any(|slot| slot.address() == address) {
                            self.index.prefetch_next(*bucket, place.hash());
                        }
                    }
                }
                ahead += place.units::<K, V>();
            }
        }
        let mut unit = from;
        for _ in 0..STEP_RECORDS {
            // The last live record to move lets the block go.
            if unit >= used || self.blocks.used(block) != used {
                break;
            }
            let address = first + unit;
            let place = self.place(address);
            unit += place.units::<K, V>();
            if !place.is_dead::<K, V>()
                && let Some(slot) = self.index.find(place.hash(), |own| own == address)
            {
                let (key, value) = (place.key::<K, V>(), place.value::<K, V>());
                if self.expired.as_ref().is_some_and(|expired| expired(key, value)) {
                    self.take_out(key, address);
                } else {
                    self.renew(slot, place.0);
                }
            }
        }
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
        let (all_live, id) = (info.dead == 0, info.id);
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
            let address = first + unit;
            let place = Place(start.wrapping_add(unit as usize * shape.unit));
            unit += place.units::<K, V>();
            let live = all_live
                || (!place.is_dead::<K, V>()
                    && self.index.find(place.hash(), |own| own == address).is_some());
            if live && !visit(place) {
                return Some(unit);
            }
        }
        self.walked = None;
        None
    }
}
