//! Keys: bytes and hashes are frozen, come back, and sort as the values do.
//!
//! The golden values in this file must never change: stored state is found by them.

use std::fmt::Debug;

use proptest::prelude::*;
use tidemill_storage::key::{
    BytesKey, Key, KeyError, KeyRef, Width, bits_of_hash, hash_bits, hash_bytes, key_group,
};

fn encoded<K: Key>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

/// All that any key must keep.
#[track_caller]
fn assert_contract<K: Key + Debug>(key: &K) {
    let bytes = encoded(key);
    assert_eq!(K::decode(&bytes).as_ref(), Ok(key));
    assert_eq!(key.key_bytes(&mut vec![7; 3]), bytes);

    let mut part = vec![];
    key.encode_part(&mut part);
    part.extend_from_slice(b"rest");
    let mut input = &part[..];
    assert_eq!(K::decode_part(&mut input).as_ref(), Ok(key));
    assert_eq!(input, b"rest");

    let hash = key.key_hash(&mut vec![7; 3]);
    match K::WIDTH {
        Width::Narrow { bytes: len } => {
            assert_eq!(bytes.len(), len as usize);
            let bits = bytes.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
            assert_eq!(key.to_bits(), bits, "bits are the bytes as a number");
            assert_eq!(&K::from_bits(bits), key);
            assert_eq!(hash, hash_bits(bits));
            assert_eq!(K::of_hash(hash).as_ref(), Some(key));
        }
        Width::Wide => {
            assert_eq!(hash, hash_bytes(&bytes));
            assert_eq!(K::of_hash(hash), None);
        }
    }
    assert_eq!((key.key_hash_ref(&mut vec![]), key.to_key()), (hash, key.clone()));
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named(String);

impl BytesKey for Named {
    fn write_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn read_key(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok().map(Self)
    }
}

/// `(key, bytes, hash)`.
#[track_caller]
fn assert_frozen<K: Key + Debug>(key: K, bytes: &[u8], hash: u64) {
    assert_contract(&key);
    assert_eq!(encoded(&key), bytes, "bytes of {key:?}");
    let actual = key.key_hash(&mut Vec::new());
    assert_eq!(actual, hash, "hash of {key:?} is {actual:#018x}");
}

#[test]
fn encodings_and_hashes_are_frozen() {
    assert_frozen((), &[], 0xe220_a839_7b1d_cdaf);
    assert_frozen(true, &[1], 0x910a_2dec_8902_5cc1);
    assert_frozen('é', &[0, 0, 0, 0xe9], 0x2eb6_7620_ec65_912f);
    assert_frozen(0x0102u16, &[1, 2], 0x1e09_f8a0_3151_9da4);
    assert_frozen(42u64, &[0, 0, 0, 0, 0, 0, 0, 42], 0xbdd7_3226_2feb_6e95);
    assert_frozen(42usize, &[0, 0, 0, 0, 0, 0, 0, 42], 0xbdd7_3226_2feb_6e95);
    assert_frozen(-1i32, &[0x7f, 0xff, 0xff, 0xff], 0x61fa_36a6_261a_4be7);
    assert_frozen(1i64, &[0x80, 0, 0, 0, 0, 0, 0, 1], 0xdc29_f439_bcbd_da2a);
    assert_frozen(*b"JFK", b"JFK", 0xaf4c_d291_8264_6fb6);
    assert_frozen((*b"JFK", 2u8), b"JFK\x02", 0xf327_7d05_a1ef_5009);
    assert_frozen((1u16, (2u8, -1i8), 3u32), &[0, 1, 2, 0x7f, 0, 0, 0, 3], 0x8668_6f13_1d86_603c);
    assert_frozen([9u8; 9], &[9; 9], 0xb819_b6ff_42d6_9900);
    assert_frozen(1u128, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 0x4152_418f_75dd_93bb);
    assert_frozen(
        -1i128,
        &[0x7f, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        0xff4b_1c39_ee50_e969,
    );
    assert_frozen(String::new(), b"", 0x2d06_8005_38d3_94c2);
    assert_frozen("JFK".to_owned(), b"JFK", 0x285b_4886_4138_9eef);
    assert_frozen(b"JFK".to_vec(), b"JFK", 0x285b_4886_4138_9eef);
    assert_frozen(Named("JFK".into()), b"JFK", 0x285b_4886_4138_9eef);
    assert_frozen((1u64, 2u8), &[0, 0, 0, 0, 0, 0, 0, 1, 2], 0x0c4d_6376_bf4e_46ca);
    assert_frozen((1u8, "JFK".to_owned()), b"\x01JFK", 0xb116_54af_6b92_dfe3);
    assert_frozen(("JFK".to_owned(), 1u8), b"\0\0\0\x03JFK\x01", 0xb9e0_a1b9_47a6_e353);
    assert_frozen(
        (("a".to_owned(), "b".to_owned()), Named("c".into())),
        b"\0\0\0\x01a\0\0\0\x01bc",
        0x3349_ff04_47a9_f091,
    );
    assert_eq!(key_group("JFK".to_owned().key_hash(&mut Vec::new()), 128), 20);
    assert_eq!(key_group(42u64.key_hash(&mut Vec::new()), 128), 94);
}

#[test]
fn widths_are_known_at_compile_time() {
    const NARROW: usize = <(u32, (u16, bool), i8) as Key>::WIDTH.narrow_bytes();
    assert_eq!(NARROW, 8);
    assert!(<(u64, ())>::WIDTH.is_narrow() && <((), u64)>::WIDTH.is_narrow() && <[u8; 8]>::WIDTH.is_narrow());
    assert!(!<(u64, bool)>::WIDTH.is_narrow() && !<[u8; 9]>::WIDTH.is_narrow());
    assert!(!String::WIDTH.is_narrow() && !<((), String)>::WIDTH.is_narrow());
}

#[test]
fn borrowed_keys_equal_owned_ones() {
    let scratch = &mut Vec::new();
    assert_eq!("JFK".key_hash_ref(scratch), "JFK".to_owned().key_hash(&mut Vec::new()));
    assert_eq!(b"JFK"[..].key_hash_ref(scratch), b"JFK".to_vec().key_hash(&mut Vec::new()));
    assert_eq!("JFK".to_key(), "JFK");
    let mut bytes = Vec::new();
    "JFK".encode_part_ref(&mut bytes);
    5u16.encode_ref(&mut bytes);
    assert_eq!(bytes, encoded(&("JFK".to_owned(), 5u16)));
}

#[test]
fn foreign_bytes_are_refused() {
    assert!(matches!(u64::decode(&[0; 7]), Err(KeyError::TooShort { key: "u64" })));
    assert!(matches!(u64::decode(&[0; 9]), Err(KeyError::TooLong { key: "u64", extra: 1 })));
    assert!(matches!(bool::decode(&[2]), Err(KeyError::Invalid { key: "bool" })));
    assert!(matches!(char::decode(&[0, 0, 0xd8, 0]), Err(KeyError::Invalid { key: "char" })));
    assert!(matches!(String::decode(&[0xff]), Err(KeyError::Invalid { .. })));
    assert!(matches!(<(String, u8)>::decode(b"\0\0\0\x09JFK\x01"), Err(KeyError::TooShort { .. })));
    assert!(matches!(<(u8, Named)>::decode(&[1, 0xff]), Err(KeyError::Invalid { .. })));
}

#[test]
fn low_hash_bits_are_spread_within_a_key_group() {
    // An index inside a group uses them; 2^12 slots take 2^12 keys of one group about as a random choice would.
    let hashes: Vec<u64> = (0u64..)
        .map(|k| k.key_hash(&mut Vec::new()))
        .filter(|h| key_group(*h, 128) == 5)
        .take(4096)
        .collect();
    let used: std::collections::HashSet<u64> = hashes.iter().map(|h| h & 4095).collect();
    assert!((2450..2730).contains(&used.len()), "{} of 4096 slots used, 2589 expected", used.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keys_keep_the_contract(
        a: (i64, u32, bool, char, i8),
        b: (u128, i128, [u8; 5], [u8; 20]),
        c: (String, Vec<u8>, String),
    ) {
        assert_contract(&a.0);
        assert_contract(&(a.1, a.4, a.2));
        assert_contract(&(a.3, (a.4, a.2), ()));
        assert_contract(&a);
        assert_contract(&b);
        assert_contract(&c);
        assert_contract(&((c.0.clone(), a.1), (Named(c.2), c.1), (a.4, c.0)));
    }

    #[test]
    fn narrow_keys_sort_by_bits_and_by_bytes(a: (i32, i8, u8), b: (i32, i8, u8)) {
        prop_assert_eq!(a.cmp(&b), a.to_bits().cmp(&b.to_bits()));
        prop_assert_eq!(a.cmp(&b), encoded(&a).cmp(&encoded(&b)));
    }

    #[test]
    fn wide_keys_whose_last_part_varies_sort_by_bytes(a: (i128, i16, String), b: (i128, i16, String), n in 0..3u8) {
        // Random values nearly always differ in the first part: compare the later ones too.
        let b = (if n > 0 { a.0 } else { b.0 }, if n > 1 { a.1 } else { b.1 }, b.2);
        prop_assert_eq!(a.cmp(&b), encoded(&a).cmp(&encoded(&b)));
    }

    #[test]
    fn different_wide_keys_have_different_bytes(a: (String, String, u8), b: (String, String, u8)) {
        prop_assert_eq!(a == b, encoded(&a) == encoded(&b));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>, hash: u64) {
        let _ = <(String, Vec<u8>, u64)>::decode(&bytes);
        let _ = <((Named, bool), char, [u8; 3])>::decode(&bytes);
        let _ = <(char, bool)>::from_bits(bits_of_hash(hash));
    }
}
