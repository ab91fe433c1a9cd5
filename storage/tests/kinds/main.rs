//! Every kind of state against an obvious model, on random operations. Generic over the backend: whatever
//! implements the interface runs through the same.
#![allow(clippy::unwrap_used)]

extern crate tidemill_storage as tidemill;

mod combined;
mod kept;
mod list;
mod map;
mod restored;
mod sealed;
mod time_buffer;
mod timers;
mod ttl;
mod value;

use tidemill_storage::{
    key::{Key, hash_bytes},
    state::{KeyView, StateName, memory::MemoryBackend},
    store::{Store, StoreOptions},
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

macro_rules! on_all_backends {
    ($($test:ident = $model:path;)*) => {
        /// The reference.
        mod memory {
            $(
                #[test]
                fn $test() {
                    $model(super::MemoryBackend::default);
                }
            )*
        }

        /// The log.
        mod store {
            $(
                #[test]
                fn $test() {
                    $model(|| super::Store::new(super::StoreOptions::new()));
                }
            )*
        }

        /// Archived bytes, checked whenever they are read.
        mod kept_bytes {
            $(
                #[test]
                fn $test() {
                    $model(super::kept::Kept::default);
                }
            )*
        }
    };
}

on_all_backends! {
    values_agree_with_a_map = crate::value::value_agrees;
    lists_agree_with_vectors = crate::list::list_agrees;
    batches_of_elements_agree_with_vectors = crate::list::list_batches_agree;
    maps_agree_with_maps_of_maps = crate::map::map_agrees;
    timers_agree_with_a_set = crate::timers::timers_agree;
    time_buffers_agree_with_sorted_records = crate::time_buffer::time_buffer_agrees;
    combined_values_agree_with_all_that_was_added = crate::combined::combined_agree;
    values_expire = crate::ttl::values_expire;
    elements_expire = crate::ttl::lists_expire;
    entries_expire = crate::ttl::maps_expire;
}
