//! Both sides with 8-byte keys and 32-byte values: a table of the store, and a hash map; and how they are held against
//! each other.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use tidemill::{
    platform::Cores,
    storage::{
        key::{Key, bits_of_hash, hash_bits},
        log::{pool::BlockPool, seal::Sealed, table::LogTable},
        record::{Record, restore},
        state::{KeyColumn, KeyView, KeyedTable, StateBackend, StateId, StateName, WHOLE},
        store::{Sealing, Store, StoreOptions},
    },
};

use super::keys::{BATCH, key};
use crate::error::BenchError;

/// What the peer is called in reports.
pub(super) const MAP: &str = "hashbrown, ahash";

/// The 32-byte value.
pub(super) type Value = [u64; 4];

/// The map that a program without a store would use.
pub(super) type Map = hashbrown::HashMap<u64, Value, ahash::RandomState>;

/// Seeds of its own, so that the crate needs no source of randomness.
pub(super) fn hasher() -> ahash::RandomState {
    ahash::RandomState::with_seeds(1, 2, 3, 4)
}

/// A value that is updated with its key.
pub(super) trait Touched: Record {
    /// What it is before its first update.
    const NEW: Self;

    /// Updates it.
    fn touch(&mut self, key: u64);
}

/// Reads and writes all of it.
impl Touched for Value {
    const NEW: Self = [0; 4];

    #[inline(always)]
    fn touch(&mut self, key: u64) {
        self[0] += 1;
        self[1] = self[1].wrapping_add(key);
        self[2] ^= key;
        self[3] = key.max(self[3]);
    }
}

/// A count.
impl Touched for u64 {
    const NEW: Self = 0;

    #[inline(always)]
    fn touch(&mut self, _: u64) {
        *self += 1;
    }
}

/// The name of the state of a [`Bed`].
pub(super) fn name() -> StateName {
    StateName::new("bench", "state")
}

/// A store with one state.
pub(super) struct Bed {
    pub(super) store: Store,
    pub(super) state: StateId,
    pub(super) pool: Arc<BlockPool>,
}

impl Bed {
    pub(super) fn new<K: Key, V: Record>(options: StoreOptions) -> Result<Self, BenchError> {
        let pool = Arc::clone(&options.pool);
        let mut store = Store::new(options);
        let state = store.open::<K, V>(name(), Vec::new())?;
        Ok(Self { store, state, pool })
    }

    /// A seal, with the copies that it may be owed.
    pub(super) fn seal<K: Key, V: Record>(&mut self, table: &mut LogTable<K, V>) -> Sealed {
        let sealing = self.begin_seal(table);
        self.store.finish_seal(sealing)
    }

    /// What of a seal a checkpoint's barrier has to wait for.
    pub(super) fn begin_seal<K: Key, V: Record>(&mut self, table: &mut LogTable<K, V>) -> Sealing {
        let mut sealing = self.store.begin_seal();
        table.seal(sealing.sealed());
        sealing
    }
}

/// A table with a store of its own.
pub(super) struct Table<V: Touched = Value> {
    pub(super) bed: Bed,
    pub(super) table: LogTable<u64, V>,
    hashes: Vec<u64>,
}

struct Hashes<'a>(&'a [u64]);

impl KeyColumn for Hashes<'_> {
    #[inline(always)]
    fn key(&self, i: usize) -> KeyView<'_> {
        KeyView { hash: self.0[i], bytes: &[] }
    }
}

impl Table {
    /// With keys `0..keys`, each once touched, in memory.
    pub(super) fn with(keys: u64) -> Result<Self, BenchError> {
        Self::with_options(StoreOptions::new(), keys)
    }

    /// The same in a store of these options.
    pub(super) fn with_options(options: StoreOptions, keys: u64) -> Result<Self, BenchError> {
        Self::of(options, keys)
    }
}

impl<V: Touched> Table<V> {
    /// With keys `0..keys`, each once touched, in a store of these options.
    pub(super) fn of(options: StoreOptions, keys: u64) -> Result<Self, BenchError> {
        let mut bed = Bed::new::<u64, V>(options)?;
        let table = bed.store.table(bed.state, WHOLE);
        let mut table = Self { bed, table, hashes: Vec::with_capacity(BATCH) };
        each(0..keys, |batch| table.update(batch));
        Ok(table)
    }

    /// Touches the values of a batch of keys.
    #[inline(never)]
    pub(super) fn update(&mut self, keys: &[u64]) {
        update(&mut self.table, &mut self.hashes, keys);
    }

    pub(super) fn seal(&mut self) -> Sealed {
        self.bed.seal(&mut self.table)
    }

    pub(super) fn begin_seal(&mut self) -> Sealing {
        self.bed.begin_seal(&mut self.table)
    }
}

/// Touches the values of a batch of keys; `hashes` is room for theirs.
#[inline(always)]
pub(super) fn update<V: Touched>(table: &mut LogTable<u64, V>, hashes: &mut Vec<u64>, keys: &[u64]) {
    hashes.clear();
    hashes.extend(keys.iter().map(|key| hash_bits(*key)));
    let column = Hashes(hashes);
    table.update_batch(&column, 0..keys.len(), |_| V::NEW, |i, value| value.touch(keys[i]));
}

/// The same map with the same keys.
pub(super) fn map_with(keys: u64) -> Map {
    let mut map = Map::with_hasher(hasher());
    each(0..keys, |batch| update_map(&mut map, batch));
    map
}

/// Touches the values of a batch of keys.
#[inline(never)]
pub(super) fn update_map(map: &mut Map, keys: &[u64]) {
    for key in keys {
        map.entry(*key).or_insert(Value::NEW).touch(*key);
    }
}

/// The keys with these numbers, in batches.
pub(super) fn each(numbers: std::ops::Range<u64>, mut update: impl FnMut(&[u64])) {
    let mut batch = Vec::with_capacity(BATCH);
    for number in numbers {
        batch.push(key(number));
        if batch.len() == BATCH {
            update(&batch);
            batch.clear();
        }
    }
    if !batch.is_empty() {
        update(&batch);
    }
}

/// Time that `update` takes for all batches; making them is not counted.
pub(super) fn timed(
    batches: usize,
    mut make: impl FnMut(&mut [u64]),
    mut update: impl FnMut(&[u64]),
) -> Duration {
    let (mut batch, mut elapsed) = ([0; BATCH], Duration::ZERO);
    for _ in 0..batches {
        make(&mut batch);
        let start = Instant::now();
        update(&batch);
        elapsed += start.elapsed();
    }
    elapsed
}

/// Fails unless both hold the same.
pub(super) fn check(row: &str, table: &mut LogTable<u64, Value>, map: &Map) -> Result<(), BenchError> {
    let (mut seen, mut difference) = (0, None);
    table.scan(0, |key, value| {
        let (bits, ours) = (bits_of_hash(key.hash), restore::<Value>(value));
        let theirs = map.get(&bits);
        if theirs != Some(&ours) {
            difference = Some(format!("key {bits}: {ours:?}, the map has {theirs:?}"));
        }
        seen += 1;
        difference.is_none()
    });
    if difference.is_none() && (seen != map.len() || table.len() != seen) {
        difference = Some(format!("{seen} of {} keys, the map has {}", table.len(), map.len()));
    }
    match difference {
        None => Ok(()),
        Some(difference) => {
            Err(BenchError::WrongAnswer { side: "the log".to_owned(), query: row.to_owned(), difference })
        }
    }
}

/// Pins the calling thread to the machine's last core; the first has the interrupts.
pub(super) fn pin() {
    if let Some(id) = Cores::of_this_process().mask.last() {
        core_affinity::set_for_current(core_affinity::CoreId { id: *id });
    }
}

/// Bytes of memory that this process occupies.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn resident_bytes() -> Result<u64, BenchError> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>().map_err(std::io::Error::other)?;
    Ok(kib << 10)
}
