//! Sweeps: what bounds the [journal](super::journal).
//!
//! Files hold a block as it was when it was sealed, and the journal with what its records have become since. A sweep writes all
//! live records of each block that was changed in place to the journal, in small steps between updates. Then no file needs to
//! hold these blocks any more, nor the journal's blocks from before the sweep.
//!
//! One begins when the journal has [`RECORDS_MAX`] times as many records as the table, and takes [`PACE`] records for each that is
//! updated meanwhile, so that it ends with as many as the table has and a quarter more. So of three records that are written
//! one is a sweep's, and the journal has some 4.25 records for each of the table at most.

use super::{place::Form, seal::BlockId, table::LogTable};
use crate::{key::Key, record::Record};

/// Records of the journal for each of the table from which on a sweep begins.
const RECORDS_MAX: usize = 3;
/// Records taken for each that is updated.
const PACE: usize = 4;

/// How far a sweep is.
#[derive(Clone, Copy)]
pub struct Sweep {
    /// Blocks of the journal that nobody needs when it ends.
    covered: usize,
    /// The block that it is in, that block's id, and how far it is.
    block: usize,
    id: BlockId,
    unit: u32,
    /// How many blocks there were when it began.
    blocks: usize,
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// Sweeps as much as so many updates have made necessary.
    #[inline(always)]
    pub(super) fn keep_journal_short(&mut self, updates: usize) {
        // Of a few records the journal has a block, and one more.
        let blocks_max = 2 + RECORDS_MAX * self.index.len() / Form::<K, V>::SHAPE.per_block as usize;
        let is_long = self.journal.sweep.is_some() || self.journal.tape.blocks() > blocks_max;
        // Where blocks are copied whole, that does it.
        if is_long && self.blocks.reopening.is_over() {
            self.sweep(updates * PACE);
        }
    }

    #[inline(never)]
    fn sweep(&mut self, mut records: usize) {
        let mut sweep = match self.journal.sweep.take() {
            Some(sweep) => sweep,
            None => {
                self.journal.tape.close_block();
                let (covered, blocks) = (self.journal.tape.blocks(), self.blocks.len());
                Sweep { covered, block: 0, id: BlockId(0), unit: 0, blocks }
            }
        };
        while sweep.block < sweep.blocks {
            if records == 0 {
                self.journal.sweep = Some(sweep);
                return;
            }
            records -= self.sweep_step(&mut sweep, records);
        }
        self.journal.tape.forget(sweep.covered);
    }

    /// Takes some records that lie together, or ends with a block; how many they are.
    fn sweep_step(&mut self, sweep: &mut Sweep, records_max: usize) -> usize {
        let Sweep { block, id, unit, .. } = *sweep;
        let next_block = Sweep { block: block + 1, unit: 0, ..*sweep };
        let is_another = unit > 0 && self.blocks.infos[block].id != id;
        if is_another || !self.blocks.is_changed_in_place(block) {
            // What there is of it in files, and in the journal since the sweep began, is all there is to it.
            *sweep = next_block;
            return 0;
        }
        let (first, used) = (self.blocks.first(block, Form::<K, V>::SHAPE), self.blocks.used(block));
        let live = self.blocks.marks[block].live_run(unit, used, records_max);
        if !live.is_empty() {
            let records = self.place(first + live.start);
            self.journal.tape.append_all(records, live.len(), Form::<K, V>::STRIDE);
        }
        if live.end < used {
            *sweep = Sweep { id: self.blocks.infos[block].id, unit: live.end, ..*sweep };
        } else {
            self.blocks.forget_files(block);
            *sweep = next_block;
        }
        live.len()
    }
}

#[cfg(test)]
mod tests;
