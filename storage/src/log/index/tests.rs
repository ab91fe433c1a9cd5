//! The index by itself: keys that come, go, collide, and overflow.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::key::hash_bits;

fn index() -> Index {
    Index::new(HashRange::ALL, BlockPool::new(false))
}

#[test]
fn many_keys_are_found_and_removed() {
    let hashes: Vec<u64> = (0..200_000).map(hash_bits).collect();
    let mut index = index();
    for (address, hash) in hashes.iter().enumerate() {
        index.insert(*hash, address as u32, |address| hashes[address as usize]);
    }
    for (address, hash) in hashes.iter().enumerate() {
        assert!(index.find(*hash, |at| at == address as u32).is_some());
    }
    for (address, hash) in hashes.iter().enumerate().step_by(2) {
        assert_eq!(index.remove(*hash, |at| at == address as u32), Some(address as u32));
    }
    assert_eq!(index.len(), 100_000);
    let half = |address: usize| index.find(hashes[address], |at| at == address as u32).is_some();
    assert!((0..hashes.len()).all(|address| half(address) == (address % 2 == 1)));
}

#[test]
fn an_index_takes_seven_to_fourteen_bytes_per_key() {
    let hash = |address: u32| hash_bits(u64::from(address));
    let mut index = index();
    for address in 0..1_000_000 {
        index.insert(hash(address), address, hash);
    }
    assert!(index.bytes() < 14_000_000, "{}", index.bytes());
}

#[test]
fn a_subtask_with_few_key_groups_has_as_small_a_directory() {
    let groups = 13..14;
    let mut index = Index::new(HashRange::of_key_groups(groups.clone(), 128), BlockPool::new(false));
    let all: Vec<u64> = (0..2_000_000)
        .map(hash_bits)
        .filter(|hash| groups.contains(&crate::key::key_group(*hash, 128)))
        .collect();
    for (address, hash) in all.iter().enumerate() {
        index.insert(*hash, address as u32, |address| all[address as usize]);
    }
    assert!(all.len() > 10_000 && index.directory.len() <= 16, "{}", index.directory.len());
    assert!((0..all.len()).all(|at| index.find(all[at], |address| address == at as u32).is_some()));
}

#[test]
fn a_reserved_index_is_not_split() {
    let hash = |address: u32| hash_bits(u64::from(address));
    for keys in [11, 300, 2_000, 3_000, 100_000] {
        let mut index = self::index();
        index.reserve(keys);
        let (pages, bytes) = (index.directory.len(), index.reserved_bytes());
        for address in 0..keys as u32 {
            index.insert(hash(address), address, hash);
        }
        assert_eq!((index.pages.len(), index.reserved_bytes()), (pages, 0), "{keys} keys");
        assert!(index.bytes() > bytes, "{keys} keys");
        assert!((0..keys as u32).all(|own| index.find(hash(own), |address| address == own).is_some()));
    }
}

#[test]
fn a_reserved_index_is_split_where_keys_are_while_it_has_no_pages_elsewhere() {
    // The first keys all belong to the first of 64 pages.
    let hash = |address: u32| hash_bits(u64::from(address)) >> if address < 6_000 { 6 } else { 0 };
    let mut index = index();
    index.reserve(100_000);
    assert_eq!(index.depth(), 6);
    for address in 0..6_000 {
        index.insert(hash(address), address, hash);
    }
    assert!(index.depth() > 6 && index.pages.len() < 8, "{} pages", index.pages.len());
    assert!((6_000..7_000).all(|own| index.find(hash(own), |address| address == own).is_none()));
    assert_eq!(index.remove(hash(6_000), |_| true), None);
    for address in 6_000..40_000 {
        index.insert(hash(address), address, hash);
    }
    assert!((0..40_000).all(|own| index.find(hash(own), |address| address == own).is_some()));
    assert!((0..40_000).all(|own| index.search(hash(own), |address| address == own).is_some()));
    assert!((0..40_000).all(|own| index.remove(hash(own), |address| address == own) == Some(own)));
    assert_eq!(index.len(), 0);
}

#[test]
fn keys_of_one_hash_neither_hang_nor_explode_the_index() {
    let mut index = index();
    for address in 0..20_000 {
        index.insert(7, address, |_| 7);
    }
    assert!(index.bytes() < 1_000_000, "{}", index.bytes());
    assert!(index.find(7, |address| address == 19_999).is_some());
    assert_eq!(index.remove(7, |address| address == 77), Some(77));
}

#[test]
fn a_search_ends_where_every_bucket_has_overflown() {
    let hash = |address: u32| u64::from(address & 1);
    let mut index = index();
    let insert = |index: &mut Index, address| index.insert(hash(address), address, hash);
    // Twelve in the first bucket, one of its keys in the second; then the first is emptied.
    (0..13).for_each(|i| insert(&mut index, 2 * i));
    assert_eq!(index.pages[0].log2, 1, "two buckets");
    (0..12).for_each(|i| assert_eq!(index.remove(0, |own| own == 2 * i), Some(2 * i)));
    // Eleven more in the second, and one of its keys in the first.
    (0..12).for_each(|i| insert(&mut index, 2 * i + 1));
    assert!(index.pages[0].buckets().iter().all(|bucket| bucket.overflows == 1));
    for absent in [0, 1] {
        assert!(index.find(absent, |own| own == 99).is_none());
        assert_eq!(index.remove(absent, |own| own == 99), None);
    }
    assert!(index.find(0, |own| own == 24).is_some() && index.find(1, |own| own == 23).is_some());
}

proptest! {
    /// Hashes that collide in page, bucket and tag as much as they can.
    #[test]
    fn the_index_agrees_with_a_map(operations in prop::collection::vec((0_u64..64, any::<bool>()), 0..400)) {
        let hash = |key: u64| (key & 3) << 62 | (key >> 2 & 3) << 8 | key >> 4;
        let mut index = index();
        let mut model = HashMap::new();
        for (key, insert) in operations {
            let own = key as u32;
            if insert {
                if model.insert(key, own).is_none() {
                    index.insert(hash(key), own, |address| hash(u64::from(address)));
                }
            } else {
                prop_assert_eq!(index.remove(hash(key), |address| address == own), model.remove(&key));
            }
            prop_assert_eq!(index.len(), model.len());
            for key in 0..64 {
                let found = index.find(hash(key), |address| address == key as u32);
                prop_assert_eq!(found.is_some(), model.contains_key(&key));
            }
        }
    }
}
