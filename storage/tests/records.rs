//! `#[derive(Record)]` and records without it: everything written comes back, in place and restored.
#![allow(clippy::unwrap_used)]

extern crate tidemill_storage as tidemill;

use std::{fmt::Debug, num::NonZeroU32};

use proptest::prelude::*;
use tidemill::{
    Record,
    record::{RecordError, access, from_archived, last_root, restore, to_bytes},
    writer::RecordWriter,
};

/// Writes, validates and restores a record.
#[track_caller]
fn assert_round_trip<T: Record + PartialEq + Debug>(value: T) {
    let writer = to_bytes(&value).unwrap();
    let root = last_root::<T>(writer.len()).unwrap();
    let archived = access::<T>(writer.bytes(), root).unwrap();
    assert_eq!(from_archived::<T>(archived).unwrap(), value);
    assert_eq!(restore::<T>(archived), value);
}

/// A bid, as in an auction.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Bid {
    /// Auction.
    pub auction: u64,
    /// Bidder.
    pub bidder: u64,
    /// Page.
    pub url: String,
    channel: Option<String>,
    tags: Vec<String>,
}

fn bid() -> Bid {
    Bid {
        auction: 1,
        bidder: 2,
        url: "https://example.com/a/long/address".into(),
        channel: Some("ad".into()),
        tags: vec!["x".into(), "a tag that is kept out of line".into()],
    }
}

#[derive(Record, Clone, Copy, Debug, PartialEq)]
struct Plain {
    a: u64,
    b: i64,
    c: f64,
    d: u64,
}

#[derive(Record, Clone, Copy, Debug, PartialEq)]
struct Padded {
    a: u64,
    b: u8,
}

#[derive(Record, Debug, PartialEq)]
#[record(name = "auction.item", version = 3)]
struct Item {
    id: ItemId,
    at: (i32, f32),
    bids: Vec<Bid>,
    first: Option<Box<Bid>>,
    matrix: [[u16; 2]; 3],
    nothing: (),
    unit: Unit,
    flag: bool,
    letter: char,
    wide: (u128, i128),
    small: (i8, u8, i16, NonZeroU32),
    state: State,
}

#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(derive(PartialEq, Clone, Copy))]
struct ItemId(u32);

#[derive(Record, Clone, Copy, Debug, PartialEq)]
struct Unit;

#[derive(Record, Clone, Debug, PartialEq)]
enum State {
    /// Not yet.
    Open,
    Sold(Bid, u64),
    Withdrawn {
        reason: String,
        at: i64,
    },
    Empty {},
}

#[derive(Record, Clone, Copy, Debug, PartialEq)]
enum Side {
    Buy,
    Sell,
}

#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[repr(u16)]
enum Status {
    Ok = 200,
    NotFound = 404,
}

#[derive(Record, Clone, Copy, Debug, PartialEq)]
struct SideAndMore {
    side: Side,
    flag: bool,
    count: u16,
    id: ItemId,
}

#[derive(Record, Clone, Debug, PartialEq)]
struct Tree {
    value: u32,
    children: Vec<Self>,
    left: Option<Box<Tree>>,
}

#[derive(Record, Clone, Debug, PartialEq)]
struct Raw {
    r#type: u32,
    r#fn: String,
    // Names that generated code uses too.
    resolver: u8,
    out: String,
    serializer: u8,
    field_0: u8,
}

#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[repr(align(64))]
struct Line([u64; 8]);

mod elsewhere {
    #[derive(tidemill_storage::Record, Clone, Debug, PartialEq)]
    #[record(crate = tidemill_storage)]
    pub(crate) struct ByPath(pub u64, pub String);
}

fn item() -> Item {
    Item {
        id: ItemId(7),
        at: (-1, 2.5),
        bids: vec![bid(), bid()],
        first: Some(Box::new(bid())),
        matrix: [[1, 2], [3, 4], [5, 6]],
        nothing: (),
        unit: Unit,
        flag: true,
        letter: 'é',
        wide: (u128::MAX, i128::MIN),
        small: (-1, 1, i16::MIN, NonZeroU32::MIN),
        state: State::Withdrawn { reason: "damaged in the store, sorry".into(), at: -5 },
    }
}

#[test]
fn a_batch_of_roots_in_front_is_accepted() {
    let items = [item(), item(), item()];
    let stride = size_of::<ArchivedItem>();
    let mut writer = RecordWriter::default();
    writer.reset(items.len() * stride);
    for (i, item) in items.iter().enumerate() {
        writer.put_root(i * stride, item).unwrap();
    }
    for (i, item) in items.iter().enumerate() {
        assert_eq!(&restore::<Item>(access::<Item>(writer.bytes(), i * stride).unwrap()), item);
    }
}

#[test]
fn endless_nesting_is_refused() {
    let mut deep = Tree { value: 0, children: vec![], left: None };
    for value in 0..300 {
        deep = Tree { value, children: vec![deep], left: None };
    }
    let writer = to_bytes(&deep).unwrap();
    let root = last_root::<Tree>(writer.len()).unwrap();
    assert!(matches!(access::<Tree>(writer.bytes(), root), Err(RecordError::Invalid { .. })));
}

#[test]
fn derived_records_come_back() {
    assert_round_trip(bid());
    assert_round_trip(Plain { a: 1, b: -2, c: 3.5, d: 4 });
    assert_round_trip(Padded { a: 1, b: 2 });
    assert_round_trip(item());
    assert_round_trip(ItemId(3));
    assert_round_trip(Unit);
    for state in [State::Open, State::Sold(bid(), 5), State::Empty {}] {
        assert_round_trip(state);
    }
    for side in [Side::Buy, Side::Sell] {
        assert_round_trip(side);
    }
    assert_round_trip(vec![Status::Ok, Status::NotFound]);
    assert_round_trip(SideAndMore { side: Side::Sell, flag: true, count: 3, id: ItemId(4) });
    let leaf = Tree { value: 1, children: vec![], left: None };
    assert_round_trip(Tree { value: 2, children: vec![leaf.clone()], left: Some(Box::new(leaf)) });
    let text = || "more than eight bytes".to_owned();
    assert_round_trip(Raw { r#type: 1, r#fn: text(), resolver: 2, out: text(), serializer: 3, field_0: 4 });
    assert_round_trip(vec![Line([9; 8]); 2]);
    assert_round_trip(elsewhere::ByPath(1, "text".into()));
}

#[test]
fn records_can_be_defined_in_functions() {
    #[derive(Record, Debug, PartialEq)]
    struct Local {
        inner: Vec<Inner>,
    }
    #[derive(Record, Debug, PartialEq)]
    struct Inner(i64);
    assert_round_trip(Local { inner: vec![Inner(1), Inner(2)] });
}

#[test]
fn compositions_are_records() {
    assert_round_trip(());
    assert_round_trip(Some("text".to_owned()));
    assert_round_trip((1u64, bid()));
    assert_round_trip(vec![(1u8, Some(2u32)), (3, None)]);
    assert_round_trip([Some(bid()), None]);
    assert_round_trip(Box::new(5u64));
    assert_round_trip((1u8, 2u16, 3u32, 4u64, 5i8, 6i16, 7i32, "8".to_owned()));
}

#[test]
fn archived_types_can_be_named_and_read_in_place() {
    fn price(bid: &ArchivedBid) -> (u64, &str, usize) {
        (bid.auction.to_native(), bid.url.as_str(), bid.tags.len())
    }
    let writer = to_bytes(&bid()).unwrap();
    let archived = access::<Bid>(writer.bytes(), last_root::<Bid>(writer.len()).unwrap()).unwrap();
    assert_eq!(price(archived), (1, "https://example.com/a/long/address", 2));
    assert!(format!("{archived:?}").starts_with("ArchivedBid { auction: 1, "));

    let writer = to_bytes(&State::Sold(bid(), 5)).unwrap();
    let archived = access::<State>(writer.bytes(), last_root::<State>(writer.len()).unwrap()).unwrap();
    let ArchivedState::Sold(bid, at) = archived else { panic!("{archived:?}") };
    assert_eq!((bid.bidder.to_native(), at.to_native()), (2, 5));
}

#[test]
fn schemas_have_names_and_versions() {
    assert_eq!((Bid::schema_name().as_ref(), Bid::SCHEMA_VERSION), ("Bid", 1));
    assert_eq!((Item::schema_name().as_ref(), Item::SCHEMA_VERSION), ("auction.item", 3));
    assert_eq!(Item::schema(), "auction.item.v3");
    assert_eq!(
        <(u64, Vec<Option<Item>>, [Bid; 2])>::schema(),
        "(u64, Vec<Option<auction.item.v3>>, [Bid; 2])"
    );
    assert_eq!(<()>::schema(), "()");
}

#[test]
#[allow(clippy::assertions_on_constants)]
fn structs_without_padding_are_plain() {
    assert!(Plain::PLAIN, "copied as a whole, although its representation is the compiler's");
    assert!(ItemId::PLAIN && Unit::PLAIN && <[Plain; 3]>::PLAIN && u64::PLAIN && Side::PLAIN);
    assert!(!Padded::PLAIN && !Bid::PLAIN && !State::PLAIN && !Status::PLAIN);
    assert!(!Line::PLAIN, "the archived form is aligned less");
    assert!(!String::PLAIN && !<Option<u8>>::PLAIN);
}

#[test]
fn bytes_of_plain_records_are_frozen() {
    let writer = to_bytes(&Plain { a: 1, b: -1, c: 1.0, d: 0x0102 }).unwrap();
    let mut expected = Vec::new();
    expected.extend(1u64.to_le_bytes());
    expected.extend((-1i64).to_le_bytes());
    expected.extend(1f64.to_le_bytes());
    expected.extend(0x0102u64.to_le_bytes());
    assert_eq!(writer.bytes(), expected);
}

#[test]
fn damaged_bytes_are_refused_with_the_type_s_name() {
    let writer = to_bytes(&item()).unwrap();
    let root = last_root::<Item>(writer.len()).unwrap();
    for (bytes, root) in [
        (&writer.bytes()[..root], root),
        (writer.bytes(), root + 1),
        (writer.bytes(), usize::MAX - 3),
        (&[][..], 0),
    ] {
        let error = access::<Item>(bytes, root).unwrap_err();
        assert!(matches!(error, RecordError::Invalid { .. }));
        assert!(error.to_string().contains("auction.item.v3"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Validation must hold whatever was changed: no panic, no reading outside, and valid records restore.
    #[test]
    fn changed_bytes_never_harm(front: bool, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut writer = to_bytes(&item()).unwrap();
        let mut root = last_root::<Item>(writer.len()).unwrap();
        if front {
            root = 0;
            writer.reset(size_of::<ArchivedItem>());
            writer.put_root(root, &item()).unwrap();
        }
        let mut bytes = writer.bytes().to_vec();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let mut aligned = RecordWriter::default();
        aligned.append_bytes(&bytes);
        if let Ok(archived) = access::<Item>(aligned.bytes(), root) {
            let _ = from_archived::<Item>(archived);
        }
    }

    #[test]
    fn any_strings_and_numbers_come_back(
        rows in prop::collection::vec((any::<u64>(), any::<Option<String>>(), any::<(i8, bool, char)>()), 0..9),
    ) {
        assert_round_trip(rows);
    }
}
