//! [`ReducingState`] and [`AggregatingState`] against all that was added.

use std::collections::HashMap;

use proptest::prelude::*;
use tidemill_storage::{
    kinds::{
        aggregating::{Aggregate, AggregatingState},
        reducing::ReducingState,
    },
    state::{KeyColumn, KeyView, StateBackend, StateName},
};

/// Longest text first seen, and how many.
struct Texts;

impl Aggregate for Texts {
    type Input = str;
    type Accumulator = (String, u64);
    type Output = (usize, u64);

    fn create(&self) -> (String, u64) {
        (String::new(), 0)
    }

    fn add(&self, (text, count): &mut (String, u64), input: &str) {
        text.push_str(input);
        *count += 1;
    }

    fn result(&self, (text, count): &(String, u64)) -> (usize, u64) {
        (text.len(), *count)
    }
}

struct Column<'a>(&'a [(u64, String)]);

impl KeyColumn for Column<'_> {
    fn key(&self, i: usize) -> KeyView<'_> {
        KeyView { hash: self.0[i].0, bytes: &[] }
    }
}

pub fn combined_agree<B: StateBackend>(make: impl Fn() -> B) {
    let added = prop::collection::vec((0..5_u64, "[a-z]{0,9}"), 0..60);
    proptest!(|(added in added, batched: bool, cleared in 0..5_u64)| {
        let mut backend = make();
        let name = |state| StateName::new("operator", state);
        let reduce = |a: &String, b: &String| format!("{a}{b}");
        let mut reducing =
            ReducingState::<u64, String, B, _>::open(&mut backend, name("r"), Vec::new(), reduce).unwrap();
        let mut aggregating =
            AggregatingState::<u64, Texts, B>::open(&mut backend, name("a"), Vec::new(), Texts).unwrap();
        let mut model = HashMap::<u64, Vec<String>>::new();
        for (key, text) in &added {
            model.entry(*key).or_default().push(text.clone());
        }
        if batched {
            reducing.add_batch(&Column(&added), 0..added.len(), |i| added[i].1.clone());
            aggregating.add_batch(&Column(&added), 0..added.len(), |i| &*added[i].1);
        } else {
            for (i, (_, text)) in added.iter().enumerate() {
                reducing.add(Column(&added).key(i), text.clone());
                aggregating.add(Column(&added).key(i), text);
            }
        }
        let cleared_key = KeyView { hash: cleared, bytes: &[] };
        let was_there = model.remove(&cleared).is_some();
        prop_assert_eq!(reducing.clear(cleared_key), was_there);
        prop_assert_eq!(aggregating.clear(cleared_key), was_there);
        prop_assert_eq!((reducing.len(), aggregating.len()), (model.len(), model.len()));
        for hash in 0..5 {
            let key = KeyView { hash, bytes: &[] };
            let all = model.get(&hash);
            prop_assert_eq!(reducing.get(key), all.map(|all| all.concat()));
            prop_assert_eq!(aggregating.get(key), all.map(|all| (all.concat().len(), all.len() as u64)));
        }
    });
}
