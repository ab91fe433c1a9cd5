//! [`ValueState`] against a map.

use std::collections::HashMap;

use proptest::prelude::*;
use tidemill_storage::{kinds::value::ValueState, state::StateBackend};

use crate::{name, with_key};

#[derive(Clone, Debug)]
enum Operation {
    Set(u8, String),
    Append(u8, char),
    Clear(u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (0..8_u8, "[a-z]{0,20}").prop_map(|(key, value)| Operation::Set(key, value)),
        (0..8_u8, any::<char>()).prop_map(|(key, c)| Operation::Append(key, c)),
        (0..8_u8).prop_map(Operation::Clear),
    ]
}

pub fn value_agrees<B: StateBackend>(make: impl Fn() -> B) {
    proptest!(|(operations in prop::collection::vec(operation(), 0..100))| {
        let mut backend = make();
        let mut state = ValueState::<String, String, B>::open(&mut backend, name(), Vec::new()).unwrap();
        let mut model = HashMap::<u8, String>::new();
        for operation in operations {
            match operation {
                Operation::Set(key, value) => {
                    with_key(key, true, |key| state.set(key, &value));
                    model.insert(key, value);
                }
                Operation::Append(key, c) => {
                    with_key(key, true, |key| state.update(key, || "new".to_owned(), |value| value.push(c)));
                    model.entry(key).or_insert_with(|| "new".to_owned()).push(c);
                }
                Operation::Clear(key) => {
                    let cleared = with_key(key, true, |key| state.clear(key));
                    prop_assert_eq!(cleared, model.remove(&key).is_some());
                }
            }
            prop_assert_eq!(state.len(), model.len());
            for key in 0..8 {
                prop_assert_eq!(with_key(key, true, |key| state.get(key)), model.get(&key).cloned());
                prop_assert_eq!(with_key(key, true, |key| state.contains(key)), model.contains_key(&key));
            }
        }
    });
}
