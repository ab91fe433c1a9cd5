//! Values, lists and maps that may have a time to live: which of the two was decided when the state was opened.

use rkyv::Archived;
use tidemill_storage::{
    key::Key,
    kinds::{
        list::ListState, map::MapState, ttl_list::TtlListState, ttl_map::TtlMapState,
        ttl_value::TtlValueState, value::ValueState,
    },
    log::seal::Sealed,
    record::Record,
    state::{KeyView, KeyedTable},
};

use crate::backend::JobBackend;

/// One value per key.
pub enum Values<K: Key, V: Record> {
    /// For ever.
    Lasting(ValueState<K, V, JobBackend>),
    /// With a time to live.
    Expiring(TtlValueState<K, V, JobBackend>),
}

impl<K: Key, V: Record> Values<K, V> {
    #[inline(always)]
    pub(super) fn read<R>(
        &mut self,
        key: KeyView<'_>,
        now: i64,
        lend: impl FnOnce(&Archived<V>) -> R,
    ) -> Option<R> {
        match self {
            Self::Lasting(values) => values.read(key, lend),
            Self::Expiring(values) => values.read(key, now, lend),
        }
    }

    #[inline(always)]
    pub(super) fn get(&mut self, key: KeyView<'_>, now: i64) -> Option<V> {
        match self {
            Self::Lasting(values) => values.get(key),
            Self::Expiring(values) => values.get(key, now),
        }
    }

    #[inline(always)]
    pub(super) fn set(&mut self, key: KeyView<'_>, now: i64, value: V) {
        match self {
            Self::Lasting(values) => values.set(key, &value),
            Self::Expiring(values) => values.set(key, now, value),
        }
    }

    #[inline(always)]
    pub(super) fn update<R>(
        &mut self,
        key: KeyView<'_>,
        now: i64,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        match self {
            Self::Lasting(values) => values.update(key, create, update),
            Self::Expiring(values) => values.update(key, now, create, update),
        }
    }

    pub(super) fn clear(&mut self, key: KeyView<'_>) -> bool {
        match self {
            Self::Lasting(values) => values.clear(key),
            Self::Expiring(values) => values.clear(key),
        }
    }

    pub(super) fn seal(&mut self, sealed: &mut Sealed) {
        match self {
            Self::Lasting(values) => values.seal(sealed),
            Self::Expiring(values) => values.seal(sealed),
        }
    }

    /// Lets memory go, and looks at some keys for what has expired.
    pub(super) fn tidy(&mut self, now: i64, keys_max: usize) {
        match self {
            Self::Lasting(values) => values.table().relieve(),
            Self::Expiring(values) => {
                values.clean_up(now, keys_max);
                values.table().relieve();
            }
        }
    }
}

/// Elements in order, per key.
pub enum Lists<K: Key, T: Record> {
    /// For ever.
    Lasting(ListState<K, T, JobBackend>),
    /// Each with a time to live.
    Expiring(TtlListState<K, T, JobBackend>),
}

impl<K: Key, T: Record> Lists<K, T> {
    pub(super) fn len(&mut self, key: KeyView<'_>) -> u64 {
        match self {
            Self::Lasting(lists) => lists.len(key),
            Self::Expiring(lists) => lists.len(key),
        }
    }

    pub(super) fn add(&mut self, key: KeyView<'_>, now: i64, element: T) {
        match self {
            Self::Lasting(lists) => lists.add(key, &element),
            Self::Expiring(lists) => lists.add(key, now, element),
        }
    }

    pub(super) fn for_each(&mut self, key: KeyView<'_>, now: i64, visit: impl FnMut(&Archived<T>)) {
        match self {
            Self::Lasting(lists) => lists.for_each(key, visit),
            Self::Expiring(lists) => lists.for_each(key, now, visit),
        }
    }

    pub(super) fn get(&mut self, key: KeyView<'_>, now: i64) -> Vec<T> {
        match self {
            Self::Lasting(lists) => lists.get(key),
            Self::Expiring(lists) => lists.get(key, now),
        }
    }

    pub(super) fn clear(&mut self, key: KeyView<'_>) -> bool {
        match self {
            Self::Lasting(lists) => lists.clear(key),
            Self::Expiring(lists) => lists.clear(key),
        }
    }

    pub(super) fn seal(&mut self, sealed: &mut Sealed) {
        match self {
            Self::Lasting(lists) => lists.seal(sealed),
            Self::Expiring(lists) => lists.seal(sealed),
        }
    }

    /// As [`Values::tidy`].
    pub(super) fn tidy(&mut self, now: i64, keys_max: usize) {
        match self {
            Self::Lasting(lists) => lists.relieve(),
            Self::Expiring(lists) => {
                lists.clean_up(now, keys_max);
                lists.relieve();
            }
        }
    }
}

/// Values by map keys, per key.
pub enum Maps<K: Key, M: Key, V: Record> {
    /// For ever.
    Lasting(MapState<K, M, V, JobBackend>),
    /// Each entry with a time to live.
    Expiring(TtlMapState<K, M, V, JobBackend>),
}

impl<K: Key, M: Key, V: Record> Maps<K, M, V> {
    pub(super) fn len(&mut self, key: KeyView<'_>) -> u32 {
        match self {
            Self::Lasting(maps) => maps.len(key),
            Self::Expiring(maps) => maps.len(key),
        }
    }

    pub(super) fn read<R>(
        &mut self,
        key: KeyView<'_>,
        map_key: &M,
        now: i64,
        lend: impl FnOnce(&Archived<V>) -> R,
    ) -> Option<R> {
        match self {
            Self::Lasting(maps) => maps.read(key, map_key, lend),
            Self::Expiring(maps) => maps.read(key, map_key, now, lend),
        }
    }

    pub(super) fn get(&mut self, key: KeyView<'_>, map_key: &M, now: i64) -> Option<V> {
        match self {
            Self::Lasting(maps) => maps.get(key, map_key),
            Self::Expiring(maps) => maps.get(key, map_key, now),
        }
    }

    pub(super) fn put(&mut self, key: KeyView<'_>, map_key: &M, now: i64, value: V) {
        match self {
            Self::Lasting(maps) => {
                maps.put(key, map_key, value);
            }
            Self::Expiring(maps) => maps.put(key, map_key, now, value),
        }
    }

    pub(super) fn update<R>(
        &mut self,
        key: KeyView<'_>,
        map_key: &M,
        now: i64,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        match self {
            Self::Lasting(maps) => maps.update(key, map_key, create, update),
            Self::Expiring(maps) => maps.update(key, map_key, now, create, update),
        }
    }

    pub(super) fn remove(&mut self, key: KeyView<'_>, map_key: &M) -> bool {
        match self {
            Self::Lasting(maps) => maps.remove(key, map_key),
            Self::Expiring(maps) => maps.remove(key, map_key),
        }
    }

    pub(super) fn for_each(&mut self, key: KeyView<'_>, now: i64, visit: impl FnMut(M, &Archived<V>)) {
        match self {
            Self::Lasting(maps) => maps.for_each(key, visit),
            Self::Expiring(maps) => maps.for_each(key, now, visit),
        }
    }

    pub(super) fn clear(&mut self, key: KeyView<'_>) -> bool {
        match self {
            Self::Lasting(maps) => maps.clear(key),
            Self::Expiring(maps) => maps.clear(key),
        }
    }

    pub(super) fn seal(&mut self, sealed: &mut Sealed) {
        match self {
            Self::Lasting(maps) => maps.seal(sealed),
            Self::Expiring(maps) => maps.seal(sealed),
        }
    }

    /// As [`Values::tidy`].
    pub(super) fn tidy(&mut self, now: i64, entries_max: usize) {
        match self {
            Self::Lasting(maps) => maps.relieve(),
            Self::Expiring(maps) => {
                maps.clean_up(now, entries_max);
                maps.relieve();
            }
        }
    }
}
