//! The states of a process function: opened once by [`StateRegistry`], then named by small handles that can be copied.
//!
//! A handle is a place among the function's states. It knows their type, so a mix-up is refused by the compiler unless a
//! handle gets from one function into another; that is a bug and panics.

use std::{any::Any, marker::PhantomData};

use tidemill_engine::model::{
    checkpoint::Barrier,
    operator::{OperatorIndex, StepContext},
};
use tidemill_storage::{
    key::Key,
    kinds::{
        aggregating::{self, Aggregate},
        descriptor::{AggregatingStateDescriptor, ReducingStateDescriptor},
        reducing,
        timers::Timers,
    },
    log::seal::Sealed,
    record::Record,
    state::{StateError, StateName},
};

use super::{
    describe::Describe,
    expiring::{Lists, Maps, Values},
};
use crate::backend::JobBackend;

/// A state of one value per key.
pub struct ValueState<V>(Place<V>);
/// A state of elements in order, per key.
pub struct ListState<T>(Place<T>);
/// A state of values by map keys, per key.
pub struct MapState<M, V>(Place<(M, V)>);
/// A state of one value per key, into which each that is added is combined.
pub struct ReducingState<V>(Place<V>);
/// A state of one accumulator per key.
pub struct AggregatingState<A>(Place<A>);

/// A place among the states of a function.
struct Place<S> {
    index: usize,
    types: PhantomData<fn() -> S>,
}

impl<S> Place<S> {
    fn at(index: usize) -> Self {
        Self { index, types: PhantomData }
    }
}

impl<S> Clone for Place<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Place<S> {}

macro_rules! handles {
    ($($handle:ident<$($type:ident),+>)*) => {$(
        impl<$($type),+> Clone for $handle<$($type),+> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<$($type),+> Copy for $handle<$($type),+> {}
    )*};
}

handles! { ValueState<V> ListState<T> MapState<M, V> ReducingState<V> AggregatingState<A> }

pub(super) type Reducing<K, V> = reducing::ReducingState<K, V, JobBackend, Box<dyn Fn(&V, &V) -> V>>;
pub(super) type Aggregating<K, A> = aggregating::AggregatingState<K, A, JobBackend>;

/// A state without its type.
trait Opened: Any {
    /// Lets memory go, and looks at some keys for what has expired.
    fn tidy(&mut self, now: i64, keys_max: usize);

    /// Hands over what changed since the last seal.
    fn seal(&mut self, sealed: &mut Sealed);
}

impl<K: Key, V: Record> Opened for Values<K, V> {
    fn tidy(&mut self, now: i64, keys_max: usize) {
        Values::tidy(self, now, keys_max);
    }

    fn seal(&mut self, sealed: &mut Sealed) {
        Values::seal(self, sealed);
    }
}

impl<K: Key, T: Record> Opened for Lists<K, T> {
    fn tidy(&mut self, now: i64, keys_max: usize) {
        Lists::tidy(self, now, keys_max);
    }

    fn seal(&mut self, sealed: &mut Sealed) {
        Lists::seal(self, sealed);
    }
}

impl<K: Key, M: Key, V: Record> Opened for Maps<K, M, V> {
    fn tidy(&mut self, now: i64, keys_max: usize) {
        Maps::tidy(self, now, keys_max);
    }

    fn seal(&mut self, sealed: &mut Sealed) {
        Maps::seal(self, sealed);
    }
}

impl<K: Key, V: Record> Opened for Reducing<K, V> {
    fn tidy(&mut self, _now: i64, _keys_max: usize) {
        self.relieve();
    }

    fn seal(&mut self, sealed: &mut Sealed) {
        Self::seal(self, sealed);
    }
}

impl<K: Key, A: Aggregate> Opened for Aggregating<K, A> {
    fn tidy(&mut self, _now: i64, _keys_max: usize) {
        self.relieve();
    }

    fn seal(&mut self, sealed: &mut Sealed) {
        Self::seal(self, sealed);
    }
}

/// Opens the states of a process function, each under a stable name.
///
/// Where no more than a name is to be said, the name is enough; a descriptor adds a time to live or reads what was stored as
/// another type. What cannot be opened (a name that is taken, a state that was stored with another type) keeps the job from
/// starting.
pub struct StateRegistry<K> {
    /// The operator's stable id.
    operator: String,
    backend: JobBackend,
    states: Vec<Box<dyn Opened>>,
    /// Why the first state that could not be opened could not.
    refused: Option<StateError>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key> StateRegistry<K> {
    pub(super) fn new(operator: &str, backend: JobBackend) -> Self {
        Self { operator: operator.to_owned(), backend, states: Vec::new(), refused: None, key: PhantomData }
    }

    /// Opens a state of one value per key.
    pub fn value<V: Record>(
        &mut self,
        state: impl Describe<ValueState<V>, State<K> = Values<K, V>>,
    ) -> ValueState<V> {
        ValueState(self.open(|backend, operator| state.open::<K>(backend, operator)))
    }

    /// Opens a state of elements in order, per key.
    pub fn list<T: Record>(
        &mut self,
        state: impl Describe<ListState<T>, State<K> = Lists<K, T>>,
    ) -> ListState<T> {
        ListState(self.open(|backend, operator| state.open::<K>(backend, operator)))
    }

    /// Opens a state of values by map keys, per key.
    pub fn map<M: Key, V: Record>(
        &mut self,
        state: impl Describe<MapState<M, V>, State<K> = Maps<K, M, V>>,
    ) -> MapState<M, V> {
        MapState(self.open(|backend, operator| state.open::<K>(backend, operator)))
    }

    /// Opens a state of one value per key, into which `reduce(value so far, value added)` combines each that is added.
    pub fn reducing<V: Record>(
        &mut self,
        name: &str,
        reduce: impl Fn(&V, &V) -> V + 'static,
    ) -> ReducingState<V> {
        let reduce: Box<dyn Fn(&V, &V) -> V> = Box::new(reduce);
        self.reducing_of(ReducingStateDescriptor::new(name, reduce))
    }

    /// As [`reducing`](Self::reducing), described.
    pub fn reducing_of<V: Record>(
        &mut self,
        state: ReducingStateDescriptor<V, Box<dyn Fn(&V, &V) -> V>>,
    ) -> ReducingState<V> {
        ReducingState(self.open(|backend, operator| state.open::<K, _>(backend, operator)))
    }

    /// Opens a state of one accumulator per key.
    pub fn aggregating<A: Aggregate>(&mut self, name: &str, aggregate: A) -> AggregatingState<A> {
        self.aggregating_of(AggregatingStateDescriptor::new(name, aggregate))
    }

    /// As [`aggregating`](Self::aggregating), described.
    pub fn aggregating_of<A: Aggregate>(
        &mut self,
        state: AggregatingStateDescriptor<A>,
    ) -> AggregatingState<A> {
        AggregatingState(self.open(|backend, operator| state.open::<K, _>(backend, operator)))
    }

    fn open<S: Opened, H>(
        &mut self,
        open: impl FnOnce(&mut JobBackend, &str) -> Result<S, StateError>,
    ) -> Place<H> {
        match open(&mut self.backend, &self.operator) {
            Ok(state) => self.states.push(Box::new(state)),
            Err(error) => drop(self.refused.get_or_insert(error)),
        }
        Place::at(self.states.len().saturating_sub(1))
    }

    /// Opens the timers of one kind.
    pub(super) fn timers(&mut self, name: &str) -> Result<Timers<K, JobBackend>, StateError> {
        Timers::open(&mut self.backend, StateName::new(self.operator.as_str(), name))
    }

    /// Why not all states could be opened.
    pub(super) fn take_refused(&mut self) -> Option<StateError> {
        self.refused.take()
    }

    pub(super) fn backend(&mut self) -> &mut JobBackend {
        &mut self.backend
    }

    /// Adds all states to a checkpoint, and what `seal_others` seals: what else is kept in the same backend.
    pub(super) fn snapshot(
        &mut self,
        operator: OperatorIndex,
        barrier: Barrier,
        context: &mut StepContext,
        seal_others: impl FnOnce(&mut Sealed),
    ) {
        let Self { backend, states, .. } = self;
        backend.snapshot(operator, barrier, context, |sealed| {
            states.iter_mut().for_each(|state| state.seal(sealed));
            seal_others(sealed);
        });
    }

    /// Lets all states give memory back, and looks at `keys_max` keys of each for what has expired.
    pub(super) fn tidy(&mut self, now: i64, keys_max: usize) {
        self.states.iter_mut().for_each(|state| state.tidy(now, keys_max));
    }

    #[inline]
    pub(super) fn values<V: Record>(&mut self, state: ValueState<V>) -> &mut Values<K, V> {
        self.state(state.0.index)
    }

    pub(super) fn lists<T: Record>(&mut self, state: ListState<T>) -> &mut Lists<K, T> {
        self.state(state.0.index)
    }

    pub(super) fn maps<M: Key, V: Record>(&mut self, state: MapState<M, V>) -> &mut Maps<K, M, V> {
        self.state(state.0.index)
    }

    pub(super) fn reduced<V: Record>(&mut self, state: ReducingState<V>) -> &mut Reducing<K, V> {
        self.state(state.0.index)
    }

    pub(super) fn aggregated<A: Aggregate>(&mut self, state: AggregatingState<A>) -> &mut Aggregating<K, A> {
        self.state(state.0.index)
    }

    #[inline]
    fn state<S: Opened>(&mut self, index: usize) -> &mut S {
        let state = self.states.get_mut(index).map(|state| &mut **state as &mut dyn Any);
        match state.and_then(|state| state.downcast_mut()) {
            Some(state) => state,
            None => unreachable!("a state handle was used in another function than the one that opened it"),
        }
    }
}
