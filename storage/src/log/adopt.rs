//! Taking blocks over from files: their bytes lie in memory as they lie in the segments, so that these go on to be the blocks'
//! durable parts.
//!
//! A block comes in the parts that seals have made of it, between parts of others. All of it is sealed from the beginning.
//! What does not count in it, because a newer record of the key came, because it was marked as dead, or because it is of a
//! key group of somebody else, is dead as in any block. When all parts are there the block may be compacted, leave memory,
//! or go.

use std::collections::BTreeSet;

use super::{
    block::Block,
    blocks::{Blocks, Shape},
    bulk::{Bulk, Waiting, parts_of},
    load::{LoadError, Loading},
    place::{Form, Place},
    pool::CHUNK_BYTES,
    seal::BlockId,
    table::LogTable,
};
use crate::{
    key::Key,
    record::{Record, access, last_root},
    snapshot::{
        adopt::PlannedBlock,
        records::{RecordView, records, removed_keys},
    },
    state::KeyView,
    store::files::DurablePart,
};

/// Blocks less full than this are small ones.
const SMALL_PART: u32 = 4;
/// So many small blocks may stay. A store that is restored again and again gets one or two each time.
const SMALL_BLOCKS_MAX: usize = 16;
/// Records whose places in the index are fetched together.
const AHEAD: usize = 64;

/// Blocks that are being taken over into one table.
#[derive(Debug, Default)]
pub struct Adopting {
    /// Number and id of each that was begun, in the order of the plan.
    begun: Vec<Option<(usize, BlockId)>>,
    /// Records that are not in the index yet.
    bulk: Option<Bulk>,
    /// Removed keys that are to be written anew, unless they came back.
    removed: BTreeSet<(u64, Box<[u8]>)>,
}

impl Blocks {
    /// Room for a block of so many units that is sealed already: its number and id.
    fn adopt(&mut self, units: u32, shape: Shape) -> (usize, BlockId) {
        let bytes = units as usize * shape.unit;
        // Small ones take what they need, and not a whole chunk.
        let bytes = if bytes > CHUNK_BYTES / 2 && bytes <= CHUNK_BYTES { CHUNK_BYTES } else { bytes };
        let number = self.add_sealed(Block::new(bytes, &self.shared.pool), units, shape);
        (number, self.infos[number].id)
    }
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// Begins to take over so many blocks, if any. The table is new and has room in its index for what is to come.
    pub fn begin_adopting(&mut self, blocks: usize) -> Adopting {
        if blocks == 0 {
            return Adopting::default();
        }
        self.blocks.begin_sealed();
        Adopting { begun: vec![None; blocks], bulk: Bulk::new(&self.index), removed: BTreeSet::new() }
    }

    /// Takes in a part of a block, whose bytes lie at `from` in it; the block's id.
    ///
    /// # Errors
    /// When the bytes are no records of this type. The table is of no use then.
    pub fn load_block(
        &mut self,
        adopting: &mut Adopting,
        (planned, block): (&[PlannedBlock], usize),
        from: u32,
        bytes: &[u8],
        loading: &Loading<'_, V>,
        durable: impl FnOnce(BlockId) -> Option<DurablePart>,
    ) -> Result<BlockId, LoadError> {
        let shape = Form::<K, V>::SHAPE;
        let total = planned[block].bytes;
        let (number, id) = match adopting.begun[block] {
            Some(begun) => begun,
            None => *adopting.begun[block].insert(self.blocks.adopt(total / shape.unit as u32, shape)),
        };
        self.blocks.fill(number, from, bytes);
        self.blocks.infos[number].durable.extend(durable(id));
        let first = self.blocks.first(number, shape) + from / shape.unit as u32;
        self.index_block(adopting, first, bytes, loading)?;
        if from + bytes.len() as u32 == total {
            self.blocks.complete(number, id, shape);
        }
        // Blocks may leave memory now. The keys of what waits are looked at there, unless they are the hashes.
        if !Form::<K, V>::NARROW && self.blocks.shared.excess_bytes() > 0 {
            self.index_waiting(adopting);
            adopting.bulk = None;
        }
        self.after_load();
        Ok(id)
    }

    /// Puts the records of a part of a block into the index; `first` is the address of the first.
    fn index_block(
        &mut self,
        adopting: &mut Adopting,
        first: u32,
        bytes: &[u8],
        loading: &Loading<'_, V>,
    ) -> Result<(), LoadError> {
        if Form::<K, V>::STRIDED {
            // Where all records have one size that the compiler knows, there is little to walk over.
            let (stride, value) = (Form::<K, V>::STRIDE, Form::<K, V>::VALUE);
            let all = bytes.chunks_exact(stride).map(|record| {
                let mut hash = [0; 8];
                hash.copy_from_slice(&record[..8]);
                let (hash, value) = (u64::from_le_bytes(hash), &record[value.clone()]);
                RecordView { hash, key: &[], value, length: stride, dead: false }
            });
            return self.index_all(adopting, first, all.map(Ok), loading);
        }
        let all = records(Form::<K, V>::LAYOUT, bytes).map(|record| record.map_err(LoadError::Records));
        self.index_all(adopting, first, all, loading)
    }

    #[inline(always)]
    fn index_all<'a>(
        &mut self,
        adopting: &mut Adopting,
        first: u32,
        all: impl Iterator<Item = Result<RecordView<'a>, LoadError>>,
        loading: &Loading<'_, V>,
    ) -> Result<(), LoadError> {
        let shape = Form::<K, V>::SHAPE;
        let mut address = first;
        for record in all {
            let record = record?;
            let (own, units) = (address, (record.length / shape.unit) as u32);
            address += units;
            if record.dead || !loading.takes(record.hash) {
                self.blocks.died(own, units, shape);
                continue;
            }
            let root = last_root::<V>(record.value.len()).unwrap_or(usize::MAX);
            access::<V>(record.value, root).map_err(LoadError::Value)?;
            let Some(bulk) = &mut adopting.bulk else {
                self.index_one(KeyView { hash: record.hash, bytes: record.key }, own);
                continue;
            };
            if let Some(full) = bulk.push(record.hash, self.index.position_of(record.hash), own) {
                self.index_partition(bulk.take(full));
            }
        }
        Ok(())
    }

    /// Puts everything that waits into the index: before records are loaded otherwise, and before any is looked for.
    pub fn index_waiting(&mut self, adopting: &mut Adopting) {
        let Some(bulk) = &mut adopting.bulk else { return };
        for partition in 0..bulk.partitions() {
            self.index_partition(bulk.take(partition));
        }
    }

    /// Puts what has waited in a partition into the index, in the order in which it came.
    fn index_partition(&mut self, waiting: &[Waiting]) {
        for batch in waiting.chunks(AHEAD) {
            for waiting in batch {
                self.index.prefetch_place(parts_of(waiting).0);
            }
            for waiting in batch {
                let (hash, address) = parts_of(waiting);
                if self.blocks.cold > 0 {
                    self.index_one(KeyView { hash, bytes: &[] }, address);
                    continue;
                }
                let blocks = &self.blocks;
                let place = |address| Place(blocks.at(address, Form::<K, V>::SHAPE));
                let older = self.index.insert_unless(
                    hash,
                    address,
                    |older| place(older).is::<K, V>(place(address).key::<K, V>()),
                    |other| place(other).hash(),
                );
                if let Some(slot) = older {
                    self.replace(slot, address);
                }
            }
        }
    }

    /// Makes a sealed record the one of its key; the older one may not be in memory.
    fn index_one(&mut self, key: KeyView<'_>, address: u32) {
        match self.find_loaded(key) {
            Some(slot) => self.replace(slot, address),
            None => self.add_address(key.hash, address),
        }
    }

    /// Lets a sealed record take the place of an older one, in a file as it is.
    fn replace(&mut self, slot: super::index::Slot, address: u32) {
        let shape = Form::<K, V>::SHAPE;
        // Where all records have one size, the old one need not be read.
        let units = if Form::<K, V>::STRIDED { 1 } else { self.resident(slot.address()).units::<K, V>() };
        self.blocks.died(slot.address(), units, shape);
        slot.set(address);
    }

    /// Takes out keys that files go on to say are removed; with `together`, that the table has to say so.
    ///
    /// # Errors
    /// When the bytes are no such keys.
    pub fn load_adopted_removed(
        &mut self,
        adopting: &mut Adopting,
        bytes: &[u8],
        loading: &Loading<'_, V>,
        together: bool,
    ) -> Result<(), LoadError> {
        self.index_waiting(adopting);
        for removed in removed_keys(bytes) {
            let removed = removed.map_err(LoadError::Records)?;
            let key = KeyView { hash: removed.hash, bytes: removed.key };
            if !loading.takes(key.hash) {
                continue;
            }
            if let Some(slot) = self.find_loaded(key) {
                self.forget(key, slot.address());
            }
            if together {
                adopting.removed.insert((key.hash, key.bytes.into()));
            }
        }
        self.after_load();
        Ok(())
    }

    /// Ends the load: compacts what had better not be kept as it is, small blocks, if there are many, and those whose file holds
    /// little else.
    pub fn finish_adopting(&mut self, mut adopting: Adopting, planned: &[PlannedBlock]) {
        self.index_waiting(&mut adopting);
        // A key that came back has its newest record behind all older ones, and needs nothing.
        for (hash, bytes) in &adopting.removed {
            let key = KeyView { hash: *hash, bytes };
            if self.find_loaded(key).is_none() {
                self.note_removed(key);
            }
        }
        let per_block = Form::<K, V>::SHAPE.per_block;
        let there =
            adopting.begun.iter().zip(planned).filter_map(|(begun, planned)| Some(((*begun)?, planned)));
        // One that died meanwhile is another, or none.
        let there: Vec<_> = there.filter(|((number, id), _)| self.blocks.infos[*number].id == *id).collect();
        let is_small = |number: usize| self.blocks.used(number) < per_block / SMALL_PART;
        let small = there.iter().filter(|((number, _), _)| is_small(*number)).count();
        let moved: Vec<_> = there
            .into_iter()
            .filter(|((number, _), planned)| {
                planned.is_sparse || (small > SMALL_BLOCKS_MAX && is_small(*number))
            })
            .map(|(begun, _)| begun)
            .collect();
        for (number, id) in moved {
            self.compacting = Some((id, number, 0));
            while self.compacting.is_some_and(|(compacting, ..)| compacting == id) {
                self.compact_step();
            }
            self.after_load();
        }
    }
}
