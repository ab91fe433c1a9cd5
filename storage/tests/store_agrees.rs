//! The store under random operations, compared with the in-memory reference after each.
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use tidemill_storage::{
    key::{Key, key_group_range},
    log::{
        pool::{BlockPool, CHUNK_BYTES},
        seal::Sealed,
    },
    record::Record,
    snapshot::disk::{Disk, memory::MemoryDisk},
    state::{
        KeyColumn, KeyView, KeyedTable, StateBackend, StateName, WHOLE,
        memory::{MemoryBackend, MemoryTable},
    },
    store::{
        NEAR_BYTES_MAX, Store, StoreOptions,
        files::{FileOptions, WriterKind},
    },
};

#[derive(Clone, Debug)]
enum Operation {
    Update(u16, u8),
    Batch(Vec<u16>, u8),
    Put(u16, u8),
    Remove(u16),
    Seal,
    Snapshot,
    Restore(u32),
    Compact,
    Scan,
    /// Goes on with a scan from where an earlier one has stopped, although the table has changed.
    ScanOn,
}

fn operations(keys: u16) -> impl Strategy<Value = Vec<Operation>> {
    let key = 0..keys;
    let operation = prop_oneof![
        4 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Operation::Update(key, value)),
        4 => (prop::collection::vec(key.clone(), 0..500), any::<u8>())
            .prop_map(|(keys, value)| Operation::Batch(keys, value)),
        2 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Operation::Put(key, value)),
        4 => key.prop_map(Operation::Remove),
        1 => Just(Operation::Seal),
        1 => Just(Operation::Snapshot),
        1 => (1_u32..5).prop_map(Operation::Restore),
        1 => Just(Operation::Compact),
        1 => Just(Operation::Scan),
        2 => Just(Operation::ScanOn),
    ];
    prop::collection::vec(operation, 0..150)
}

struct Keys(Vec<(u64, Vec<u8>)>);

impl KeyColumn for Keys {
    fn key(&self, i: usize) -> KeyView<'_> {
        KeyView { hash: self.0[i].0, bytes: &self.0[i].1 }
    }
}

fn keyed<K: Key>(key: &K) -> (u64, Vec<u8>) {
    let hash = key.key_hash(&mut Vec::new());
    let mut bytes = Vec::new();
    if !K::WIDTH.is_narrow() {
        key.encode(&mut bytes);
    }
    (hash, bytes)
}

fn contents<K: Key, V: Record + Ord>(table: &mut impl KeyedTable<K, V>) -> Vec<((u64, Vec<u8>), V)> {
    let (mut all, mut cursor) = (Vec::new(), Some(0));
    while let Some(from) = cursor {
        let mut left = 5;
        cursor = table.scan(from, |key, value| {
            all.push(((key.hash, key.bytes.to_vec()), tidemill_storage::record::restore::<V>(value)));
            left -= 1;
            left > 0
        });
    }
    all.sort();
    all
}

/// Fails with the first difference: whole tables are no reading.
fn same<T: PartialEq + std::fmt::Debug>(own: &[T], expected: &[T]) {
    let differs = own.iter().zip(expected).find(|(own, expected)| own != expected);
    assert!(
        differs.is_none() && own.len() == expected.len(),
        "{} of {}: {differs:?}",
        own.len(),
        expected.len()
    );
}

/// What a snapshot holds, restored by so many subtasks.
fn restored<K: Key, V: Record + Ord>(
    disk: &Arc<dyn Disk>,
    manifest: &Path,
    parallelism: u32,
) -> Vec<((u64, Vec<u8>), V)> {
    let mut all = Vec::new();
    for subtask in 0..parallelism {
        let key_groups = key_group_range(subtask, 128, parallelism);
        let options = StoreOptions { key_groups, pool: BlockPool::new(false), ..StoreOptions::new() };
        let mut store = Store::restore(options, Arc::clone(disk), &[manifest.to_owned()]).unwrap();
        let state = store.open::<K, V>(StateName::new("operator", "state"), Vec::new()).unwrap();
        assert_eq!(store.restored(state), [WHOLE]);
        all.extend(contents(&mut store.table::<K, V>(state, WHOLE)));
    }
    all.sort();
    all
}

/// Applies the operations to both and compares.
fn agree<K: Key, V: Record + Ord + Clone + std::fmt::Debug>(
    operations: &[Operation],
    key: impl Fn(u16) -> K,
    value: impl Fn(u8) -> V,
    change: impl Fn(&mut V, u8),
    bounded: bool,
) {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let files = FileOptions {
        directory: "/state".into(),
        store: 7,
        disk: Arc::clone(&disk),
        notify: None,
        writer: WriterKind::Here,
    };
    let options = StoreOptions {
        files: Some(files),
        pool: BlockPool::new(false),
        // Three blocks, so that nearly everything is cold.
        memory_bytes_max: if bounded { 3 * CHUNK_BYTES } else { usize::MAX },
        waste_bytes_max: 0,
        // Batches with and without fetching ahead.
        near_bytes_max: if operations.len().is_multiple_of(2) { NEAR_BYTES_MAX } else { 0 },
        // Whatever its size, so that some records change in place.
        journaled_bytes_max: usize::MAX,
        ..StoreOptions::new()
    };
    let mut store = Store::new(options);
    let mut kept: Option<(PathBuf, Vec<_>)> = None;
    let mut snapshots = 0;
    let mut stale = 0;
    let mut seals: Vec<Sealed> = Vec::new();
    let state = store.open::<K, V>(StateName::new("operator", "state"), Vec::new()).unwrap();
    let mut table = store.table::<K, V>(state, WHOLE);
    let mut reference: MemoryTable<V> =
        StateBackend::table::<K, V>(&mut MemoryBackend::default(), state, WHOLE);
    // As the trait has it, because a memory table serves every key type.
    fn model<K: Key, V: Record>(table: &mut MemoryTable<V>) -> &mut impl KeyedTable<K, V> {
        table
    }
    for operation in operations {
        match operation {
            Operation::Update(number, by) => {
                let (hash, bytes) = keyed(&key(*number));
                let view = KeyView { hash, bytes: &bytes };
                let update = |own: &mut V| {
                    change(own, *by);
                    own.clone()
                };
                let own = table.update(view, || value(*by), update);
                assert_eq!(own, model::<K, V>(&mut reference).update(view, || value(*by), update));
            }
            Operation::Batch(numbers, by) => {
                let keys = Keys(numbers.iter().map(|number| keyed(&key(*number))).collect());
                let range = 0..numbers.len();
                table.update_batch(&keys, range.clone(), |_| value(*by), |i, own| change(own, i as u8));
                model::<K, V>(&mut reference).update_batch(
                    &keys,
                    range,
                    |_| value(*by),
                    |i, own| change(own, i as u8),
                );
            }
            Operation::Put(number, new) => {
                let (hash, bytes) = keyed(&key(*number));
                let view = KeyView { hash, bytes: &bytes };
                table.put(view, &value(*new));
                model::<K, V>(&mut reference).put(view, &value(*new));
                assert_eq!(table.get(view), Some(value(*new)));
            }
            Operation::Remove(number) => {
                let (hash, bytes) = keyed(&key(*number));
                let view = KeyView { hash, bytes: &bytes };
                assert_eq!(table.remove(view), model::<K, V>(&mut reference).remove(view));
                assert!(!table.contains(view));
            }
            // Sealed and lost: only without a bound, where nobody waits for it to be durable.
            Operation::Seal if bounded || snapshots > 0 => {}
            Operation::Seal => {
                let mut sealing = store.begin_seal();
                table.seal(sealing.sealed());
                seals.push(store.finish_seal(sealing));
            }
            // What was sealed and not given to the writer is missing in its files.
            Operation::Snapshot if !seals.is_empty() => {}
            Operation::Snapshot => {
                snapshots += 1;
                let mut sealing = store.begin_seal();
                table.seal(sealing.sealed());
                store.snapshot(snapshots, sealing).unwrap();
                let manifest = store.wait_for_snapshot().unwrap().manifest().unwrap();
                if snapshots > 2 {
                    store.release(snapshots - 2).unwrap();
                }
                kept = Some((manifest, contents(model::<K, V>(&mut reference))));
            }
            Operation::Restore(parallelism) => {
                if let Some((manifest, expected)) = &kept {
                    let restored = restored::<K, V>(&disk, manifest, *parallelism);
                    same(&restored, expected);
                }
            }
            Operation::Compact => while table.compact_step() {},
            Operation::ScanOn => {
                let mut left = 50;
                let next = table.scan(stale, |key, value| {
                    left -= usize::from(key.bytes.len() + size_of_val(value) < usize::MAX);
                    left > 0
                });
                stale = next.unwrap_or(0);
            }
            Operation::Scan => {
                same(&contents(&mut table), &contents(model::<K, V>(&mut reference)));
            }
        }
        assert_eq!(table.len(), model::<K, V>(&mut reference).len());
    }
    same(&contents(&mut table), &contents(model::<K, V>(&mut reference)));
}

proptest! {
    #[test]
    fn narrow_keys_and_plain_values(operations in operations(3_000), bounded: bool) {
        let change = |own: &mut (u64, u64), by: u8| own.0 = own.0.rotate_left(9) ^ u64::from(by);
        agree(&operations, u64::from, |by| (u64::from(by), 7_u64), change, bounded);
    }

    #[test]
    fn records_that_fill_many_blocks(operations in operations(6_000), bounded: bool) {
        let change = |own: &mut [u64; 64], by: u8| own[usize::from(by) % 64] += 1;
        agree(&operations, u64::from, |by| [u64::from(by); 64], change, bounded);
    }

    #[test]
    fn narrow_keys_and_values_of_one_size(operations in operations(300), bounded: bool) {
        let change = |own: &mut Option<u16>, by: u8| {
            *own = if by.is_multiple_of(3) { None } else { Some(own.unwrap_or(1).wrapping_add(u16::from(by))) };
        };
        agree(&operations, u32::from, |by| Some(u16::from(by)), change, bounded);
    }

    #[test]
    fn wide_keys_and_plain_values(operations in operations(500), bounded: bool) {
        let key = |key: u16| format!("{key}").repeat(usize::from(key % 9));
        agree(&operations, key, i64::from, |own, by| *own -= i64::from(by), bounded);
    }

    #[test]
    fn values_that_grow_and_shrink(operations in operations(60), bounded: bool) {
        let change = |own: &mut String, by: u8| {
            let len = own.len();
            if by.is_multiple_of(4) { own.truncate(len / 2) } else { own.push_str(&"yz".repeat(usize::from(by))) }
        };
        agree(&operations, |key| key.to_string(), |by| "x".repeat(usize::from(by) * 40), change, bounded);
    }

    #[test]
    fn narrow_keys_and_vectors_with_wide_alignment(operations in operations(60), bounded: bool) {
        let value = |by: u8| vec![u128::from(by); usize::from(by % 20)];
        agree(&operations, u64::from, value, |own, by| own.push(u128::from(by)), bounded);
    }
}
