//! The states of a process function: opened once by [`StateRegistry`], then named by small handles that can be copied.
//!
//! A handle is a place among the function's states. It knows their type, so a mix-up is refused by the compiler unless a
//! handle gets from one function into another; that is a bug and panics.

use std::{any::Any, marker::PhantomData};

use tidemill_storage::{
    key::Key,
    kinds::{list, map, timers::Timers, value},
    record::Record,
    state::{KeyedTable, StateError, StateName},
};

use crate::backend::JobBackend;

/// A state of one value per key.
pub struct ValueState<V>(Place<V>);
/// A state of elements in order, per key.
pub struct ListState<T>(Place<T>);
/// A state of values by map keys, per key.
pub struct MapState<M, V>(Place<(M, V)>);
/// A place among the states of a function.
struct Place<S> {
    index: usize,
    types: PhantomData<fn() -> S>,
}

macro_rules! handles {
    ($($handle:ident<$($type:ident),+>)*) => {$(
        impl<$($type),+> Clone for $handle<$($type),+> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<$($type),+> Copy for $handle<$($type),+> {}

        impl<$($type),+> $handle<$($type),+> {
            fn at(index: usize) -> Self {
                Self(Place { index, types: PhantomData })
            }
        }
    )*};
}

impl<S> Clone for Place<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Place<S> {}

handles! { ValueState<V> ListState<T> MapState<M, V> }

pub(super) type Value<K, V> = value::ValueState<K, V, JobBackend>;
pub(super) type List<K, T> = list::ListState<K, T, JobBackend>;
pub(super) type Map<K, M, V> = map::MapState<K, M, V, JobBackend>;
/// A state without its type.
trait Opened: Any {
    fn relieve(&mut self);
}

macro_rules! opened {
    ($($state:ident<$($type:ident: $bound:ident),+>, $one:ident => $relieve:expr;)*) => {$(
        impl<$($type: $bound),+> Opened for $state<$($type),+> {
            fn relieve(&mut self) {
                let $one = self;
                $relieve;
            }
        }
    )*};
}

opened! {
    Value<K: Key, V: Record>, state => state.table().relieve();
    List<K: Key, T: Record>, state => state.relieve();
    Map<K: Key, M: Key, V: Record>, state => state.relieve();
}

/// Opens the states of a process function, each under a stable name.
///
/// What cannot be opened (a name that is taken, a state that was stored with another type) keeps the job from starting.
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
    pub fn value<V: Record>(&mut self, name: &str) -> ValueState<V> {
        ValueState::at(self.open(name, |backend, name| Value::<K, V>::open(backend, name, Vec::new())))
    }

    /// Opens a state of elements in order, per key.
    pub fn list<T: Record>(&mut self, name: &str) -> ListState<T> {
        ListState::at(self.open(name, |backend, name| List::<K, T>::open(backend, name, Vec::new())))
    }

    /// Opens a state of values by map keys, per key.
    pub fn map<M: Key, V: Record>(&mut self, name: &str) -> MapState<M, V> {
        MapState::at(self.open(name, |backend, name| Map::<K, M, V>::open(backend, name, Vec::new())))
    }

    fn open<S: Opened>(
        &mut self,
        name: &str,
        open: impl FnOnce(&mut JobBackend, StateName) -> Result<S, StateError>,
    ) -> usize {
        match open(&mut self.backend, StateName::new(self.operator.as_str(), name)) {
            Ok(state) => self.states.push(Box::new(state)),
            Err(error) => drop(self.refused.get_or_insert(error)),
        }
        self.states.len().saturating_sub(1)
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

    /// Lets all states give memory back.
    pub(super) fn relieve(&mut self) {
        self.states.iter_mut().for_each(|state| state.relieve());
    }

    #[inline]
    pub(super) fn value_mut<V: Record>(&mut self, state: ValueState<V>) -> &mut Value<K, V> {
        self.state(state.0.index)
    }

    pub(super) fn list_mut<T: Record>(&mut self, state: ListState<T>) -> &mut List<K, T> {
        self.state(state.0.index)
    }

    pub(super) fn map_mut<M: Key, V: Record>(&mut self, state: MapState<M, V>) -> &mut Map<K, M, V> {
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
