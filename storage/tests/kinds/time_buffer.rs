//! [`TimeBuffer`] against a sorted list of all records.

use proptest::prelude::*;
use tidemill_storage::{kinds::time_buffer::TimeBuffer, record::restore, state::StateBackend};

use crate::{name, with_key};

#[derive(Clone, Debug)]
enum Operation {
    Insert(u8, Vec<i64>),
    Expire(i64),
    Visit(u8, i64, i64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let at = || -300..900_i64;
    prop_oneof![
        6 => (0..3_u8, prop::collection::vec(at(), 1..20)).prop_map(|(key, at)| Operation::Insert(key, at)),
        1 => at().prop_map(Operation::Expire),
        6 => (0..3_u8, at(), at()).prop_map(|(key, from, to)| Operation::Visit(key, from, to)),
        1 => (0..3_u8).prop_map(|key| Operation::Visit(key, i64::MIN, i64::MAX)),
    ]
}

pub fn time_buffer_agrees<B: StateBackend>(make: impl Fn() -> B) {
    const WIDTH: i64 = 128;
    proptest!(|(operations in prop::collection::vec(operation(), 0..40))| {
        let mut backend = make();
        let mut buffer =
            TimeBuffer::<String, String, B>::open(&mut backend, name(), Vec::new(), WIDTH as u64 - 9).unwrap();
        let mut model = Vec::<(u8, i64, String)>::new();
        let mut inserted = 0;
        for operation in operations {
            match operation {
                Operation::Insert(key, times) => for at in times {
                    inserted += 1;
                    let record = format!("record {inserted}");
                    with_key(key, true, |key| buffer.insert(&mut backend, key, at, record.clone()));
                    model.push((key, at, record));
                },
                Operation::Expire(time) => {
                    buffer.expire_before(time);
                    model.retain(|(_, at, _)| (at.div_euclid(WIDTH) + 1) * WIDTH > time);
                }
                Operation::Visit(key, from, to) => {
                    let mut seen = Vec::new();
                    with_key(key, true, |key| buffer.visit(key, from..=to, |at, record| {
                        seen.push((at, restore::<String>(record)));
                    }));
                    let mut expected: Vec<(i64, String)> = model
                        .iter()
                        .filter(|(other, at, _)| *other == key && (from..=to).contains(at))
                        .map(|(_, at, record)| (*at, record.clone()))
                        .collect();
                    expected.sort_by_key(|(at, _)| *at);
                    prop_assert_eq!(seen, expected);
                }
            }
        }
    });
}
