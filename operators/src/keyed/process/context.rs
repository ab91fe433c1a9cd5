//! [`ProcessContext`]: what a process function works with, and its states as they are for the current key.

use rkyv::Archived;
use tidemill_engine::model::time::Timestamp;
use tidemill_storage::{key::Key, kinds::timers::Timers, record::Record, state::KeyView};

use super::states::{List, ListState, Map, MapState, StateRegistry, Value, ValueState};
use crate::{backend::JobBackend, keyed::key::restore_key};

/// What a process function works with while it handles one record or timer.
pub struct ProcessContext<'a, K: Key, O> {
    pub(super) key: KeyView<'a>,
    pub(super) timestamp: Timestamp,
    pub(super) watermark: Timestamp,
    pub(super) processing_time: i64,
    pub(super) shared: &'a mut Shared<K, O>,
}

/// What outlives the handling of one record.
pub(super) struct Shared<K: Key, O> {
    pub(super) states: StateRegistry<K>,
    pub(super) event_timers: Timers<K, JobBackend>,
    pub(super) processing_timers: Timers<K, JobBackend>,
    pub(super) outputs: Vec<(O, Timestamp)>,
}

impl<K: Key, O> ProcessContext<'_, K, O> {
    /// The current key.
    pub fn key(&self) -> K {
        match restore_key(self.key) {
            Ok(key) => key,
            Err(error) => panic!("the current key cannot be read back: {error}"),
        }
    }

    /// Event time of the record (`NO_TIMESTAMP` if it has none) or of the timer.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// The watermark that this subtask has reached.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Wall-clock time in milliseconds since the Unix epoch, as of this step.
    pub fn processing_time(&self) -> i64 {
        self.processing_time
    }

    /// Hands a record on, with the event time of the record or timer at hand.
    pub fn collect(&mut self, output: O) {
        self.shared.outputs.push((output, self.timestamp));
    }

    /// The value of a state for the current key, copied.
    #[inline]
    pub fn get<V: Record>(&mut self, state: ValueState<V>) -> Option<V> {
        let key = self.key;
        self.value(state).get(key)
    }

    /// Reads the value of a state for the current key archived, in place.
    #[inline]
    pub fn read<V: Record, R>(
        &mut self,
        state: ValueState<V>,
        read: impl FnOnce(&Archived<V>) -> R,
    ) -> Option<R> {
        let key = self.key;
        self.value(state).read(key, read)
    }

    /// Sets the value of a state for the current key.
    #[inline]
    pub fn set<V: Record>(&mut self, state: ValueState<V>, value: V) {
        let key = self.key;
        self.value(state).set(key, &value);
    }

    /// Updates the value of a state for the current key, in place if its size is fixed, after `create` where there is none.
    #[inline]
    pub fn update<V: Record, R>(
        &mut self,
        state: ValueState<V>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        let key = self.key;
        self.value(state).update(key, create, update)
    }

    /// Removes the value of a state for the current key; whether there was one.
    pub fn clear<V: Record>(&mut self, state: ValueState<V>) -> bool {
        let key = self.key;
        self.value(state).clear(key)
    }

    #[inline]
    fn value<V: Record>(&mut self, state: ValueState<V>) -> &mut Value<K, V> {
        self.shared.states.value_mut(state)
    }

    /// The list of the current key.
    pub fn list<T: Record>(&mut self, state: ListState<T>) -> ListOfKey<'_, K, T> {
        ListOfKey { key: self.key, list: self.shared.states.list_mut(state) }
    }

    /// The map of the current key.
    pub fn map<M: Key, V: Record>(&mut self, state: MapState<M, V>) -> MapOfKey<'_, K, M, V> {
        MapOfKey { key: self.key, map: self.shared.states.map_mut(state) }
    }

    /// Registers a timer for the current key that fires when the watermark reaches `at`. One for a time that the
    /// watermark has passed fires at the next watermark.
    pub fn register_event_timer(&mut self, at: Timestamp) {
        let Shared { states, event_timers, .. } = &mut *self.shared;
        event_timers.register(states.backend(), at, self.key);
    }

    /// Deletes an event-time timer of the current key.
    pub fn delete_event_timer(&mut self, at: Timestamp) {
        self.shared.event_timers.delete(at, self.key);
    }

    /// Registers a timer for the current key that fires when the wall clock reaches `at`, in milliseconds.
    pub fn register_processing_timer(&mut self, at: i64) {
        let Shared { states, processing_timers, .. } = &mut *self.shared;
        processing_timers.register(states.backend(), at, self.key);
    }

    /// Deletes a processing-time timer of the current key.
    pub fn delete_processing_timer(&mut self, at: i64) {
        self.shared.processing_timers.delete(at, self.key);
    }
}

/// The list of one key.
pub struct ListOfKey<'c, K: Key, T: Record> {
    key: KeyView<'c>,
    list: &'c mut List<K, T>,
}

impl<K: Key, T: Record> ListOfKey<'_, K, T> {
    /// Number of elements.
    pub fn len(&mut self) -> u64 {
        self.list.len(self.key)
    }

    /// Whether there is no element.
    pub fn is_empty(&mut self) -> bool {
        self.list.is_empty(self.key)
    }

    /// Appends an element; takes no longer when there are many.
    pub fn add(&mut self, element: &T) {
        self.list.add(self.key, element);
    }

    /// Appends elements.
    pub fn add_all<'t>(&mut self, elements: impl IntoIterator<Item = &'t T>) {
        self.list.add_all(self.key, elements);
    }

    /// Visits all elements in order, archived and in place.
    pub fn for_each(&mut self, visit: impl FnMut(&Archived<T>)) {
        self.list.for_each(self.key, visit);
    }

    /// All elements, copied.
    pub fn get(&mut self) -> Vec<T> {
        self.list.get(self.key)
    }

    /// Replaces all elements.
    pub fn replace<'t>(&mut self, elements: impl IntoIterator<Item = &'t T>) {
        self.list.replace(self.key, elements);
    }

    /// Removes all elements; whether there were any.
    pub fn clear(&mut self) -> bool {
        self.list.clear(self.key)
    }
}

/// The map of one key.
pub struct MapOfKey<'c, K: Key, M: Key, V: Record> {
    key: KeyView<'c>,
    map: &'c mut Map<K, M, V>,
}

impl<K: Key, M: Key, V: Record> MapOfKey<'_, K, M, V> {
    /// Number of entries.
    pub fn len(&mut self) -> u32 {
        self.map.len(self.key)
    }

    /// Whether there is no entry.
    pub fn is_empty(&mut self) -> bool {
        self.map.is_empty(self.key)
    }

    /// The value of a map key, copied.
    pub fn get(&mut self, map_key: &M) -> Option<V> {
        self.map.get(self.key, map_key)
    }

    /// Reads the value of a map key archived, in place.
    pub fn read<R>(&mut self, map_key: &M, read: impl FnOnce(&Archived<V>) -> R) -> Option<R> {
        self.map.read(self.key, map_key, read)
    }

    /// Whether a map key has a value.
    pub fn contains(&mut self, map_key: &M) -> bool {
        self.map.contains(self.key, map_key)
    }

    /// Sets the value of a map key; whether it had one.
    pub fn put(&mut self, map_key: &M, value: V) -> bool {
        self.map.put(self.key, map_key, value)
    }

    /// Updates the value of a map key, after `create` where there is none.
    pub fn update<R>(
        &mut self,
        map_key: &M,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        self.map.update(self.key, map_key, create, update)
    }

    /// Removes a map key; whether it had a value.
    pub fn remove(&mut self, map_key: &M) -> bool {
        self.map.remove(self.key, map_key)
    }

    /// Visits all entries in no particular order, values archived and in place.
    pub fn for_each(&mut self, visit: impl FnMut(M, &Archived<V>)) {
        self.map.for_each(self.key, visit);
    }

    /// Removes all entries; whether there were any.
    pub fn clear(&mut self) -> bool {
        self.map.clear(self.key)
    }
}
