//! `#[derive(WriteAs)]`: borrowed structs are written byte for byte as the records that they stand for.

extern crate tidemill_storage as tidemill;

use tidemill::{
    Record, WriteAs,
    record::{access, last_root, restore, to_bytes},
    writer::RecordWriter,
};

#[derive(Record, Clone, Debug, PartialEq)]
struct Route {
    from: String,
    stops: Vec<u64>,
}

#[derive(Record, Clone, Debug, PartialEq)]
struct Trip {
    id: u64,
    route: Route,
    note: Option<String>,
    marks: Option<Vec<u16>>,
    class: Option<u8>,
    pair: Pair,
}

#[derive(Record, Clone, Debug, PartialEq)]
struct Pair(String, u32);

#[derive(WriteAs, Clone, Copy)]
#[write_as(Route)]
struct RouteRef<'a> {
    from: &'a str,
    stops: &'a [u64],
}

#[derive(WriteAs, Clone, Copy)]
#[write_as(Trip, crate = tidemill_storage)]
struct TripRef<'a> {
    id: u64,
    #[write_as(Route)]
    route: RouteRef<'a>,
    note: Option<&'a str>,
    marks: Option<&'a [u16]>,
    class: Option<u8>,
    #[write_as(Pair)]
    pair: PairRef<'a>,
}

#[derive(WriteAs, Clone, Copy)]
#[write_as(Pair)]
struct PairRef<'a>(&'a str, u32);

#[test]
fn borrowed_structs_are_written_as_their_records() {
    for (from, note) in
        [("JFK", None), ("a name that lies out of line", Some("so does this note, of course"))]
    {
        let stops = [1, 2, 3];
        let borrowed = TripRef {
            id: 1,
            route: RouteRef { from, stops: &stops },
            note,
            marks: note.map(|_| &[7, 8][..]),
            class: Some(2),
            pair: PairRef(from, 5),
        };
        let owned = Trip {
            id: 1,
            route: Route { from: from.into(), stops: stops.to_vec() },
            note: note.map(Into::into),
            marks: note.map(|_| vec![7, 8]),
            class: Some(2),
            pair: Pair(from.into(), 5),
        };
        let (mut one, mut two) = (RecordWriter::default(), RecordWriter::default());
        one.reset(size_of::<ArchivedTrip>());
        one.put_root_as::<Trip>(0, &borrowed).unwrap();
        two.reset(size_of::<ArchivedTrip>());
        two.put_root(0, &owned).unwrap();
        // Strings lie behind the root here, before it in a value alone: both pass.
        let alone = to_bytes(&owned).unwrap();
        let last = last_root::<Trip>(alone.len()).unwrap();
        assert_eq!(restore::<Trip>(access::<Trip>(alone.bytes(), last).unwrap()), owned);
        assert_eq!(restore::<Trip>(access::<Trip>(one.bytes(), 0).unwrap()), owned);
        assert_eq!(one.bytes(), two.bytes());
    }
}

#[test]
fn a_record_is_written_as_itself() {
    let route = Route { from: "here".into(), stops: vec![4] };
    let mut writer = RecordWriter::default();
    writer.reset(size_of::<ArchivedRoute>());
    writer.put_root_as::<Route>(0, &route).unwrap();
    assert_eq!(restore::<Route>(access::<Route>(writer.bytes(), 0).unwrap()), route);
}
