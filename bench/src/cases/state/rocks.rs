//! RocksDB as the peer of `beyond-memory`, as a stream processor uses it: no write-ahead log, a bloom filter, a block cache
//! as large as the budget of ours.
//!
//! It gets what helps it: keys are loaded in order and compacted, an update of a batch is one `multi_get` and one write of
//! each key once, and memtables are beside the block cache. Reads and background writes pass the page cache by, or it
//! would have all of the machine's memory; so does ours.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, IteratorMode, Options, WaitForCompactOptions,
    WriteBatch, WriteOptions,
};

use super::{
    bed::{Touched, Value},
    counted,
    keys::{BATCH, key},
};
use crate::error::BenchError;

/// The column family that is always there; the batched look-up wants its name.
const FAMILY: &str = "default";

/// A database with keys and values as ours.
pub(super) struct Rocks {
    db: DB,
    writes: WriteOptions,
    updates: u64,
}

fn failed(error: rocksdb::Error) -> BenchError {
    BenchError::Peer { peer: "RocksDB", reason: error.to_string() }
}

fn decode(bytes: &[u8]) -> Option<Value> {
    let mut value = Value::default();
    for (part, bytes) in value.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *part = u64::from_le_bytes(*bytes);
    }
    (bytes.len() == size_of::<Value>()).then_some(value)
}

fn encode(value: &Value) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.as_chunks_mut::<8>().0.iter_mut().zip(value).for_each(|(bytes, part)| *bytes = part.to_le_bytes());
    bytes
}

impl Rocks {
    /// With keys `0..keys`, each once touched, all compacted.
    pub(super) fn with(directory: &Path, keys: u64, cache_bytes: usize) -> Result<Self, BenchError> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(cache_bytes));
        blocks.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.increase_parallelism(2);
        options.set_max_background_jobs(2);
        options.set_use_direct_reads(true);
        options.set_use_direct_io_for_flush_and_compaction(true);
        let family = ColumnFamilyDescriptor::new(FAMILY, options.clone());
        let db = DB::open_cf_descriptors(&options, directory.join("rocksdb"), [family]).map_err(failed)?;
        let mut writes = WriteOptions::default();
        writes.disable_wal(true);
        let rocks = Self { db, writes, updates: keys };
        // Nothing is there yet, so nothing is read.
        let mut numbers = Vec::with_capacity(BATCH);
        for number in 0..keys {
            numbers.push(number);
            if numbers.len() == BATCH || number + 1 == keys {
                let mut batch = WriteBatch::default();
                for number in numbers.drain(..) {
                    let mut value = Value::default();
                    value.touch(key(number));
                    batch.put(u64::to_be_bytes(number), encode(&value));
                }
                rocks.db.write_opt(batch, &rocks.writes).map_err(failed)?;
            }
        }
        rocks.db.flush().map_err(failed)?;
        rocks.db.wait_for_compact(&WaitForCompactOptions::default()).map_err(failed)?;
        Ok(rocks)
    }

    /// Touches the values of the keys with these numbers.
    pub(super) fn update(&mut self, numbers: &[u64]) -> Result<(), BenchError> {
        self.updates += numbers.len() as u64;
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable();
        let mut batch = WriteBatch::default();
        let unique: Vec<_> =
            sorted.chunk_by(|a, b| a == b).map(|same| (same[0].to_be_bytes(), same.len())).collect();
        let found = self.db.batched_multi_get_cf(
            self.db.cf_handle(FAMILY).ok_or_else(|| BenchError::Peer {
                peer: "RocksDB",
                reason: "there is no default column family".to_owned(),
            })?,
            unique.iter().map(|(key, _)| key),
            true,
        );
        for ((number, count), found) in unique.iter().zip(found) {
            let mut value = found.map_err(failed)?.and_then(|bytes| decode(&bytes)).unwrap_or_default();
            (0..*count).for_each(|_| value.touch(key(u64::from_be_bytes(*number))));
            batch.put(number, encode(&value));
        }
        self.db.write_opt(batch, &self.writes).map_err(failed)
    }

    /// Fails unless all values are right.
    pub(super) fn check(&self, keys: u64) -> Result<(), BenchError> {
        let (mut seen, mut counted) = (0, 0);
        for entry in self.db.iterator(IteratorMode::Start) {
            let (number, value) = entry.map_err(failed)?;
            let number = <[u8; 8]>::try_from(&*number).map(u64::from_be_bytes).unwrap_or_default();
            let value = decode(&value).unwrap_or_default();
            if !counted::is_right(key(number), &value) {
                break;
            }
            (seen, counted) = (seen + 1, counted + value[0]);
        }
        if (seen, counted) == (keys, self.updates) {
            return Ok(());
        }
        Err(BenchError::WrongAnswer {
            side: "RocksDB".to_owned(),
            query: "beyond-memory".to_owned(),
            difference: format!("{seen} keys updated {counted} times instead of {keys} and {}", self.updates),
        })
    }
}
