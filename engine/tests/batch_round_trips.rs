//! Whatever is put into a batch is read back from it, however small its bounds and however often it was used before.
#![allow(clippy::unwrap_used)]

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};
use tidemill_engine::runtime::exchange::batch::{Batch, Columns, RecordKey};
use tidemill_storage::{
    key::{Key, hash_bytes},
    record::{Record, restore},
    state::KeyColumn,
};

type Nested = (String, Option<String>, Vec<(u8, Vec<String>)>, i64);

fn nested() -> impl Strategy<Value = Nested> {
    let inner = prop::collection::vec((any::<u8>(), prop::collection::vec(".{0,12}", 0..3)), 0..3);
    (".{0,40}", prop::option::of(".{0,20}"), inner, any::<i64>())
}

/// Puts all records through batches of these bounds, of which one is used over and over; returns what is read back.
fn through<T: Record + Clone>(
    records: &[T],
    capacity: usize,
    bytes_max: usize,
    columns: Columns,
) -> Vec<(T, i64, u64, Vec<u8>)> {
    let mut batch = Batch::<T>::new(capacity, bytes_max, columns);
    let mut read = Vec::new();
    let mut empty = |batch: &mut Batch<T>| {
        for (i, record) in batch.records().iter().enumerate() {
            let hash = if columns.hashes { batch.key(i).hash } else { 0 };
            read.push((restore::<T>(record), batch.timestamp(i), hash, batch.key_bytes(i).to_vec()));
        }
        batch.clear();
        assert!(batch.is_empty() && batch.records().is_empty() && !batch.is_full());
    };
    for (i, record) in records.iter().enumerate() {
        let key = format!("key {i}");
        let hash = hash_bytes(key.as_bytes());
        let key = match (columns.hashes, columns.keys) {
            (false, _) => RecordKey::None,
            (true, false) => RecordKey::Narrow(hash),
            (true, true) => RecordKey::Wide(hash, key.as_bytes()),
        };
        let is_full = batch.put(record, i as i64 - 5, key).unwrap();
        assert!(batch.len() <= capacity);
        assert_eq!(is_full, batch.is_full());
        if is_full {
            empty(&mut batch);
        }
    }
    empty(&mut batch);
    read
}

fn check<T: Record + Clone + PartialEq + std::fmt::Debug>(records: &[T], capacity: usize, bytes_max: usize) {
    for pattern in 0..6 {
        let columns = Columns { timestamps: pattern % 2 > 0, hashes: pattern > 1, keys: pattern > 3 };
        let read = through(records, capacity, bytes_max, columns);
        assert_eq!(read.len(), records.len());
        for (i, (record, timestamp, hash, bytes)) in read.into_iter().enumerate() {
            let key = format!("key {i}");
            assert_eq!(record, records[i]);
            assert_eq!(timestamp, if columns.timestamps { i as i64 - 5 } else { i64::MIN });
            assert_eq!(hash, if columns.hashes { key.key_hash(&mut Vec::new()) } else { 0 });
            assert_eq!(bytes, if columns.keys { key.into_bytes() } else { Vec::new() });
        }
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 64, failure_persistence: None, rng_seed: RngSeed::Fixed(2), ..Config::default()
    })]

    #[test]
    fn nested_records_come_back(
        records in prop::collection::vec(nested(), 0..20),
        capacity in 1..9_usize,
        bytes_max in 1..500_usize,
    ) {
        check(&records, capacity, bytes_max);
    }

    #[test]
    fn plain_records_come_back(
        records in prop::collection::vec(any::<(u8, i64, [u16; 3])>(), 0..40),
        capacity in 1..9_usize,
    ) {
        check(&records, capacity, 1);
    }
}

#[test]
fn records_without_size_are_counted() {
    check(&[(); 10], 3, 1);
}

#[test]
fn one_huge_record_does_not_keep_its_room_for_ever() {
    let mut batch = Batch::<String>::new(4, 64, Columns::default());
    batch.put(&"x".repeat(1 << 20), 0, RecordKey::None).unwrap();
    assert!(batch.is_full() && batch.payload_bytes() > 1 << 20);
    batch.clear();
    for _ in 0..4 {
        batch.put(&"y".to_owned(), 0, RecordKey::None).unwrap();
    }
    assert_eq!(batch.records().iter().map(|text| text.as_str()).collect::<String>(), "yyyy");
    assert!(batch.payload_bytes() < 1 << 10);
}
