//! Every kind of state against an obvious model, on random operations. Generic over the backend: whatever
//! implements the interface runs through the same.
#![allow(clippy::unwrap_used)]

mod list;
mod map;
mod timers;
mod value;

use tidemill_storage::{
    key::{Key, hash_bytes},
    state::{KeyView, StateName, memory::MemoryBackend},
};

/// A key of the tests: a few of them, wide if `wide`, one of which is the empty string.
pub fn with_key<R>(number: u8, wide: bool, run: impl FnOnce(KeyView<'_>) -> R) -> R {
    if wide {
        let text = "k".repeat(usize::from(number));
        return run(KeyView { hash: hash_bytes(text.as_bytes()), bytes: text.as_bytes() });
    }
    run(KeyView { hash: u64::from(number).key_hash(&mut Vec::new()), bytes: &[] })
}

/// The name of the state under test.
pub fn name() -> StateName {
    StateName::new("operator", "state")
}

macro_rules! on_memory {
    ($($test:ident = $model:path;)*) => {$(
        #[test]
        fn $test() {
            $model(MemoryBackend::default);
        }
    )*};
}

on_memory! {
    values_agree_with_a_map = value::value_agrees;
    lists_agree_with_vectors = list::list_agrees;
    batches_of_elements_agree_with_vectors = list::list_batches_agree;
    maps_agree_with_maps_of_maps = map::map_agrees;
    timers_agree_with_a_set = timers::timers_agree;
}
