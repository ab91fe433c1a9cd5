//! [`ProcessContext`]: what a process function works with, and its states as they are for the current key.

use rkyv::Archived;
use tidemill_engine::model::time::Timestamp;
use tidemill_storage::{
    key::Key,
    kinds::{aggregating::Aggregate, timers::Timers},
    record::Record,
    state::KeyView,
};

use super::{
    expiring::{Lists, Maps, Values},
    states::{
        Aggregating, AggregatingState, ListState, MapState, Reducing, ReducingState, StateRegistry,
        ValueState,
    },
};
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
        let (key, now) = (self.key, self.processing_time);
        self.value(state).get(key, now)
    }

    /// Reads the value of a state for the current key archived, in place.
    #[inline]
    pub fn read<V: Record, R>(
        &mut self,
        state: ValueState<V>,
        read: impl FnOnce(&Archived<V>) -> R,
    ) -> Option<R> {
        let (key, now) = (self.key, self.processing_time);
        self.value(state).read(key, now, read)
    }

    /// Sets the value of a state for the current key.
    #[inline]
    pub fn set<V: Record>(&mut self, state: ValueState<V>, value: V) {
        let (key, now) = (self.key, self.processing_time);
        self.value(state).set(key, now, value);
    }

    /// Updates the value of a state for the current key, in place if its size is fixed, after `create` where there is none.
    #[inline]
    pub fn update<V: Record, R>(
        &mut self,
        state: ValueState<V>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        let (key, now) = (self.key, self.processing_time);
        self.value(state).update(key, now, create, update)
    }

    /// Removes the value of a state for the current key; whether there was one.
    pub fn clear<V: Record>(&mut self, state: ValueState<V>) -> bool {
        let key = self.key;
        self.value(state).clear(key)
    }

    #[inline]
    fn value<V: Record>(&mut self, state: ValueState<V>) -> &mut Values<K, V> {
        self.shared.states.values(state)
    }

    /// The list of the current key.
    pub fn list<T: Record>(&mut self, state: ListState<T>) -> ListOfKey<'_, K, T> {
        let (key, now) = (self.key, self.processing_time);
        ListOfKey { key, now, lists: self.shared.states.lists(state) }
    }

    /// The map of the current key.
    pub fn map<M: Key, V: Record>(&mut self, state: MapState<M, V>) -> MapOfKey<'_, K, M, V> {
        let (key, now) = (self.key, self.processing_time);
        MapOfKey { key, now, maps: self.shared.states.maps(state) }
    }

    /// The reduced value of the current key.
    pub fn reducing<V: Record>(&mut self, state: ReducingState<V>) -> ReducedOfKey<'_, K, V> {
        ReducedOfKey { key: self.key, reducing: self.shared.states.reduced(state) }
    }

    /// The accumulator of the current key.
    pub fn aggregating<A: Aggregate>(&mut self, state: AggregatingState<A>) -> AggregatedOfKey<'_, K, A> {
        AggregatedOfKey { key: self.key, aggregating: self.shared.states.aggregated(state) }
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
    now: i64,
    lists: &'c mut Lists<K, T>,
}

impl<K: Key, T: Record> ListOfKey<'_, K, T> {
    /// Number of elements; of those with a time to live, expired ones that are still there are counted.
    pub fn len(&mut self) -> u64 {
        self.lists.len(self.key)
    }

    /// Whether there is no element.
    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// Appends an element; takes no longer when there are many.
    pub fn add(&mut self, element: T) {
        self.lists.add(self.key, self.now, element);
    }

    /// Visits all elements in order, archived and in place.
    pub fn for_each(&mut self, visit: impl FnMut(&Archived<T>)) {
        self.lists.for_each(self.key, self.now, visit);
    }

    /// All elements, copied.
    pub fn get(&mut self) -> Vec<T> {
        self.lists.get(self.key, self.now)
    }

    /// Replaces all elements.
    pub fn replace(&mut self, elements: impl IntoIterator<Item = T>) {
        self.clear();
        elements.into_iter().for_each(|element| self.add(element));
    }

    /// Removes all elements; whether there were any.
    pub fn clear(&mut self) -> bool {
        self.lists.clear(self.key)
    }
}

/// The map of one key.
pub struct MapOfKey<'c, K: Key, M: Key, V: Record> {
    key: KeyView<'c>,
    now: i64,
    maps: &'c mut Maps<K, M, V>,
}

impl<K: Key, M: Key, V: Record> MapOfKey<'_, K, M, V> {
    /// Number of entries; of those with a time to live, expired ones that are still there are counted.
    pub fn len(&mut self) -> u32 {
        self.maps.len(self.key)
    }

    /// Whether there is no entry.
    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// The value of a map key, copied.
    pub fn get(&mut self, map_key: &M) -> Option<V> {
        self.maps.get(self.key, map_key, self.now)
    }

    /// Reads the value of a map key archived, in place.
    pub fn read<R>(&mut self, map_key: &M, read: impl FnOnce(&Archived<V>) -> R) -> Option<R> {
        self.maps.read(self.key, map_key, self.now, read)
    }

    /// Whether a map key has a value.
    pub fn contains(&mut self, map_key: &M) -> bool {
        self.read(map_key, |_| ()).is_some()
    }

    /// Sets the value of a map key.
    pub fn put(&mut self, map_key: &M, value: V) {
        self.maps.put(self.key, map_key, self.now, value);
    }

    /// Updates the value of a map key, after `create` where there is none.
    pub fn update<R>(
        &mut self,
        map_key: &M,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        self.maps.update(self.key, map_key, self.now, create, update)
    }

    /// Removes a map key; whether it had a value.
    pub fn remove(&mut self, map_key: &M) -> bool {
        self.maps.remove(self.key, map_key)
    }

    /// Visits all entries in no particular order, values archived and in place.
    pub fn for_each(&mut self, visit: impl FnMut(M, &Archived<V>)) {
        self.maps.for_each(self.key, self.now, visit);
    }

    /// Removes all entries; whether there were any.
    pub fn clear(&mut self) -> bool {
        self.maps.clear(self.key)
    }
}

/// The reduced value of one key.
pub struct ReducedOfKey<'c, K: Key, V: Record> {
    key: KeyView<'c>,
    reducing: &'c mut Reducing<K, V>,
}

impl<K: Key, V: Record> ReducedOfKey<'_, K, V> {
    /// Combines a value into it.
    pub fn add(&mut self, value: V) {
        self.reducing.add(self.key, value);
    }

    /// The value, copied, if any was added.
    pub fn get(&mut self) -> Option<V> {
        self.reducing.get(self.key)
    }

    /// Forgets all that was added; whether anything was.
    pub fn clear(&mut self) -> bool {
        self.reducing.clear(self.key)
    }
}

/// The accumulator of one key.
pub struct AggregatedOfKey<'c, K: Key, A: Aggregate> {
    key: KeyView<'c>,
    aggregating: &'c mut Aggregating<K, A>,
}

impl<K: Key, A: Aggregate> AggregatedOfKey<'_, K, A> {
    /// Adds an input.
    pub fn add(&mut self, input: &A::Input) {
        self.aggregating.add(self.key, input);
    }

    /// The result, if anything was added.
    pub fn get(&mut self) -> Option<A::Output> {
        self.aggregating.get(self.key)
    }

    /// Forgets all that was added; whether anything was.
    pub fn clear(&mut self) -> bool {
        self.aggregating.clear(self.key)
    }
}
