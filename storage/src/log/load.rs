//! Filling a table from what was stored: piece by piece in the order of the seals, so that the newest record of a key
//! wins.
//!
//! What comes from a file was found to be as it was written; what was written is checked here to be records of the
//! table's types, so that a file made by someone else, with checksums and all, is never read as what it is not.

use super::{
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
    pub key_groups: std::ops::Range<u32>,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// How the stored records lie.
    pub layout: Layout,
    /// Turns a stored value of an older type into one of this; else the stored bytes are this type's.
    #[allow(clippy::type_complexity)]
    pub migrate: Option<&'m dyn Fn(&[u8]) -> Result<V, RecordError>>,
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
    /// Takes in records; those of keys that are there already replace them.
    ///
    /// # Errors
    /// When the bytes are no records of this type. The table is of no use then.
    pub fn load_records(&mut self, bytes: &[u8], loading: &Loading<'_, V>) -> Result<(), LoadError> {
        let mut batch: Vec<RecordView<'_>> = Vec::with_capacity(AHEAD);
        let mut all = records(loading.layout, bytes).peekable();
        while all.peek().is_some() {
            batch.clear();
            for record in all.by_ref().take(AHEAD) {
                let record = record.map_err(LoadError::Records)?;
                let group = key_group(record.hash, loading.max_parallelism);
                if !record.dead && loading.key_groups.contains(&group) {
                    self.index.prefetch_page(record.hash);
                    batch.push(record);
                }
            }
            for record in &batch {
                self.index.prefetch_hints(record.hash);
            }
            for record in &batch {
                self.load(*record, loading).map_err(LoadError::Value)?;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn load(&mut self, record: RecordView<'_>, loading: &Loading<'_, V>) -> Result<(), RecordError> {
        let key = KeyView { hash: record.hash, bytes: record.key };
        if let Some(migrate) = loading.migrate {
            self.put(key, &migrate(record.value)?);
            return Ok(());
        }
        let root = last_root::<V>(record.value.len()).unwrap_or(usize::MAX);
        access::<V>(record.value, root)?;
        self.put_archived(key, record.value);
        Ok(())
    }

    /// Sets the archived value of a key, which was checked.
    #[inline(always)]
    fn put_archived(&mut self, key: KeyView<'_>, value: &[u8]) {
        if let Some(slot) = self.find(key) {
            // All of a table that is being loaded is open; in place if it fits.
            let place = self.resident(slot.address());
            if Form::<K, V>::STRIDED {
                return place.write_value::<K, V>(value);
            }
            self.remove(key);
        }
        let units = Form::<K, V>::units(key, value.len());
        let (address, memory) = self.blocks.append(units, Form::<K, V>::SHAPE);
        Place(memory).write::<K, V>(key, units, value);
        self.add_address(key.hash, address);
    }

    /// Takes keys out, given as [`RemovedKeys`](super::seal::RemovedKeys) holds them.
    ///
    /// # Errors
    /// When the bytes are no such keys.
    pub fn load_removed(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        for removed in removed_keys(bytes) {
            let removed = removed.map_err(LoadError::Records)?;
            self.remove(KeyView { hash: removed.hash, bytes: removed.key });
        }
        Ok(())
    }
}
