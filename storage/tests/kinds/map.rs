//! [`MapState`] against a map of maps.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use tidemill_storage::{kinds::map::MapState, state::StateBackend};

use crate::{name, with_key};

#[derive(Clone, Debug)]
enum Operation {
    Put(u8, String, i64),
    Update(u8, String, i64),
    Remove(u8, String),
    Clear(u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    let map_key = || "[ab]{0,3}";
    prop_oneof![
        3 => (0..3_u8, map_key(), any::<i64>()).prop_map(|(k, m, v)| Operation::Put(k, m, v)),
        3 => (0..3_u8, map_key(), -9..9_i64).prop_map(|(k, m, v)| Operation::Update(k, m, v)),
        4 => (0..3_u8, map_key()).prop_map(|(k, m)| Operation::Remove(k, m)),
        1 => (0..3_u8).prop_map(Operation::Clear),
    ]
}

pub fn map_agrees<B: StateBackend>(make: impl Fn() -> B) {
    proptest!(|(operations in prop::collection::vec(operation(), 0..100), wide: bool)| {
        let mut backend = make();
        let mut state = MapState::<String, String, i64, B>::open(&mut backend, name(), Vec::new()).unwrap();
        let mut model = HashMap::<u8, BTreeMap<String, i64>>::new();
        for operation in operations {
            let key = match operation {
                Operation::Put(key, map_key, value) => {
                    let had = with_key(key, wide, |key| state.put(key, &map_key, value));
                    prop_assert_eq!(had, model.entry(key).or_default().insert(map_key, value).is_some());
                    key
                }
                Operation::Update(key, map_key, value) => {
                    let result = with_key(key, wide, |key| state.update(key, &map_key, || 100, |old| {
                        *old = old.wrapping_add(value);
                        *old
                    }));
                    let old = model.entry(key).or_default().entry(map_key).or_insert(100);
                    *old = old.wrapping_add(value);
                    prop_assert_eq!(result, *old);
                    key
                }
                Operation::Remove(key, map_key) => {
                    let had = with_key(key, wide, |key| state.remove(key, &map_key));
                    prop_assert_eq!(had, model.entry(key).or_default().remove(&map_key).is_some());
                    key
                }
                Operation::Clear(key) => {
                    let had = with_key(key, wide, |key| state.clear(key));
                    prop_assert_eq!(had, model.remove(&key).is_some_and(|map| !map.is_empty()));
                    key
                }
            };
            model.retain(|_, map| !map.is_empty());
            prop_assert_eq!(state.keys(), model.len());
            let expected = model.get(&key).cloned().unwrap_or_default();
            let mut entries = BTreeMap::new();
            with_key(key, wide, |key| state.for_each(key, |map_key, value| {
                assert!(entries.insert(map_key, value.to_native()).is_none(), "visited twice");
            }));
            prop_assert_eq!(&entries, &expected);
            prop_assert_eq!(with_key(key, wide, |key| state.len(key)) as usize, expected.len());
            prop_assert_eq!(with_key(key, wide, |key| state.is_empty(key)), expected.is_empty());
            for map_key in ["", "a", "b", "ab", "bbb"].map(str::to_owned) {
                prop_assert_eq!(
                    with_key(key, wide, |key| state.get(key, &map_key)),
                    expected.get(&map_key).copied()
                );
            }
        }
        let mut seen = 0;
        prop_assert_eq!(state.scan(0, |_, _, _| { seen += 1; true }), None);
        prop_assert_eq!(seen, model.values().map(BTreeMap::len).sum::<usize>());
    });
}
