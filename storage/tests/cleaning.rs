//! Files of a store in which one table changes fast and another keeps what it has: what stays must not keep what goes.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemill_storage::{
    key::hash_bits,
    log::{pool::BlockPool, table::LogTable},
    snapshot::disk::{
        Disk,
        memory::{Faults, MemoryDisk},
    },
    state::{KeyView, KeyedTable, StateBackend, StateError, StateName, WHOLE},
    store::{
        Store, StoreOptions,
        files::{FileOptions, WriterKind},
    },
};

type Value = [u64; 3];
type Contents = [BTreeMap<u64, u64>; 2];

/// Records of the fast table, of 32 bytes.
const FAST: u64 = 1_000;
/// Waste that is accepted.
const WASTE_BYTES: u64 = 64 << 10;

fn options(disk: &MemoryDisk, directory: &str, waste_bytes_max: u64) -> StoreOptions {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let writer = WriterKind::Late { seed: 3 };
    let files = FileOptions { directory: directory.into(), store: 5, disk, notify: None, writer };
    StoreOptions { files: Some(files), pool: BlockPool::new(false), waste_bytes_max, ..StoreOptions::new() }
}

fn tables(store: &mut Store) -> [LogTable<u64, Value>; 2] {
    ["fast", "slow"].map(|name| {
        let state = store.open::<u64, Value>(StateName::new("orders", name), Vec::new()).unwrap();
        store.table(state, WHOLE)
    })
}

fn contents(tables: &mut [LogTable<u64, Value>; 2]) -> Contents {
    tables.each_mut().map(|table| {
        let mut all = BTreeMap::new();
        table.scan(0, |key, value| all.insert(key.hash, value[0].to_native()).is_none());
        all
    })
}

/// A store and what has to be in it.
struct Bed {
    store: Store,
    tables: [LogTable<u64, Value>; 2],
    expected: Contents,
    snapshots: u64,
}

impl Bed {
    fn new(disk: &MemoryDisk, waste_bytes_max: u64) -> Self {
        let mut store = Store::new(options(disk, "/state", waste_bytes_max));
        let tables = tables(&mut store);
        Self { store, tables, expected: Contents::default(), snapshots: 0 }
    }

    /// Goes on with the files of a snapshot.
    fn restored(self, disk: &MemoryDisk, manifest: &Path, directory: &str) -> Self {
        drop((self.tables, self.store));
        let options = options(disk, directory, WASTE_BYTES);
        let mut store = Store::restore(options, Arc::new(disk.clone()), &[manifest.to_owned()]).unwrap();
        let mut tables = tables(&mut store);
        assert_eq!(contents(&mut tables), self.expected);
        Self { store, tables, expected: self.expected, snapshots: 0 }
    }

    fn put(&mut self, table: usize, number: u64, value: u64) {
        let hash = hash_bits(number);
        self.tables[table].put(KeyView { hash, bytes: &[] }, &[value; 3]);
        self.expected[table].insert(hash, value);
    }

    /// All of the fast table, and of the slow one two more keys, of which one goes again in the next round.
    fn change(&mut self, round: u64) {
        (0..FAST).for_each(|number| self.put(0, number, round));
        self.put(1, 2 * round, round);
        self.put(1, 2 * round + 1, round);
        if round > 0 {
            let hash = hash_bits(2 * round - 1);
            assert!(self.tables[1].remove(KeyView { hash, bytes: &[] }));
            self.expected[1].remove(&hash);
        }
    }

    fn snapshot(&mut self) -> Result<PathBuf, StateError> {
        self.snapshots += 1;
        let mut sealing = self.store.begin_seal();
        self.tables.iter_mut().for_each(|table| table.seal(sealing.sealed()));
        self.store.snapshot(self.snapshots, sealing)?;
        let done = self.store.wait_for_snapshot()?;
        if self.snapshots > 1 {
            self.store.release(self.snapshots - 1)?;
        }
        done.manifest()
    }
}

fn restored(disk: &MemoryDisk, manifest: &Path) -> Contents {
    let options = options(disk, "/other", WASTE_BYTES);
    let mut store = Store::restore(options, Arc::new(disk.clone()), &[manifest.to_owned()]).unwrap();
    contents(&mut tables(&mut store))
}

/// The most that files should have: the fast table has blocks of which half counts, at most; a snapshot is made before the one
/// before it goes.
fn bytes_max() -> u64 {
    2 * (2 * FAST * 32 + (256 << 10)) + WASTE_BYTES + 4 * FAST * 32
}

#[test]
fn what_stays_does_not_keep_the_files_of_what_goes() {
    let most_bytes = |waste_bytes_max| {
        let disk = MemoryDisk::default();
        let mut bed = Bed::new(&disk, waste_bytes_max);
        let mut most = 0;
        for round in 0..300 {
            bed.change(round);
            let manifest = bed.snapshot().unwrap();
            most = most.max(disk.used_bytes_in("/state".as_ref()));
            if round % 30 == 29 {
                assert_eq!(restored(&disk, &manifest), bed.expected, "round {round}");
            }
        }
        most
    };
    let (cleaned, never) = (most_bytes(WASTE_BYTES), most_bytes(u64::MAX));
    assert!(cleaned < bytes_max(), "files of {cleaned} bytes");
    assert!(never > 300 * FAST * 32, "without cleaning, {never} bytes: nothing was tested");
}

#[test]
fn a_restored_store_goes_on_with_files_that_were_cleaned() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, WASTE_BYTES);
    let mut round = 0;
    for attempt in 0..5 {
        for _ in 0..25 {
            bed.change(round);
            round += 1;
            bed.snapshot().unwrap();
        }
        let manifest = bed.snapshot().unwrap();
        bed = bed.restored(&disk, &manifest, &format!("/attempt-{attempt}"));
    }
}

#[test]
fn after_a_crash_while_files_are_cleaned_the_last_snapshot_is_whole() {
    // Until the disk is dead: the last snapshot, and what was in it.
    let work = |disk: &MemoryDisk| {
        let mut bed = Bed::new(disk, 0);
        let mut last = None;
        for round in 0..12 {
            bed.change(round);
            match bed.snapshot() {
                Ok(manifest) => last = Some((manifest, bed.expected.clone())),
                Err(_) => break,
            }
        }
        last
    };
    let disk = MemoryDisk::default();
    work(&disk);
    let operations = disk.operations();
    for crash_at in operations / 3..operations {
        let disk = MemoryDisk::default();
        disk.set_faults(Faults { dead_from: Some(crash_at), ..Faults::default() });
        let (manifest, expected) = work(&disk).unwrap();
        disk.crash(crash_at);
        disk.set_faults(Faults::default());
        assert_eq!(restored(&disk, &manifest), expected, "crash at {crash_at} of {operations}");
    }
}

#[test]
fn files_that_are_damaged_do_not_keep_others() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, WASTE_BYTES);
    let segment_bytes_max = 2 * FAST * 32;
    for round in 0..300 {
        bed.change(round);
        bed.snapshot().unwrap();
        // Each of the first ones, as soon as it is there: nobody can read what counts in it for ever.
        if round < 10 {
            for path in disk.list("/state".as_ref()).unwrap() {
                let mut contents = disk.contents(&path).unwrap_or_default();
                if path.extension().is_some_and(|extension| extension == "tms") {
                    contents[5_000..].iter_mut().for_each(|byte| *byte = 0x5a);
                    disk.put(&path, &contents);
                }
            }
        }
    }
    assert!(disk.used_bytes_in("/state".as_ref()) < bytes_max() + 10 * segment_bytes_max);
    assert_eq!(contents(&mut bed.tables), bed.expected);
}

#[test]
fn what_cannot_be_read_to_be_moved_stays_where_it_is() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, 0);
    let mut round = 0;
    let mut next = |bed: &mut Bed| {
        bed.change(round);
        round += 1;
        bed.snapshot()
    };
    for _ in 0..8 {
        next(&mut bed).unwrap();
    }
    let before = disk.operations();
    next(&mut bed).unwrap();
    let operations = disk.operations() - before;
    for fail_at in 1..=operations {
        disk.set_faults(Faults { fail_at: Some(fail_at), ..Faults::default() });
        // It may fail, and loses nothing by that.
        let _ = next(&mut bed);
        disk.set_faults(Faults::default());
        let manifest = next(&mut bed).unwrap();
        assert_eq!(restored(&disk, &manifest), bed.expected, "operation {fail_at} of {operations} failed");
    }
}
