//! Filling a table from what was stored: piece by piece in the order of the seals, so that the newest record of a key
//! wins.
//!
//! What comes from a file was found to be as it was written; what was written is checked here to be records of the
//! table's types, so that a file made by someone else, with checksums and all, is never read as what it is not.
//!
//! Records come in no order, so each misses the caches for its bucket and for the hints beside it. They are taken
//! [`AHEAD`] at a time, in three steps: fetch the pages' descriptions, fetch buckets and hints, put the addresses in. That a key is
//! new, as most are, is known from the index alone, and no other record is looked at.

use std::ops::Range;

use super::{
    index::Slot,
    place::{Form, Place},
    seal::Layout,
    table::LogTable,
};
use crate::{
    key::{Key, key_group},
    record::{Record, RecordError, access, last_root},
    snapshot::records::{RecordView, Wrong, records, removed_keys},
    state::{KeyView, KeyedTable},
};

/// Records whose places in the index are fetched together.
const AHEAD: usize = 64;

/// Which records are taken, and how their values are read.
pub struct Loading<'m, V> {
    /// Key groups that are taken; others are skipped.
    pub key_groups: Range<u32>,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// How the stored records lie.
    pub layout: Layout,
    /// Turns a stored value of an older type into one of this; else the stored bytes are this type's.
    #[allow(clippy::type_complexity)]
    pub migrate: Option<&'m dyn Fn(&[u8]) -> Result<V, RecordError>>,
}

impl<V> Loading<'_, V> {
    pub(super) fn takes(&self, hash: u64) -> bool {
        self.key_groups.contains(&key_group(hash, self.max_parallelism))
    }
}

/// Why a piece could not be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The bytes are no records: where, and why not.
    Records(Wrong),
    /// A value is none of its type.
    Value(RecordError),
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// Bytes of the index that the keys for which there is room will take, as far as they do not take them already.
    pub fn reserved_bytes(&self) -> usize {
        self.index.reserved_bytes()
    }

    /// Takes in records; those of keys that are there already replace them.
    ///
    /// # Errors
    /// When the bytes are no records of this type. The table is of no use then.
    pub fn load_records(&mut self, bytes: &[u8], loading: &Loading<'_, V>) -> Result<(), LoadError> {
        if let Some(migrate) = loading.migrate {
            return self.load_migrated(bytes, loading, migrate);
        }
        if !Form::<K, V>::STRIDED {
            return self.load_all(records(Form::<K, V>::LAYOUT, bytes), loading);
        }
        // Where all records have one size that the compiler knows, there is little to walk over.
        let (stride, value) = (Form::<K, V>::STRIDE, Form::<K, V>::VALUE);
        let (whole, rest) = bytes.split_at(bytes.len() / stride * stride);
        let strided = whole.chunks_exact(stride).map(|record| {
            let mut hash = [0; 8];
            hash.copy_from_slice(&record[..8]);
            let (hash, value) = (u64::from_le_bytes(hash), &record[value.clone()]);
            Ok(RecordView { hash, key: &[], value, length: stride, dead: false })
        });
        self.load_all(strided, loading)?;
        if rest.is_empty() {
            return Ok(());
        }
        let what = format!("{} bytes of a record of {stride}", rest.len());
        Err(LoadError::Records((whole.len(), what)))
    }

    /// Takes in records as they are, a batch at a time.
    #[inline(always)]
    fn load_all<'a>(
        &mut self,
        mut all: impl Iterator<Item = Result<RecordView<'a>, Wrong>>,
        loading: &Loading<'_, V>,
    ) -> Result<(), LoadError> {
        let mut batch: Vec<RecordView<'_>> = Vec::with_capacity(AHEAD);
        loop {
            batch.clear();
            while batch.len() < AHEAD {
                let Some(record) = all.next() else { break };
                let record = record.map_err(LoadError::Records)?;
                if !record.dead && loading.takes(record.hash) {
                    self.index.prefetch_page(record.hash);
                    batch.push(record);
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            for record in &batch {
                self.index.prefetch_place(record.hash);
            }
            for record in &batch {
                let root = last_root::<V>(record.value.len()).unwrap_or(usize::MAX);
                access::<V>(record.value, root).map_err(LoadError::Value)?;
                self.load(KeyView { hash: record.hash, bytes: record.key }, record.value);
            }
            self.after_load();
        }
    }

    /// Sets the archived value of a key, which was checked.
    #[inline(always)]
    fn load(&mut self, key: KeyView<'_>, value: &[u8]) {
        let units = Form::<K, V>::units(key, value.len());
        let (address, memory) = self.blocks.append(units, Form::<K, V>::SHAPE);
        Place(memory).write::<K, V>(key, units, value);
        if self.blocks.cold > 0 {
            return self.load_beside_cold(key, address, units);
        }
        let blocks = &self.blocks;
        let place = |address| Place(blocks.at(address, Form::<K, V>::SHAPE));
        let older = self.index.insert_unless(
            key.hash,
            address,
            |address| place(address).is::<K, V>(key),
            |address| place(address).hash(),
        );
        if let Some(slot) = older {
            self.replace_loaded(slot, address, units);
        }
    }

    /// As [`load`](Self::load), for a record at the tail, where the older one of its key may not be in memory.
    #[cold]
    fn load_beside_cold(&mut self, key: KeyView<'_>, address: u32, units: u32) {
        match self.find_loaded(key) {
            Some(slot) => self.replace_loaded(slot, address, units),
            None => self.add_address(key.hash, address),
        }
    }

    /// Makes the record that was just put at the tail the one of its key, in place of an older one.
    fn replace_loaded(&mut self, slot: Slot, address: u32, units: u32) {
        let shape = Form::<K, V>::SHAPE;
        let old = self.resident(slot.address());
        let is_open = self.blocks.is_open(slot.address(), shape);
        if is_open && Form::<K, V>::STRIDED {
            // An open record of one size cannot be marked as dead: it is written over instead.
            old.copy::<K, V>(self.place(address).0, units);
            self.blocks.pop(shape);
            return;
        }
        if is_open {
            old.mark_dead();
        }
        self.blocks.died(slot.address(), old.units::<K, V>(), shape);
        slot.set(address);
    }

    /// Takes in records of an older type.
    fn load_migrated(
        &mut self,
        bytes: &[u8],
        loading: &Loading<'_, V>,
        migrate: &dyn Fn(&[u8]) -> Result<V, RecordError>,
    ) -> Result<(), LoadError> {
        for record in records(loading.layout, bytes) {
            let record = record.map_err(LoadError::Records)?;
            if !record.dead && loading.takes(record.hash) {
                let value = migrate(record.value).map_err(LoadError::Value)?;
                self.put(KeyView { hash: record.hash, bytes: record.key }, &value);
            }
        }
        Ok(())
    }

    /// Takes keys out, given as [`RemovedKeys`](super::seal::RemovedKeys) holds them.
    ///
    /// # Errors
    /// When the bytes are no such keys.
    pub fn load_removed(&mut self, bytes: &[u8], loading: &Loading<'_, V>) -> Result<(), LoadError> {
        for removed in removed_keys(bytes) {
            let removed = removed.map_err(LoadError::Records)?;
            if loading.takes(removed.hash) {
                self.remove(KeyView { hash: removed.hash, bytes: removed.key });
            }
        }
        self.after_load();
        Ok(())
    }

    /// Keeps the budget while records come in.
    #[inline(always)]
    pub(super) fn after_load(&mut self) {
        self.forget_fetched();
        if self.blocks.take_grown() || self.over_budget {
            self.keep_budget();
        }
    }
}
