//! Changes in place, and what of them comes back from files: restarts, a late writer, a budget, crashes.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::*;
use crate::{
    key::{hash_bits, key_group_range},
    log::pool::{BlockPool, CHUNK_BYTES},
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
type Value = [u64; 2];
type Contents = BTreeMap<u64, u64>;

/// Keys at the beginning: several blocks of them.
const KEYS: u64 = 30_000;

struct Numbers(Vec<u64>);

impl KeyColumn for Numbers {
    fn key(&self, i: usize) -> KeyView<'_> {
        key(self.0[i])
    }
}

fn key(number: u64) -> KeyView<'static> {
    KeyView { hash: hash_bits(number), bytes: &[] }
}

/// A store with one table, and what has to be in it.
struct Bed {
    store: Store,
    table: LogTable<u64, Value>,
    expected: Contents,
    random: u64,
    snapshots: u64,
}

fn options(disk: &MemoryDisk, directory: &str, memory_bytes_max: usize) -> StoreOptions {
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

fn table_of(store: &mut Store) -> LogTable<u64, Value> {
    let state = store.open::<u64, Value>(StateName::new("counts", "count"), Vec::new()).unwrap();
    store.table(state, WHOLE)
}

fn contents(table: &mut LogTable<u64, Value>) -> Contents {
    let mut all = Contents::new();
    assert_eq!(table.scan(0, |key, value| all.insert(key.hash, value[0].to_native()).is_none()), None);
    all
}

impl Bed {
    fn new(disk: &MemoryDisk, memory_bytes_max: usize) -> Self {
        let mut store = Store::new(options(disk, "/state", memory_bytes_max));
        let table = table_of(&mut store);
        let mut bed = Self { store, table, expected: Contents::new(), random: 1, snapshots: 0 };
        bed.update((0..KEYS).collect());
        bed
    }

    fn random(&mut self) -> u64 {
        self.random = hash_bits(self.random ^ 0x5eed);
        self.random
    }

    fn update(&mut self, numbers: Vec<u64>) {
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
    fn some(&mut self, count: u64, end: u64) -> Vec<u64> {
        let (first, step) = (self.random() % end, [7, 11, 13, 17_u64][self.random() as usize % 4]);
        (0..count).map(|n| (first + n * step) % end).collect()
    }

    /// Changes the table in every way, in batches as a rule.
    fn change(&mut self) {
        let numbers = self.some(KEYS / 4, KEYS);
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
        let numbers = self.some(KEYS / 8, KEYS);
        self.update(numbers);
    }

    fn snapshot(&mut self) -> Result<PathBuf, StateError> {
        self.ask_for_snapshot()?;
        self.wait_for_snapshot()
    }

    fn ask_for_snapshot(&mut self) -> Result<(), StateError> {
        self.snapshots += 1;
        let mut sealing = self.store.begin_seal();
        self.table.seal(sealing.sealed());
        self.store.snapshot(self.snapshots, sealing)
    }

    fn wait_for_snapshot(&mut self) -> Result<PathBuf, StateError> {
        let done = self.store.wait_for_snapshot()?;
        if self.snapshots > 1 {
            self.store.release(self.snapshots - 1)?;
        }
        done.manifest()
    }

    fn changed_in_place(&self) -> usize {
        (0..self.table.blocks.len()).filter(|block| self.table.blocks.is_changed_in_place(*block)).count()
    }
}

/// What is in a snapshot, as so many subtasks restore it.
fn restored(disk: &MemoryDisk, manifest: &PathBuf, parallelism: u32) -> Contents {
    let restore = |subtask| {
        let key_groups = key_group_range(subtask, 128, parallelism);
        let options = StoreOptions { key_groups, ..options(disk, &format!("/other-{subtask}"), usize::MAX) };
        let mut store =
            Store::restore(options, Arc::new(disk.clone()), std::slice::from_ref(manifest)).unwrap();
        contents(&mut table_of(&mut store))
    };
    (0..parallelism).flat_map(restore).collect()
}

#[test]
fn what_is_changed_in_place_is_restored_and_the_files_stay_small() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    bed.snapshot().unwrap();
    let (mut most_blocks, mut most_bytes, mut sweeps, mut before) = (0, 0, 0, 0);
    for round in 0..60 {
        bed.change();
        let blocks = bed.table.journal.blocks();
        sweeps += usize::from(blocks < before);
        (before, most_blocks) = (blocks, most_blocks.max(blocks));
        let manifest = bed.snapshot().unwrap();
        most_bytes = most_bytes.max(disk.used_bytes_in("/state".as_ref()) as usize);
        if round % 6 == 0 || round > 54 {
            assert_eq!(restored(&disk, &manifest, 1 + round % 3), bed.expected);
        }
    }
    assert_eq!(contents(&mut bed.table), bed.expected);
    assert!(sweeps > 3, "{sweeps} sweeps ended");
    assert!(bed.changed_in_place() > 1);
    let records = KEYS as usize * 24;
    let blocks_max = records * 9 / 2 / CHUNK_BYTES + 3;
    assert!(most_blocks <= blocks_max, "the journal had {most_blocks} blocks");
    // At the end, and whenever it was: a file may go only when nearly nothing in it counts, and blocks are large here.
    let bytes = disk.used_bytes_in("/state".as_ref()) as usize;
    assert!(bytes < records * 6, "files of {bytes} bytes for {records} of records");
    assert!(most_bytes < records * 8, "files of {most_bytes} bytes for {records} of records");
}

#[test]
fn what_is_not_written_yet_is_not_changed_in_place() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    for round in 0..12 {
        bed.ask_for_snapshot().unwrap();
        let sealed = bed.expected.clone();
        bed.change();
        let manifest = bed.wait_for_snapshot().unwrap();
        assert_eq!(restored(&disk, &manifest, 1), sealed, "round {round}");
    }
    assert!(bed.changed_in_place() > 0);
}

#[test]
fn a_restored_table_goes_on_in_place() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    bed.snapshot().unwrap();
    for attempt in 0..4 {
        for _ in 0..6 {
            bed.change();
            bed.snapshot().unwrap();
        }
        assert!(bed.table.journal.blocks() > 0);
        let manifest = bed.snapshot().unwrap();
        let options = options(&disk, &format!("/attempt-{attempt}"), usize::MAX);
        let mut store = Store::restore(options, Arc::new(disk.clone()), &[manifest]).unwrap();
        let table = table_of(&mut store);
        bed = Bed { store, table, ..bed };
        assert_eq!(contents(&mut bed.table), bed.expected);
    }
}

#[test]
fn blocks_leave_memory_when_the_budget_asks_for_it() {
    let disk = MemoryDisk::default();
    // Five times what the table has at first.
    let mut bed = Bed::new(&disk, 16 * CHUNK_BYTES);
    bed.snapshot().unwrap();
    for _ in 0..8 {
        bed.change();
        bed.snapshot().unwrap();
    }
    assert!(bed.changed_in_place() > 1, "nothing was changed in place");
    for more in 1..=8 {
        bed.update((more * KEYS..(more + 1) * KEYS).collect());
        bed.change();
        let manifest = bed.snapshot().unwrap();
        assert_eq!(restored(&disk, &manifest, 2), bed.expected);
    }
    assert_eq!(bed.changed_in_place(), 0, "they have settled");
    assert!(bed.table.blocks.cold > 8, "{} blocks are cold", bed.table.blocks.cold);
    assert_eq!(contents(&mut bed.table), bed.expected);
}

#[test]
fn an_empty_table_needs_no_journal() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    bed.snapshot().unwrap();
    for _ in 0..6 {
        bed.change();
        bed.snapshot().unwrap();
    }
    assert!(bed.table.journal.blocks() > 2);
    for number in 1..KEYS {
        bed.table.remove(key(number));
    }
    for _ in 0..100 {
        bed.table.update(key(0), || [0, 7], |value| value[0] += 1);
    }
    bed.snapshot().unwrap();
    let manifest = bed.snapshot().unwrap();
    assert_eq!(bed.table.journal.blocks(), 0);
    assert_eq!(restored(&disk, &manifest, 1), contents(&mut bed.table));
}

#[test]
fn after_a_crash_the_last_snapshot_that_was_done_is_whole() {
    // Until the disk is dead: the last snapshot, what was in it, and whether it had something that was changed in place.
    let work = |disk: &MemoryDisk| {
        let mut bed = Bed::new(disk, usize::MAX);
        let mut last = None;
        for _ in 0..14 {
            match bed.snapshot() {
                Ok(manifest) => last = Some((manifest, bed.expected.clone())),
                Err(_) => break,
            }
            bed.change();
        }
        (last, bed.table.journal.blocks())
    };
    let disk = MemoryDisk::default();
    assert!(work(&disk).1 > 2);
    let operations = disk.operations();
    assert!(operations > 60);
    for crash_at in (operations / 3..operations).step_by(3) {
        let disk = MemoryDisk::default();
        disk.set_faults(Faults { dead_from: Some(crash_at), ..Faults::default() });
        let (last, _) = work(&disk);
        disk.crash(crash_at);
        disk.set_faults(Faults::default());
        let (manifest, expected) = last.unwrap();
        assert_eq!(restored(&disk, &manifest, 1), expected, "crash at {crash_at}");
    }
}
