//! What the tests of changed records share: a store with one table of small records, and what has to be in it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::table::LogTable;
use crate::{
    key::{hash_bits, key_group_range},
    log::pool::BlockPool,
    snapshot::disk::{
        Disk,
        memory::{Faults, MemoryDisk},
    },
    state::{KeyColumn, KeyView, KeyedTable, StateBackend, StateError, StateName, WHOLE},
    store::{
        Store, StoreOptions,
        files::{FileOptions, WriterKind},
    },
};

/// A record of 24 bytes.
pub(super) type Value = [u64; 2];
pub(super) type Contents = BTreeMap<u64, u64>;

/// Keys at the beginning: several blocks of them.
pub(super) const KEYS: u64 = 30_000;

pub(super) struct Numbers(pub Vec<u64>);

impl KeyColumn for Numbers {
    fn key(&self, i: usize) -> KeyView<'_> {
        key(self.0[i])
    }
}

pub(super) fn key(number: u64) -> KeyView<'static> {
    KeyView { hash: hash_bits(number), bytes: &[] }
}

/// A store with one table, and what has to be in it.
pub(super) struct Bed {
    pub store: Store,
    pub table: LogTable<u64, Value>,
    pub expected: Contents,
    pub random: u64,
    pub snapshots: u64,
}

pub(super) fn options(disk: &MemoryDisk, directory: &str, memory_bytes_max: usize) -> StoreOptions {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    // What it is asked to write it writes when somebody waits for it.
    let writer = WriterKind::Late { seed: 1 };
    let files = FileOptions { directory: directory.into(), store: 5, disk, notify: None, writer };
    StoreOptions {
        files: Some(files),
        pool: BlockPool::new(false),
        memory_bytes_max,
        near_bytes_max: 0,
        waste_bytes_max: 0,
        ..StoreOptions::new()
    }
}

pub(super) fn table_of(store: &mut Store) -> LogTable<u64, Value> {
    let state = store.open::<u64, Value>(StateName::new("counts", "count"), Vec::new()).unwrap();
    store.table(state, WHOLE)
}

pub(super) fn contents(table: &mut LogTable<u64, Value>) -> Contents {
    let mut all = Contents::new();
    assert_eq!(table.scan(0, |key, value| all.insert(key.hash, value[0].to_native()).is_none()), None);
    all
}

impl Bed {
    pub fn new(disk: &MemoryDisk, memory_bytes_max: usize) -> Self {
        let mut store = Store::new(options(disk, "/state", memory_bytes_max));
        let table = table_of(&mut store);
        let mut bed = Self { store, table, expected: Contents::new(), random: 1, snapshots: 0 };
        bed.update((0..KEYS).collect());
        bed
    }

    pub fn random(&mut self) -> u64 {
        self.random = hash_bits(self.random ^ 0x5eed);
        self.random
    }

    pub fn update(&mut self, numbers: Vec<u64>) {
        for number in &numbers {
            *self.expected.entry(hash_bits(*number)).or_default() += number + 1;
        }
        for numbers in numbers.chunks(2_000) {
            let numbers = Numbers(numbers.to_vec());
            let range = 0..numbers.0.len();
            self.table.update_batch(&numbers, range, |_| [0, 7], |i, value| value[0] += numbers.0[i] + 1);
        }
    }

    /// Different numbers below `end`, in no order.
    pub fn some(&mut self, count: u64, end: u64) -> Vec<u64> {
        let (first, step) = (self.random() % end, [7, 11, 13, 17_u64][self.random() as usize % 4]);
        (0..count).map(|n| (first + n * step) % end).collect()
    }

    /// Changes the table in every way, in batches as a rule.
    pub fn change(&mut self) {
        let numbers = self.some(KEYS / 5, KEYS);
        self.update(numbers);
        for number in self.some(50, KEYS) {
            assert_eq!(self.table.remove(key(number)), self.expected.remove(&hash_bits(number)).is_some());
        }
        for number in self.some(50, KEYS) {
            self.table.put(key(number), &[number, 7]);
            self.expected.insert(hash_bits(number), number);
        }
        for number in self.some(50, KEYS) {
            self.table.update(key(number), || [0, 7], |value| value[0] += 3);
            *self.expected.entry(hash_bits(number)).or_default() += 3;
        }
        let numbers = self.some(KEYS / 10, KEYS);
        self.update(numbers);
    }

    pub fn snapshot(&mut self) -> Result<PathBuf, StateError> {
        self.ask_for_snapshot()?;
        self.wait_for_snapshot()
    }

    pub fn ask_for_snapshot(&mut self) -> Result<(), StateError> {
        self.snapshots += 1;
        let mut sealing = self.store.begin_seal();
        self.table.seal(sealing.sealed());
        self.store.snapshot(self.snapshots, sealing)
    }

    pub fn wait_for_snapshot(&mut self) -> Result<PathBuf, StateError> {
        let done = self.store.wait_for_snapshot()?;
        if self.snapshots > 1 {
            self.store.release(self.snapshots - 1)?;
        }
        done.manifest()
    }

    /// Goes on in another store with what is in a snapshot.
    pub fn restart(self, disk: &MemoryDisk, directory: &str, manifest: PathBuf) -> Self {
        let options = options(disk, directory, usize::MAX);
        let mut store = Store::restore(options, Arc::new(disk.clone()), &[manifest]).unwrap();
        let table = table_of(&mut store);
        Self { store, table, ..self }
    }

    pub fn changed_in_place(&self) -> usize {
        (0..self.table.blocks.len()).filter(|block| self.table.blocks.is_changed_in_place(*block)).count()
    }
}

/// What is in a snapshot, as so many subtasks restore it.
pub(super) fn restored(disk: &MemoryDisk, manifest: &PathBuf, parallelism: u32) -> Contents {
    let restore = |subtask| {
        let key_groups = key_group_range(subtask, 128, parallelism);
        let options = StoreOptions { key_groups, ..options(disk, &format!("/other-{subtask}"), usize::MAX) };
        let mut store =
            Store::restore(options, Arc::new(disk.clone()), std::slice::from_ref(manifest)).unwrap();
        contents(&mut table_of(&mut store))
    };
    (0..parallelism).flat_map(restore).collect()
}

/// Does some work on a disk that dies at every third operation from the first third on, and checks what is left: `work` gives the
/// last snapshot that was done, and what was in it.
pub(super) fn crash_everywhere(work: impl Fn(&MemoryDisk) -> Option<(PathBuf, Contents)>) {
    let disk = MemoryDisk::default();
    work(&disk);
    let operations = disk.operations();
    assert!(operations > 60);
    for crash_at in (operations / 3..operations).step_by(3) {
        let disk = MemoryDisk::default();
        disk.set_faults(Faults { dead_from: Some(crash_at), ..Faults::default() });
        let last = work(&disk);
        disk.crash(crash_at);
        disk.set_faults(Faults::default());
        let (manifest, expected) = last.unwrap();
        assert_eq!(restored(&disk, &manifest, 1), expected, "crash at {crash_at}");
    }
}
