//! [`ListState`] against vectors.

use std::collections::HashMap;

use proptest::prelude::*;
use tidemill_storage::{
    Record,
    kinds::list::ListState,
    record::restore,
    state::{KeyColumn, KeyView, StateBackend},
};

use crate::{name, with_key};

#[derive(Clone, Debug)]
enum Operation<T> {
    Add(u8, Vec<T>),
    Replace(u8, Vec<T>),
    DropFront(u8, usize),
    Clear(u8),
}

fn operation<T: std::fmt::Debug + Clone>(
    element: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Operation<T>> {
    let elements = |max| prop::collection::vec(element.clone(), 0..max);
    prop_oneof![
        6 => (0..3_u8, elements(100)).prop_map(|(key, elements)| Operation::Add(key, elements)),
        1 => (0..3_u8, elements(10)).prop_map(|(key, elements)| Operation::Replace(key, elements)),
        2 => (0..3_u8, 0..200_usize).prop_map(|(key, count)| Operation::DropFront(key, count)),
        1 => (0..3_u8).prop_map(Operation::Clear),
    ]
}

fn agrees<T: Record + Clone + PartialEq + std::fmt::Debug, B: StateBackend>(
    make: &impl Fn() -> B,
    element: impl Strategy<Value = T> + Clone,
    wide: bool,
) {
    proptest!(ProptestConfig::with_cases(60), |(operations in prop::collection::vec(operation(element), 0..20))| {
        let mut backend = make();
        let mut state = ListState::<String, T, B>::open(&mut backend, name(), Vec::new()).unwrap();
        let mut model = HashMap::<u8, Vec<T>>::new();
        for operation in operations {
            match operation {
                Operation::Add(key, elements) => {
                    with_key(key, wide, |key| state.add_all(key, &elements));
                    model.entry(key).or_default().extend(elements);
                }
                Operation::Replace(key, elements) => {
                    with_key(key, wide, |key| state.replace(key, &elements));
                    model.insert(key, elements);
                }
                Operation::DropFront(key, count) => {
                    let mut seen = 0;
                    let dropped = with_key(key, wide, |key| state.drop_front(key, |_| {
                        seen += 1;
                        seen <= count
                    }));
                    let list = model.entry(key).or_default();
                    prop_assert!(dropped as usize <= count.min(list.len()));
                    prop_assert!(count < list.len() || dropped as usize == list.len());
                    list.drain(..dropped as usize);
                }
                Operation::Clear(key) => {
                    let cleared = with_key(key, wide, |key| state.clear(key));
                    prop_assert_eq!(cleared, model.remove(&key).is_some_and(|list| !list.is_empty()));
                }
            }
            model.retain(|_, list| !list.is_empty());
            prop_assert_eq!(state.keys(), model.len());
            for key in 0..3 {
                let expected = model.get(&key).cloned().unwrap_or_default();
                prop_assert_eq!(with_key(key, wide, |key| state.len(key)), expected.len() as u64);
                prop_assert_eq!(with_key(key, wide, |key| state.is_empty(key)), expected.is_empty());
                prop_assert_eq!(with_key(key, wide, |key| state.get(key)), expected);
            }
        }
    });
}

pub fn list_agrees<B: StateBackend>(make: impl Fn() -> B) {
    agrees(&make, any::<u64>(), false);
    agrees(&make, any::<(u128, bool)>(), true);
    // Some longer than a page.
    let text = (any::<char>(), prop_oneof![9 => 0..40_usize, 1 => 0..3000_usize])
        .prop_map(|(c, len)| std::iter::repeat_n(c, len).collect::<String>());
    agrees(&make, text, true);
}

struct Column(Vec<u64>);

impl KeyColumn for Column {
    fn key(&self, i: usize) -> KeyView<'_> {
        KeyView { hash: self.0[i], bytes: &[] }
    }
}

pub fn list_batches_agree<B: StateBackend>(make: impl Fn() -> B) {
    let element = (0..5_u64, prop_oneof![9 => 0..40_usize, 1 => 0..2000_usize]);
    let batches = prop::collection::vec(prop::collection::vec(element, 0..200), 0..5);
    proptest!(ProptestConfig::with_cases(60), |(batches in batches, skip in 0..3_usize)| {
        let mut backend = make();
        let mut state = ListState::<u64, String, B>::open(&mut backend, name(), Vec::new()).unwrap();
        let mut model = HashMap::<u64, Vec<String>>::new();
        for (number, batch) in batches.iter().enumerate() {
            let keys = Column(batch.iter().map(|(key, _)| *key).collect());
            let text = |i: usize| format!("{number} {i} {}", "x".repeat(batch[i].1));
            let range = skip.min(batch.len())..batch.len();
            state.add_batch(&keys, range.clone(), text);
            for i in range {
                model.entry(batch[i].0).or_default().push(text(i));
            }
        }
        for (hash, expected) in &model {
            let key = KeyView { hash: *hash, bytes: &[] };
            prop_assert_eq!(&state.get(key), expected);
            let mut first = None;
            state.visit(key, |element| {
                first = Some(restore::<String>(element));
                false
            });
            prop_assert_eq!(first.as_ref(), expected.first());
        }
    });
}
