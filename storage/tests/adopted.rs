//! Stores that take over the files they are restored from: what they write, what they keep, and that nothing is lost.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use tidemill_storage::{
    key::{Key, key_group, key_group_range},
    log::{
        pool::{BlockPool, CHUNK_BYTES},
        table::LogTable,
    },
    record::{Record, restore},
    snapshot::{
        disk::{
            Disk,
            memory::{Faults, MemoryDisk},
        },
        inspect::inspect,
        verify::verify,
    },
    state::{KeyView, KeyedTable, StateBackend, StateError, StateName, WHOLE},
    store::{
        Store, StoreOptions,
        files::{FileOptions, SnapshotEvent, WriterKind},
    },
};

const GROUPS: u32 = 128;

/// Keys and values of a table under test, made of numbers.
trait Kind {
    type Key: Key;
    type Value: Record;
    fn key(number: u64) -> Self::Key;
    fn value(number: u64) -> Self::Value;
    fn number(value: &Self::Value) -> u64;
}

/// Records of one size.
struct Narrow;

impl Kind for Narrow {
    type Key = u64;
    type Value = [u64; 8];
    fn key(number: u64) -> u64 {
        number
    }
    fn value(number: u64) -> [u64; 8] {
        [number; 8]
    }
    fn number(value: &[u64; 8]) -> u64 {
        value[3]
    }
}

/// Records of any size.
struct Wide;

impl Kind for Wide {
    type Key = String;
    type Value = String;
    fn key(number: u64) -> String {
        format!("key {number}")
    }
    fn value(number: u64) -> String {
        format!("{number:width$}", width = 5 + number as usize % 200)
    }
    fn number(value: &String) -> u64 {
        value.trim().parse().unwrap()
    }
}

struct Subtask<K: Kind> {
    groups: Range<u32>,
    store: Store,
    table: LogTable<K::Key, K::Value>,
}

/// A job of one stateful operator on a disk, as its engine would run it.
struct Job<K: Kind> {
    disk: MemoryDisk,
    memory_bytes_max: usize,
    attempt: u32,
    subtasks: Vec<Subtask<K>>,
    snapshot: u64,
    /// Of the last snapshot that was done; and what was in it.
    manifests: Vec<PathBuf>,
    kept: BTreeMap<u64, u64>,
    now: BTreeMap<u64, u64>,
}

fn keyed<K: Key>(key: &K) -> (u64, Vec<u8>) {
    let (hash, mut bytes) = (key.key_hash(&mut Vec::new()), Vec::new());
    if !K::WIDTH.is_narrow() {
        key.encode(&mut bytes);
    }
    (hash, bytes)
}

impl<K: Kind> Job<K> {
    fn new(disk: MemoryDisk, memory_bytes_max: usize, parallelism: u32) -> Self {
        let (manifests, kept, now) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut job = Self {
            disk,
            memory_bytes_max,
            attempt: 0,
            subtasks: Vec::new(),
            snapshot: 0,
            manifests,
            kept,
            now,
        };
        job.start(parallelism).unwrap();
        job
    }

    fn directory(&self, attempt: u32) -> PathBuf {
        Path::new("/state").join(attempt.to_string())
    }

    /// Goes on from the last snapshot.
    fn start(&mut self, parallelism: u32) -> Result<(), StateError> {
        self.subtasks.clear();
        self.attempt += 1;
        for subtask in 0..parallelism {
            let groups = key_group_range(subtask, GROUPS, parallelism);
            let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
            let files = FileOptions {
                directory: self.directory(self.attempt).join(subtask.to_string()),
                store: u128::from(self.attempt) << 32 | u128::from(subtask),
                disk: Arc::clone(&disk),
                notify: None,
                writer: WriterKind::Here,
            };
            let options = StoreOptions {
                files: Some(files),
                key_groups: groups.clone(),
                max_parallelism: GROUPS,
                memory_bytes_max: self.memory_bytes_max,
                // Extents are moved from file to file as soon as they can be.
                waste_bytes_max: 0,
                pool: BlockPool::new(false),
                ..StoreOptions::new()
            };
            let mut store = Store::restore(options, disk, &self.manifests)?;
            let state = store.open::<K::Key, K::Value>(StateName::new("operator", "state"), Vec::new())?;
            let table = store.table(state, WHOLE);
            self.subtasks.push(Subtask { groups, store, table });
        }
        self.now.clone_from(&self.kept);
        Ok(())
    }

    fn owner(&mut self, hash: u64) -> &mut Subtask<K> {
        let group = key_group(hash, GROUPS);
        self.subtasks.iter_mut().find(|subtask| subtask.groups.contains(&group)).unwrap()
    }

    fn put(&mut self, key: u64, value: u64) {
        let (hash, bytes) = keyed(&K::key(key));
        self.owner(hash).table.put(KeyView { hash, bytes: &bytes }, &K::value(value));
        self.now.insert(key, value);
    }

    fn remove(&mut self, key: u64) {
        let (hash, bytes) = keyed(&K::key(key));
        let there = self.owner(hash).table.remove(KeyView { hash, bytes: &bytes });
        assert_eq!(self.now.remove(&key).is_some(), there);
    }

    /// Takes a snapshot, and gives up the one before and what only earlier attempts needed; how many bytes were written.
    fn snapshot(&mut self) -> Result<u64, StateError> {
        self.snapshot += 1;
        let (mut manifests, mut bytes) = (Vec::new(), 0);
        for Subtask { store, table, .. } in &mut self.subtasks {
            let mut sealing = store.begin_seal();
            table.seal(sealing.sealed());
            store.snapshot(self.snapshot, sealing)?;
            match store.wait_for_snapshot()? {
                SnapshotEvent::Done { manifest, bytes_written, .. } => {
                    manifests.push(manifest);
                    bytes += bytes_written;
                }
                SnapshotEvent::Failed { error, .. } => return Err(error),
                SnapshotEvent::Exported { .. } => panic!("nothing was exported"),
            }
        }
        (self.manifests, self.kept) = (manifests, self.now.clone());
        for Subtask { store, .. } in &mut self.subtasks {
            store.release(self.snapshot - 1)?;
        }
        for attempt in self.disk.list(Path::new("/state")).unwrap() {
            if attempt != self.directory(self.attempt) {
                remove_tree(&self.disk, &attempt);
            }
        }
        Ok(bytes)
    }

    fn check(&mut self) {
        let mut found = BTreeMap::new();
        for Subtask { groups, table, .. } in &mut self.subtasks {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let mut left = 500;
                cursor = table.scan(from, |key, value| {
                    assert!(groups.contains(&key_group(key.hash, GROUPS)));
                    let value = K::number(&restore::<K::Value>(value));
                    assert!(found.insert((key.hash, key.bytes.to_vec()), value).is_none(), "a key twice");
                    left -= 1;
                    left > 0
                });
            }
        }
        let expected: BTreeMap<_, _> =
            self.now.iter().map(|(key, value)| (keyed(&K::key(*key)), *value)).collect();
        assert!(found == expected, "{} keys, and {} expected", found.len(), expected.len());
        let lengths: usize = self.subtasks.iter().map(|subtask| subtask.table.len()).sum();
        assert_eq!(lengths, expected.len());
    }

    /// The offline tools agree.
    fn check_files(&self) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let directory = self.directory(self.attempt);
        verify(&*disk, &directory).unwrap();
        let reports = inspect(&disk, &directory).unwrap();
        let report = reports.iter().find(|report| report.snapshot == self.snapshot).unwrap();
        assert_eq!(report.live().keys, self.kept.len() as u64);
    }

    fn files(&self) -> usize {
        let stores = self.disk.list(&self.directory(self.attempt)).unwrap();
        stores.iter().map(|store| self.disk.list(store).unwrap().len()).sum()
    }
}

fn remove_tree(disk: &MemoryDisk, path: &Path) {
    disk.list(path).unwrap().iter().for_each(|inside| remove_tree(disk, inside));
    // What cannot be removed is garbage, which the engine tries again.
    let _ = disk.remove(path);
}

#[test]
fn the_first_snapshot_after_a_restore_writes_what_changed() {
    for (before, after) in [(1, 1), (4, 4), (4, 2), (6, 2), (4, 1), (2, 4), (1, 2)] {
        for memory_bytes_max in [usize::MAX, 8 * CHUNK_BYTES] {
            let mut job = Job::<Narrow>::new(MemoryDisk::default(), memory_bytes_max, before);
            (0..60_000).for_each(|key| job.put(key, key));
            let all = job.snapshot().unwrap();
            // With a bound, most was written before.
            assert!(all > 60_000 * 72 || memory_bytes_max < usize::MAX);
            job.start(after).unwrap();
            job.check();
            (0..20).for_each(|key| job.put(key * 999, 7));
            let changed = job.snapshot().unwrap();
            assert!(changed < 100_000, "{before} to {after}: {changed} of {all} bytes");
            job.check();
            job.check_files();
            job.start(after).unwrap();
            job.check();
            let again = job.snapshot().unwrap();
            assert!(again < 50_000, "{before} to {after}: {again} bytes, and nothing had changed");
        }
    }
}

#[test]
fn files_that_two_parts_share_are_taken_over_through_both() {
    let mut job = Job::<Narrow>::new(MemoryDisk::default(), usize::MAX, 1);
    let mut all = 0;
    // Parts of one block are in several files.
    for snapshot in 0..6 {
        (0..5_000).for_each(|key| job.put(snapshot * 5_000 + key, key));
        all += job.snapshot().unwrap();
    }
    // The last time, both come in one part.
    for parallelism in [2, 1, 1] {
        job.start(parallelism).unwrap();
        job.check();
        let changed = job.snapshot().unwrap();
        assert!(changed < all / 20, "with {parallelism}: {changed} of {all} bytes");
    }
}

#[test]
fn many_restarts_neither_lose_anything_nor_let_the_directory_grow() {
    for memory_bytes_max in [usize::MAX, 4 * CHUNK_BYTES] {
        let mut job = Job::<Narrow>::new(MemoryDisk::default(), memory_bytes_max, 2);
        (0..20_000).for_each(|key| job.put(key, key));
        job.snapshot().unwrap();
        let (bytes, mut most) = (job.disk.used_bytes(), 0);
        for restart in 0..80 {
            job.start(2).unwrap();
            for change in 0..30 {
                job.put((restart * 77 + change) % 20_000, restart);
                job.remove_if_there((restart * 131 + change * 7) % 20_000);
            }
            most = most.max(job.snapshot().unwrap());
            job.check();
            assert!(job.disk.used_bytes() < 3 * bytes, "restart {restart}: {} bytes", job.disk.used_bytes());
            assert!(job.files() < 160, "restart {restart}: {} files", job.files());
        }
        assert!(most < bytes / 4, "{most} of {bytes} bytes at once");
        job.check_files();
        // All keys change: nothing of the first files is needed any more.
        (0..20_000).for_each(|key| job.put(key, 1));
        job.snapshot().unwrap();
        job.snapshot().unwrap();
        assert!(job.disk.used_bytes() < 2 * bytes, "{} of {bytes} bytes", job.disk.used_bytes());
        job.check();
    }
}

impl<K: Kind> Job<K> {
    fn remove_if_there(&mut self, key: u64) {
        if self.now.contains_key(&key) {
            self.remove(key);
        }
    }
}

fn much_is_the_same_at_any_parallelism<K: Kind>() {
    for memory_bytes_max in [usize::MAX, 16 * CHUNK_BYTES] {
        let mut job = Job::<K>::new(MemoryDisk::default(), memory_bytes_max, 2);
        (0..150_000).for_each(|key| job.put(key, key));
        job.snapshot().unwrap();
        // Newer records of some keys, and some that are gone.
        (0..150_000).step_by(7).for_each(|key| job.put(key, 1));
        (0..150_000).step_by(11).for_each(|key| job.remove(key));
        job.snapshot().unwrap();
        for parallelism in [2, 1, 3] {
            job.start(parallelism).unwrap();
            job.check();
            (0..150_000).step_by(1_000).for_each(|key| job.put(key, 2));
            job.snapshot().unwrap();
        }
        job.check_files();
    }
}

#[test]
fn much_of_one_size_is_the_same_at_any_parallelism() {
    much_is_the_same_at_any_parallelism::<Narrow>();
}

#[test]
fn much_of_any_size_is_the_same_at_any_parallelism() {
    much_is_the_same_at_any_parallelism::<Wide>();
}

#[test]
fn where_links_cannot_be_made_all_is_written_anew() {
    let mut job = Job::<Wide>::new(MemoryDisk::default(), usize::MAX, 1);
    (0..3_000).for_each(|key| job.put(key, key));
    let all = job.snapshot().unwrap();
    job.disk.set_faults(Faults { fail_at: Some(0), ..Faults::default() });
    job.start(1).unwrap();
    job.check();
    assert!(job.snapshot().unwrap() > all / 2);
    job.check_files();
    job.start(1).unwrap();
    job.check();
}

/// Two restarts with other parallelism, and changes and a snapshot after each.
fn two_restarts(disk: &MemoryDisk, done: &mut impl FnMut(&Job<Wide>)) -> Result<(), StateError> {
    let mut job = Job::<Wide>::new(disk.clone(), usize::MAX, 2);
    (0..300).for_each(|key| job.put(key, key));
    job.snapshot()?;
    done(&job);
    for (restart, parallelism) in [(1, 1), (2, 3)] {
        job.start(parallelism)?;
        (0..40).for_each(|key| job.put(key * 3 % 350, restart));
        (0..20).for_each(|key| job.remove_if_there(key * 7));
        job.snapshot()?;
        done(&job);
        job.put(17, restart);
        job.snapshot()?;
        done(&job);
    }
    Ok(())
}

#[test]
fn after_a_crash_at_any_operation_the_last_snapshot_is_whole() {
    let disk = MemoryDisk::default();
    two_restarts(&disk, &mut |_| {}).unwrap();
    let operations = disk.operations();
    assert!(operations > 40);
    for crash_at in 0..operations {
        for is_dead in [true, false] {
            let disk = MemoryDisk::default();
            let (dead_from, fail_at) = if is_dead { (Some(crash_at), None) } else { (None, Some(crash_at)) };
            disk.set_faults(Faults { dead_from, fail_at, ..Faults::default() });
            let mut last = None;
            let mut done = |job: &Job<Wide>| {
                last = Some((job.manifests.clone(), job.kept.clone(), job.attempt, job.snapshot));
            };
            // A link that fails is no error; neither is a removal.
            let _ = two_restarts(&disk, &mut done);
            disk.crash(crash_at);
            let Some((manifests, kept, attempt, snapshot)) = last else { continue };
            for parallelism in [1, 2] {
                let mut job = Job::<Wide>::new(MemoryDisk::default(), usize::MAX, 1);
                (job.disk, job.attempt, job.snapshot) = (disk.clone(), attempt + 10, snapshot);
                (job.manifests, job.kept) = (manifests.clone(), kept.clone());
                job.start(parallelism).unwrap();
                job.check();
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u16>, u8),
    Remove(Vec<u16>),
    Snapshot,
    Restart(u32),
    Compact,
}

fn steps(keys: u16) -> impl Strategy<Value = Vec<Step>> {
    let some = move |most| prop::collection::vec(0..keys, 0..most);
    let step = prop_oneof![
        6 => (some(800), any::<u8>()).prop_map(|(keys, value)| Step::Put(keys, value)),
        4 => some(300).prop_map(Step::Remove),
        3 => Just(Step::Snapshot),
        4 => (1_u32..5).prop_map(Step::Restart),
        1 => Just(Step::Compact),
    ];
    prop::collection::vec(step, 0..40)
}

fn agree<K: Kind>(steps: &[Step], bounded: bool) {
    let memory_bytes_max = if bounded { 2 * CHUNK_BYTES } else { usize::MAX };
    let mut job = Job::<K>::new(MemoryDisk::default(), memory_bytes_max, 2);
    for step in steps {
        match step {
            Step::Put(keys, value) => {
                for (at, key) in keys.iter().enumerate() {
                    job.put(u64::from(*key), u64::from(*value) * 1000 + at as u64);
                }
            }
            Step::Remove(keys) => keys.iter().for_each(|key| job.remove_if_there(u64::from(*key))),
            Step::Snapshot => {
                job.snapshot().unwrap();
                job.check_files();
            }
            Step::Restart(parallelism) => {
                job.start(*parallelism).unwrap();
                job.check();
            }
            Step::Compact => {
                for subtask in &mut job.subtasks {
                    while subtask.table.compact_step() {}
                }
            }
        }
    }
    job.check();
    job.snapshot().unwrap();
    job.start(1).unwrap();
    job.check();
}

proptest! {
    // Each runs a job through many restarts.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn records_of_one_size_agree(steps in steps(9_000), bounded: bool) {
        agree::<Narrow>(&steps, bounded);
    }

    #[test]
    fn records_of_any_size_agree(steps in steps(2_000), bounded: bool) {
        agree::<Wide>(&steps, bounded);
    }

    #[test]
    fn a_few_keys_agree(steps in steps(40), bounded: bool) {
        agree::<Wide>(&steps, bounded);
    }
}
