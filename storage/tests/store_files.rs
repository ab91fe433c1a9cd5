//! The store and its files: crashes at any write, full disks, other types, other parallelism, two owners.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use tidemill_storage::{
    key::{Key, hash_bits, key_group, key_group_range},
    log::{
        pool::{BlockPool, CHUNK_BYTES},
        table::LogTable,
    },
    record::Record,
    snapshot::{
        disk::{
            Disk,
            memory::{Faults, MemoryDisk},
        },
        format::manifest::Manifest,
    },
    state::{KeyView, KeyedTable, Migration, StateBackend, StateError, StateName, WHOLE},
    store::{
        Store, StoreOptions,
        files::{FileOptions, SnapshotEvent, WriterKind},
    },
};

type Value = [u64; 64];
type Contents = BTreeMap<u64, u64>;

fn options(disk: &MemoryDisk, directory: &str) -> StoreOptions {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let files =
        FileOptions { directory: directory.into(), store: 5, disk, notify: None, writer: WriterKind::Here };
    StoreOptions { files: Some(files), pool: BlockPool::new(false), ..StoreOptions::new() }
}

fn name() -> StateName {
    StateName::new("sums-1", "sum")
}

fn key(number: u64) -> KeyView<'static> {
    KeyView { hash: hash_bits(number), bytes: &[] }
}

fn table<V: Record>(store: &mut Store) -> Result<LogTable<u64, V>, StateError> {
    let state = store.open::<u64, V>(name(), Vec::new())?;
    Ok(store.table(state, WHOLE))
}

fn contents(table: &mut LogTable<u64, Value>) -> Contents {
    let mut all = Contents::new();
    assert_eq!(table.scan(0, |key, value| all.insert(key.hash, value[0].to_native()).is_none()), None);
    all
}

/// Runs what may fault and gives the error.
fn faulted<R>(run: impl FnOnce() -> R) -> Result<R, StateError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| match payload.downcast::<StateError>() {
        Ok(error) => *error,
        Err(other) => std::panic::resume_unwind(other),
    })
}

fn snapshot(store: &mut Store, table: &mut LogTable<u64, Value>, number: u64) -> Result<PathBuf, StateError> {
    let mut sealing = store.begin_seal();
    table.seal(sealing.sealed());
    store.snapshot(number, sealing)?;
    store.wait_for_snapshot()?.manifest()
}

fn restored(disk: &MemoryDisk, manifests: &[PathBuf]) -> Contents {
    let mut store = Store::restore(options(disk, "/other"), Arc::new(disk.clone()), manifests).unwrap();
    contents(&mut table(&mut store).unwrap())
}

/// Five rounds of changes with a snapshot after each; tells of each that is done.
fn work(
    disk: &MemoryDisk,
    memory_bytes_max: usize,
    mut done: impl FnMut(PathBuf, Contents),
) -> Result<(), StateError> {
    let mut store = Store::new(StoreOptions { memory_bytes_max, ..options(disk, "/state") });
    let mut table = table::<Value>(&mut store)?;
    for round in 1..=5_u64 {
        faulted(|| {
            for number in 0..600 {
                table.update(key(number * round % 1_500), || [0; 64], |value| value[0] += number);
            }
            for number in 0..50 {
                table.remove(key(number * 7 * round));
            }
        })?;
        let manifest = snapshot(&mut store, &mut table, round)?;
        done(manifest, contents(&mut table));
        if round > 2 {
            store.release(round - 2)?;
        }
    }
    Ok(())
}

#[test]
fn after_a_crash_at_any_write_the_last_snapshot_that_was_done_is_whole() {
    for memory_bytes_max in [usize::MAX, 3 * CHUNK_BYTES] {
        let disk = MemoryDisk::default();
        work(&disk, memory_bytes_max, |_, _| {}).unwrap();
        let operations = disk.operations();
        assert!(operations > 30);
        for crash_at in 0..operations {
            let disk = MemoryDisk::default();
            disk.set_faults(Faults { dead_from: Some(crash_at), ..Faults::default() });
            let mut last = None;
            let result =
                work(&disk, memory_bytes_max, |manifest, contents| last = Some((manifest, contents)));
            // What fails at last may be a removal, which nobody waits for.
            assert!(result.is_err() || last.is_some(), "{crash_at} of {operations}");
            disk.crash(crash_at);
            disk.set_faults(Faults::default());
            if let Some((manifest, contents)) = last {
                assert_eq!(restored(&disk, &[manifest]), contents, "{crash_at} of {operations}");
            }
        }
    }
}

#[test]
fn a_snapshot_that_fails_leaves_the_store_healthy() {
    let disk = MemoryDisk::default();
    let mut store = Store::new(options(&disk, "/state"));
    let mut table = table::<Value>(&mut store).unwrap();
    let mut number = 0;
    let mut failures = 0;
    for fail_after in 0..12 {
        for add in 0..700 {
            table.update(key(add * 3 % 1_000), || [0; 64], |value| value[0] += add);
        }
        table.remove(key(fail_after));
        number += 1;
        disk.set_faults(Faults { fail_at: Some(fail_after), ..Faults::default() });
        failures += u32::from(snapshot(&mut store, &mut table, number).is_err());
        disk.set_faults(Faults::default());
        number += 1;
        let manifest = snapshot(&mut store, &mut table, number).unwrap();
        assert_eq!(restored(&disk, &[manifest]), contents(&mut table));
    }
    assert!(failures > 3, "{failures} snapshots failed");
}

#[test]
fn a_full_disk_stops_the_job_and_harms_nothing_that_was_sealed() {
    let disk = MemoryDisk::default();
    let mut store =
        Store::new(StoreOptions { memory_bytes_max: 4 * CHUNK_BYTES, ..options(&disk, "/state") });
    let mut table = table::<Value>(&mut store).unwrap();
    for number in 0..1_000 {
        table.put(key(number), &[number; 64]);
    }
    let manifest = snapshot(&mut store, &mut table, 1).unwrap();
    let before = contents(&mut table);
    disk.set_faults(Faults { capacity_bytes: Some(3 << 20), ..Faults::default() });
    let error = faulted(|| {
        for number in 0..100_000 {
            table.put(key(number), &[1; 64]);
        }
    })
    .unwrap_err();
    assert!(
        matches!(&error, StateError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        "{error}"
    );
    assert!(error.to_string().contains("/state"), "{error}");
    drop((table, store));
    assert_eq!(restored(&disk, &[manifest]), before);
}

#[test]
fn any_parallelism_restores_what_any_other_wrote() {
    let all: Contents = (0..2_000_u64).map(|number| (hash_bits(number), number)).collect();
    for (before, after) in [(1, 1), (1, 3), (3, 1), (3, 2), (2, 5)] {
        let disk = MemoryDisk::default();
        let mut manifests = Vec::new();
        for subtask in 0..before {
            let key_groups = key_group_range(subtask, 128, before);
            let options =
                StoreOptions { key_groups: key_groups.clone(), ..options(&disk, &format!("/{subtask}")) };
            let mut store = Store::new(options);
            let mut table = table::<Value>(&mut store).unwrap();
            for number in (0..2_000).filter(|number| key_groups.contains(&key_group(hash_bits(*number), 128)))
            {
                table.put(key(number), &[number; 64]);
            }
            manifests.push(snapshot(&mut store, &mut table, 9).unwrap());
        }
        let mut found = Contents::new();
        for subtask in 0..after {
            let key_groups = key_group_range(subtask, 128, after);
            let options = StoreOptions { key_groups, ..options(&disk, "/new") };
            let mut store = Store::restore(options, Arc::new(disk.clone()), &manifests).unwrap();
            let own = contents(&mut table(&mut store).unwrap());
            let keys = own.keys().filter(|hash| found.contains_key(hash)).count();
            assert_eq!(keys, 0, "a key came to two subtasks");
            found.extend(own);
        }
        assert_eq!(found, all, "from {before} to {after}");
    }
}

#[test]
fn another_type_is_refused_and_a_migration_reads_it() {
    let disk = MemoryDisk::default();
    let mut store = Store::new(options(&disk, "/state"));
    let mut table = table::<Value>(&mut store).unwrap();
    for number in 0..100 {
        table.put(key(number), &[number; 64]);
    }
    let manifests = [snapshot(&mut store, &mut table, 1).unwrap()];
    let restore = |options| Store::restore(options, Arc::new(disk.clone()), &manifests);

    let mut other = restore(options(&disk, "/b")).unwrap();
    let message = other.open::<u64, String>(name(), Vec::new()).unwrap_err().to_string();
    for part in ["`sum`", "`sums-1`", "`[u64; 64]`", "`String`"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = other.open::<u32, Value>(name(), Vec::new()).unwrap_err().to_string();
    assert!(message.contains("`u64`") && message.contains("`u32`"), "{message}");
    assert_eq!(other.unopened(), [name()]);

    let migration = || Migration::<String>::new::<Value>(|old| format!("was {}", old[0]));
    let state = other.open::<u64, String>(name(), vec![migration()]).unwrap();
    let mut migrated = other.table::<u64, String>(state, WHOLE);
    assert_eq!(migrated.get(key(42)).as_deref(), Some("was 42"));
    assert_eq!(migrated.len(), 100);

    let fewer = StoreOptions { max_parallelism: 64, key_groups: 0..64, ..options(&disk, "/c") };
    let Err(error) = restore(fewer) else { panic!("restored with another number of key groups") };
    assert!(error.to_string().contains("set max_parallelism to 128"), "{error}");
}

#[test]
fn a_directory_has_one_owner() {
    let disk = MemoryDisk::default();
    let mut first = Store::new(options(&disk, "/state"));
    let mut own = table::<Value>(&mut first).unwrap();
    snapshot(&mut first, &mut own, 1).unwrap();
    let mut second = Store::new(options(&disk, "/state"));
    let mut other = table::<Value>(&mut second).unwrap();
    let error = snapshot(&mut second, &mut other, 1).unwrap_err();
    assert!(error.to_string().contains("in use") && error.to_string().contains("/state"), "{error}");
    drop((own, first));
    snapshot(&mut second, &mut other, 2).unwrap();
}

#[test]
fn a_writer_that_is_started_has_the_directory_before_the_first_snapshot() {
    let disk = MemoryDisk::default();
    let mut first = Store::new(options(&disk, "/store"));
    first.start_writer().unwrap();
    first.start_writer().unwrap();
    let error = Store::new(options(&disk, "/store")).start_writer().unwrap_err();
    assert!(error.to_string().contains("in use") && error.to_string().contains("/store"), "{error}");
    let mut counts = table::<Value>(&mut first).unwrap();
    counts.put(key(1), &[7; 64]);
    let manifest = snapshot(&mut first, &mut counts, 1).unwrap();
    assert_eq!(restored(&disk, &[manifest]), contents(&mut counts));
    let error = Store::new(StoreOptions::new()).start_writer().unwrap_err();
    assert!(matches!(error, StateError::NoDirectory));
}

#[test]
fn what_is_too_long_is_refused_with_the_limit() {
    let mut store = Store::new(StoreOptions { pool: BlockPool::new(false), ..StoreOptions::new() });
    let state = store.open::<String, String>(name(), Vec::new()).unwrap();
    let mut table = store.table::<String, String>(state, WHOLE);
    let long = "k".repeat(70_000);
    let view = KeyView { hash: long.key_hash(&mut Vec::new()), bytes: long.as_bytes() };
    let error = faulted(|| table.put(view, &String::new())).unwrap_err();
    assert!(error.to_string().contains("a key of 70000 bytes is over the limit of 65535"), "{error}");
    let view = KeyView { hash: 1, bytes: b"short" };
    let error = faulted(|| table.put(view, &"v".repeat(300 << 20))).unwrap_err();
    assert!(error.to_string().contains("a value of"), "{error}");
    table.put(view, &"v".repeat(1 << 20));
    assert_eq!(table.get(view).map(|value| value.len()), Some(1 << 20));
}

#[test]
fn dropped_slices_are_not_in_the_next_snapshot_and_their_memory_is_free() {
    let disk = MemoryDisk::default();
    let options = options(&disk, "/state");
    let pool = Arc::clone(&options.pool);
    let mut store = Store::new(options);
    let state = store.open::<u64, Value>(name(), Vec::new()).unwrap();
    let mut slices: Vec<_> = (0..4).map(|slice| store.table::<u64, Value>(state, slice)).collect();
    for (slice, table) in slices.iter_mut().enumerate() {
        for number in 0..2_000 {
            table.put(key(number), &[slice as u64; 64]);
        }
    }
    let mut snapshot = |slices: &mut Vec<LogTable<u64, Value>>, number| {
        let mut sealing = store.begin_seal();
        slices.iter_mut().for_each(|table| table.seal(sealing.sealed()));
        store.snapshot(number, sealing).unwrap();
        store.wait_for_snapshot().unwrap().manifest().unwrap()
    };
    let first = snapshot(&mut slices, 1);
    let used = pool.used_bytes();
    slices.drain(..2);
    assert!(pool.used_bytes() < used * 6 / 10, "{} of {used} bytes are in use", pool.used_bytes());
    let second = snapshot(&mut slices, 2);
    for (manifest, expected) in [(first, vec![0, 1, 2, 3]), (second, vec![2, 3])] {
        let mut restored =
            Store::restore(self::options(&disk, "/r"), Arc::new(disk.clone()), &[manifest]).unwrap();
        let state = restored.open::<u64, Value>(name(), Vec::new()).unwrap();
        assert_eq!(restored.restored(state), expected);
        for slice in expected {
            let found = restored.table::<u64, Value>(state, slice).get(key(77));
            assert_eq!(found, Some([slice as u64; 64]));
        }
    }
}

#[test]
fn a_segment_may_be_gone_before_its_owner_hears_that_it_was_durable() {
    let disk = MemoryDisk::default();
    let mut store =
        Store::new(StoreOptions { memory_bytes_max: 3 * CHUNK_BYTES, ..options(&disk, "/state") });
    let state = store.open::<u64, Value>(name(), Vec::new()).unwrap();
    let mut stays = store.table::<u64, Value>(state, 0);
    let mut goes = store.table::<u64, Value>(state, 1);
    goes.put(key(7), &[7; 64]);
    let mut snapshot = |tables: &mut [&mut LogTable<u64, Value>], number| {
        let mut sealing = store.begin_seal();
        tables.iter_mut().for_each(|table| table.seal(sealing.sealed()));
        store.snapshot(number, sealing).unwrap();
        store.release(number).unwrap();
    };
    snapshot(&mut [&mut stays, &mut goes], 1);
    drop(goes);
    snapshot(&mut [&mut stays], 2);
    let events = std::iter::from_fn(|| store.next_snapshot_event().unwrap());
    assert_eq!(events.filter(|event| matches!(event, SnapshotEvent::Done { .. })).count(), 2);
}

#[test]
fn keys_that_come_and_go_for_ever_leave_nothing_behind_on_the_disk() {
    let disk = MemoryDisk::default();
    let mut store = Store::new(options(&disk, "/state"));
    let mut table = table::<Value>(&mut store).unwrap();
    table.put(key(u64::MAX), &[1; 64]);
    let mut bytes_max = 0;
    for round in 1..=200_u64 {
        for number in 0..100 {
            table.put(key(round * 100 + number), &[round; 64]);
            table.remove(key((round - 1) * 100 + number));
        }
        snapshot(&mut store, &mut table, round).unwrap();
        if round > 1 {
            store.release(round - 1).unwrap();
        }
        if round == 20 {
            bytes_max = 2 * disk.used_bytes();
        }
    }
    assert!(disk.used_bytes() <= bytes_max, "{} of {bytes_max} bytes", disk.used_bytes());
    let newest = PathBuf::from("/state/part-00000000000000c8.tmm");
    assert_eq!(restored(&disk, &[newest]).len(), 101);
}

#[test]
fn compaction_forgets_what_has_expired() {
    let disk = MemoryDisk::default();
    let mut store = Store::new(options(&disk, "/state"));
    let mut table = table::<Value>(&mut store).unwrap();
    for number in 0..3_000 {
        table.put(key(number), &[number; 64]);
    }
    table.expire_with(Box::new(|_, value| value[0].to_native() % 3 == 0));
    let before = snapshot(&mut store, &mut table, 1).unwrap();
    assert_eq!(contents(&mut table).len(), 3_000);
    // Two of three records move on, so all blocks of the first snapshot are compacted.
    for number in (0..3_000).filter(|number| number % 3 != 0) {
        table.update(key(number), || [0; 64], |value| value[1] = 7);
    }
    while table.compact_step() {}
    assert_eq!(contents(&mut table).len(), 2_000 + 3_000 % 504 / 3);
    let after = snapshot(&mut store, &mut table, 2).unwrap();
    assert_eq!(restored(&disk, &[after]), contents(&mut table));
    assert_eq!(restored(&disk, &[before]).len(), 3_000);
}

#[test]
fn a_manifest_that_declares_more_keys_than_its_files_hold_takes_no_more_memory() {
    let disk = MemoryDisk::default();
    let mut store = Store::new(options(&disk, "/state"));
    let mut own = table::<Value>(&mut store).unwrap();
    own.put(key(1), &[9; 64]);
    let path = snapshot(&mut store, &mut own, 1).unwrap();
    let mut manifest = Manifest::decode(&disk.contents(&path).unwrap()).unwrap();
    manifest.tables[0].live_keys = u64::MAX;
    disk.put(&path, &manifest.encode());
    assert_eq!(restored(&disk, &[path]), Contents::from([(hash_bits(1), 9)]));
}
