//! Cold records whose files are cleaned away.

use std::sync::Arc;

use super::*;
use crate::{
    key::hash_bits,
    log::pool::{BlockPool, CHUNK_BYTES},
    snapshot::disk::{Disk, memory::MemoryDisk},
    state::{KeyedTable, StateBackend, StateName, WHOLE},
    store::{
        Store, StoreOptions,
        files::{FileOptions, SnapshotEvent, WriterKind},
    },
};

/// Records with their keys are 256 bytes long.
type Value = [u64; 31];

fn key(number: u64) -> KeyView<'static> {
    KeyView { hash: hash_bits(number), bytes: &[] }
}

#[test]
fn cold_records_are_read_where_they_were_moved() {
    let disk = MemoryDisk::default();
    let files = FileOptions {
        directory: "/state".into(),
        store: 1,
        disk: Arc::new(disk.clone()),
        notify: None,
        writer: WriterKind::Here,
    };
    let mut store = Store::new(StoreOptions {
        files: Some(files),
        pool: BlockPool::new(false),
        memory_bytes_max: 6 * CHUNK_BYTES,
        waste_bytes_max: 0,
        ..StoreOptions::new()
    });
    let mut open = |name| {
        let state = store.open::<u64, Value>(StateName::new("orders", name), Vec::new()).unwrap();
        store.table::<u64, Value>(state, WHOLE)
    };
    let (mut grows, mut changes) = (open("grows"), open("changes"));
    // A quarter of a block of the one between two snapshots, and all of the other.
    let (more, all) = (256, 512);
    // In the last one nothing changes.
    for round in 0..=40 {
        let (more, all) = if round < 40 { (more, all) } else { (0, 0) };
        (0..more).for_each(|n| grows.put(key(round * more + n), &[round * more + n; 31]));
        (0..all).for_each(|n| changes.put(key(n), &[round; 31]));
        let mut sealing = store.begin_seal();
        grows.seal(sealing.sealed());
        changes.seal(sealing.sealed());
        store.snapshot(round + 1, sealing).unwrap();
        assert!(matches!(store.wait_for_snapshot(), Ok(SnapshotEvent::Done { .. })));
        store.release(round).unwrap();
    }
    assert!(grows.blocks.cold > 2, "{} blocks are cold", grows.blocks.cold);
    let names = disk.list("/state".as_ref()).unwrap();
    for part in grows.blocks.infos.iter().flat_map(|info| &info.durable) {
        assert!(names.contains(&part.file.path), "{} is gone", part.file.path.display());
    }
    for number in 0..40 * more {
        let value = grows.read(key(number), |value| value.map(|word| word.to_native()));
        assert_eq!(value, Some([number; 31]));
    }
}
