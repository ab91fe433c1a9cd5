//! Operators without state per key.

use std::time::Duration;

use tidemill_engine::model::{operator::Signal, time::Timestamp, watermark::WatermarkStrategy};
use tidemill_operators::{
    assign_timestamps::Timestamped,
    exchange::Unpack,
    filter::Filter,
    filter_map::FilterMap,
    flat_map::FlatMap,
    inspect::Inspect,
    map::Map,
    testkit::operator::{Given, OperatorTest, Seen},
};

fn given() -> Vec<Given<i64>> {
    let mut given = vec![Given::Signal(Signal::Watermark(-10))];
    given.extend((0..10).map(|number| Given::Record(number, number * 10)));
    given.push(Given::Signal(Signal::Idle));
    given.push(Given::Signal(Signal::Active));
    given.extend((10..13).map(|number| Given::Record(number, number * 10)));
    given.push(Given::Signal(Signal::Watermark(50)));
    given
}

/// What comes out when `function` makes a vector of each record and all else passes.
fn expected<U>(function: impl Fn(i64) -> Vec<U>) -> Vec<Seen<U>> {
    let one = |one: Given<i64>| match one {
        Given::Record(record, at) => {
            function(record).into_iter().map(|output| Seen::Record(output, at)).collect()
        }
        Given::Signal(signal) => vec![Seen::Signal(signal)],
        Given::WallClock(_) => Vec::new(),
    };
    given().into_iter().flat_map(one).collect()
}

#[test]
fn map() {
    let test = OperatorTest::new(given()).expect(expected(|number| vec![format!("<{number}>")]));
    test.in_order().check(|input| Map::new(input, 0, |number| format!("<{number}>")));
}

#[test]
fn filter() {
    let test = OperatorTest::new(given()).expect(expected(|n| if n % 3 == 0 { vec![n] } else { Vec::new() }));
    test.in_order().check(|input| Filter::new(input, 0, |number: &i64| number % 3 == 0));
}

#[test]
fn filter_map() {
    let halve = |number: i64| (number % 2 == 0).then_some(number / 2);
    let test = OperatorTest::new(given()).expect(expected(|number| halve(number).into_iter().collect()));
    test.in_order().check(|input| FilterMap::new(input, 0, halve));
}

#[test]
fn flat_map() {
    let test = OperatorTest::new(given()).expect(expected(|number| (0..number % 4).collect()));
    test.in_order().check(|input| FlatMap::new(input, 0, |number| 0..number % 4));
}

#[test]
fn inspect() {
    OperatorTest::new(given())
        .expect(expected(|number| vec![number]))
        .in_order()
        .check(|input| Inspect::new(input, 0, |_number: &i64| {}));
}

#[test]
fn a_chain_of_them() {
    let test = OperatorTest::new(given()).expect(expected(|number| {
        (0..number % 4).filter(|part| part % 2 == 1).map(|part| part * 100).collect()
    }));
    test.in_order().check(|input| {
        let parts = FlatMap::new(input, 0, |number| 0..number % 4);
        Map::new(Filter::new(parts, 1, |part: &i64| part % 2 == 1), 2, |part| part * 100)
    });
}

#[test]
fn unpack() {
    OperatorTest::new(given())
        .expect(expected(|number| vec![number]))
        .in_order()
        .check_head(|_number| 0_u8, Unpack::default());
}

#[test]
fn assign_timestamps() {
    let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(2))
        .with_timestamps(|number: &i64| -number as Timestamp);
    // Watermarks come when they are due, which is up to the steps; late records make them due at once.
    let records: Vec<Seen<i64>> = (0..13).map(|number| Seen::Record(number, -number)).collect();
    OperatorTest::new(given())
        .expect(records)
        .in_order()
        .records_only()
        .check(|input| Timestamped::new(input, 0, strategy));
}
