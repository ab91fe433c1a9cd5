//! What is computed in a window: [`aggregate`](AggregateWindow), [`reduce`](ReduceWindow) and [`apply`](ApplyWindow).

use std::{marker::PhantomData, ops::Range};

use rkyv::Archived;
use tidemill_engine::{
    model::{item::Owned, operator::Push},
    runtime::exchange::batch::Batch,
};
use tidemill_storage::{
    key::Key,
    record::{Record, restore, with_value},
    state::{KeyedTable, Slice, StateBackend, StateError, StateId, StateName},
};

use super::{
    accumulator::WindowAccumulator,
    assigner::TimeWindow,
    pane::{Outlet, WindowFunction},
};
use crate::aggregate::AggregateFunction;

/// A result of one window for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowResult<K, V> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: TimeWindow,
    /// What was computed.
    pub value: V,
}

/// An [`AggregateFunction`] per window.
#[derive(Clone)]
pub struct AggregateWindow<G>(pub G);

impl<K: Key, T: Record, G: AggregateFunction<T>> WindowAccumulator<K, T> for AggregateWindow<G> {
    type Accumulator = G::Accumulator;
    type Output = WindowResult<K, G::Output>;

    #[inline(always)]
    fn first(&self, record: &Archived<T>) -> G::Accumulator {
        let mut accumulator = self.0.create();
        self.0.add(&mut accumulator, record);
        accumulator
    }

    #[inline(always)]
    fn add(&self, accumulator: &mut G::Accumulator, record: &Archived<T>) {
        self.0.add(accumulator, record);
    }

    #[inline(always)]
    fn merge(&self, into: &mut G::Accumulator, other: &G::Accumulator) {
        self.0.merge(into, other);
    }

    #[inline(always)]
    fn result(&self, key: K, window: TimeWindow, accumulator: &G::Accumulator) -> Self::Output {
        WindowResult { key, window, value: self.0.result(accumulator) }
    }
}

/// A function that combines two records, per window.
pub struct ReduceWindow<T, F> {
    function: F,
    records: PhantomData<fn() -> T>,
}

impl<T, F> ReduceWindow<T, F> {
    /// With this function of the result so far and a record.
    pub fn new(function: F) -> Self {
        Self { function, records: PhantomData }
    }
}

impl<T, F: Clone> Clone for ReduceWindow<T, F> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<K, T, F> WindowAccumulator<K, T> for ReduceWindow<T, F>
where
    K: Key,
    T: Record + Clone,
    F: Fn(T, &T) -> T + Clone + Send + 'static,
{
    /// The result so far.
    type Accumulator = T;
    type Output = WindowResult<K, T>;

    #[inline(always)]
    fn first(&self, record: &Archived<T>) -> T {
        restore(record)
    }

    #[inline(always)]
    fn add(&self, result: &mut T, record: &Archived<T>) {
        with_value::<T, _>(record, |record| *result = (self.function)(result.clone(), record));
    }

    #[inline(always)]
    fn merge(&self, into: &mut T, other: &T) {
        *into = (self.function)(into.clone(), other);
    }

    #[inline(always)]
    fn result(&self, key: K, window: TimeWindow, result: &T) -> Self::Output {
        WindowResult { key, window, value: result.clone() }
    }
}

/// A function of all records of a window, kept until it fires.
pub struct ApplyWindow<T, F, O> {
    function: F,
    types: PhantomData<fn() -> (T, O)>,
}

impl<T, F, O> ApplyWindow<T, F, O> {
    /// With this function of the key, the window and its records, in the order of slices and within one of arrival.
    pub fn new(function: F) -> Self {
        Self { function, types: PhantomData }
    }
}

impl<T, F: Clone, O> Clone for ApplyWindow<T, F, O> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<K, T, F, O> WindowFunction<K, T> for ApplyWindow<T, F, O>
where
    K: Key,
    T: Record + Clone,
    F: Fn(K, TimeWindow, &[T]) -> O + Clone + Send + 'static,
    O: IntoIterator<Item: 'static> + 'static,
{
    type Output = O::Item;
    type Pane<B: StateBackend> = B::Table<K, Vec<T>>;

    fn open<B: StateBackend>(&self, backend: &mut B, name: StateName) -> Result<StateId, StateError> {
        backend.open::<K, Vec<T>>(name, Vec::new())
    }

    fn pane<B: StateBackend>(&self, backend: &mut B, state: StateId, slice: Slice) -> Self::Pane<B> {
        backend.table::<K, Vec<T>>(state, slice)
    }

    fn add<B: StateBackend>(&self, pane: &mut Self::Pane<B>, batch: &Batch<T>, range: Range<usize>) {
        pane.update_batch(
            batch,
            range,
            |_| Vec::new(),
            |i, records| records.push(restore(&batch.records()[i])),
        );
    }

    fn merge<B: StateBackend>(
        &self,
        into: &mut Self::Pane<B>,
        slice: &mut Self::Pane<B>,
        cursor: usize,
    ) -> Option<usize> {
        slice.scan(cursor, |key, records| {
            into.update(key, Vec::new, |all| all.extend(restore::<Vec<T>>(records)));
            true
        })
    }

    fn emit<B: StateBackend, D: Push<Owned<O::Item>>>(
        &self,
        pane: &mut Self::Pane<B>,
        cursor: usize,
        outlet: &mut Outlet<'_, D>,
    ) -> Option<usize> {
        pane.scan(cursor, |key, records| {
            outlet.of_key(key, |outlet, key| {
                let results = (self.function)(key, outlet.window, &restore::<Vec<T>>(records));
                results.into_iter().for_each(|result| outlet.push(result));
            })
        })
    }

    fn relieve<B: StateBackend>(&self, pane: &mut Self::Pane<B>) {
        pane.relieve();
    }
}
