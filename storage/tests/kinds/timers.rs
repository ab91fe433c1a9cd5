//! [`Timers`] against an ordered set.

use proptest::prelude::*;
use std::collections::BTreeSet;
use tidemill_storage::{
    kinds::timers::{BUCKET_MS, Timer, Timers},
    state::{KeyView, StateBackend},
};

use crate::{name, with_key};

#[derive(Clone, Debug)]
enum Operation {
    Register(i64, u8),
    Delete(i64, u8),
    Pop(i64),
    PopBatch(i64, usize),
}

/// A few keys, or so many that slices have many timers.
fn operation(keys: u8) -> impl Strategy<Value = Operation> {
    let at = || {
        prop_oneof![
            8 => -2 * BUCKET_MS..6 * BUCKET_MS,
            4 => (-3..7_i64).prop_map(|bucket| bucket * BUCKET_MS),
            1 => Just(i64::MAX),
            1 => Just(i64::MIN),
        ]
    };
    prop_oneof![
        8 => (at(), 0..keys).prop_map(|(at, key)| Operation::Register(at, key)),
        2 => (at(), 0..keys).prop_map(|(at, key)| Operation::Delete(at, key)),
        3 => at().prop_map(Operation::Pop),
        1 => (at(), 0..20_usize).prop_map(|(at, max)| Operation::PopBatch(at, max)),
    ]
}

fn timer(at: i64, key: KeyView<'_>) -> Timer {
    Timer { at, hash: key.hash, bytes: key.bytes.into() }
}

pub fn timers_agree<B: StateBackend>(make: impl Fn() -> B) {
    let operations =
        prop_oneof![Just(5), Just(60)].prop_flat_map(|keys| prop::collection::vec(operation(keys), 0..300));
    // Near timers: all, or so few that slices become near and far all the time.
    let near_min = prop_oneof![Just(1 << 14), 1..40_usize];
    proptest!(|(operations in operations, near_min in near_min, wide: bool)| {
        let mut backend = make();
        let mut timers = Timers::<String, B>::open(&mut backend, name()).unwrap();
        timers.set_near_min(near_min);
        let mut model = BTreeSet::new();
        for operation in operations {
            match operation {
                Operation::Register(at, key) => with_key(key, wide, |key| {
                    timers.register(&mut backend, at, key);
                    model.insert(timer(at, key));
                }),
                Operation::Delete(at, key) => with_key(key, wide, |key| {
                    assert_eq!(timers.delete(at, key), model.remove(&timer(at, key)));
                }),
                Operation::Pop(until) => {
                    let due = model.first().is_some_and(|timer| timer.at <= until);
                    prop_assert_eq!(timers.pop_until(until), if due { model.pop_first() } else { None });
                }
                Operation::PopBatch(until, max) => {
                    let mut taken = Vec::new();
                    timers.pop_batch(until, max, &mut taken);
                    let mut expected = Vec::new();
                    while expected.len() < max && model.first().is_some_and(|timer| timer.at <= until) {
                        expected.extend(model.pop_first());
                    }
                    prop_assert_eq!(taken, expected);
                }
            }
            prop_assert_eq!(timers.len(), model.len());
            prop_assert_eq!(timers.is_empty(), model.is_empty());
            prop_assert_eq!(timers.next(), model.first().map(|timer| timer.at));
        }
        let rest: Vec<Timer> = std::iter::from_fn(|| timers.pop_until(i64::MAX)).collect();
        prop_assert_eq!(rest, model.into_iter().collect::<Vec<_>>());
    });
}
