//! What is computed in a window from one value per key: [`aggregate`](AggregateWindow) and [`reduce`](ReduceWindow).

use std::marker::PhantomData;

use rkyv::Archived;
use tidemill_storage::{
    key::Key,
    record::{Record, restore, with_value},
};

use super::{accumulator::WindowAccumulator, assigner::TimeWindow};
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
