//! What is computed in a window: [`aggregate`](AggregateWindow), [`reduce`](ReduceWindow) and [`apply`](ApplyWindow)
//! as one contract for the operator.

use std::marker::PhantomData;

use rkyv::Archived;
use tidemill_storage::{
    key::Key,
    record::{Record, restore},
};

use super::assigner::TimeWindow;
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

/// What the window operator does with records and accumulators.
pub trait WindowFunction<K: Key, T: Record>: Clone + Send + 'static {
    /// What is kept per key and slice.
    type Accumulator: Record + Clone;
    /// What a fired window hands on.
    type Output: 'static;

    /// The accumulator of no records.
    fn create(&self) -> Self::Accumulator;
    /// Adds a record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: &Archived<T>);
    /// Adds another slice's accumulator.
    fn merge(&self, into: &mut Self::Accumulator, other: &Self::Accumulator);
    /// Hands on what the window has come to.
    fn emit(
        &self,
        key: K,
        window: TimeWindow,
        accumulator: &Self::Accumulator,
        push: impl FnMut(Self::Output),
    );
}

/// An [`AggregateFunction`] per window.
#[derive(Clone)]
pub struct AggregateWindow<G>(pub G);

impl<K: Key, T: Record, G: AggregateFunction<T>> WindowFunction<K, T> for AggregateWindow<G> {
    type Accumulator = G::Accumulator;
    type Output = WindowResult<K, G::Output>;

    #[inline(always)]
    fn create(&self) -> G::Accumulator {
        self.0.create()
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
    fn emit(
        &self,
        key: K,
        window: TimeWindow,
        accumulator: &G::Accumulator,
        mut push: impl FnMut(Self::Output),
    ) {
        push(WindowResult { key, window, value: self.0.result(accumulator) });
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

impl<K, T, F> WindowFunction<K, T> for ReduceWindow<T, F>
where
    K: Key,
    T: Record + Clone,
    F: Fn(T, &T) -> T + Clone + Send + 'static,
{
    type Accumulator = Option<T>;
    type Output = WindowResult<K, T>;

    fn create(&self) -> Option<T> {
        None
    }

    fn add(&self, accumulator: &mut Option<T>, record: &Archived<T>) {
        self.combine(accumulator, restore(record));
    }

    fn merge(&self, into: &mut Option<T>, other: &Option<T>) {
        if let Some(other) = other {
            self.combine(into, other.clone());
        }
    }

    fn emit(&self, key: K, window: TimeWindow, accumulator: &Option<T>, mut push: impl FnMut(Self::Output)) {
        if let Some(value) = accumulator.clone() {
            push(WindowResult { key, window, value });
        }
    }
}

impl<T, F: Fn(T, &T) -> T> ReduceWindow<T, F> {
    fn combine(&self, accumulator: &mut Option<T>, record: T) {
        *accumulator = Some(match accumulator.take() {
            Some(result) => (self.function)(result, &record),
            None => record,
        });
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
    type Accumulator = Vec<T>;
    type Output = O::Item;

    fn create(&self) -> Vec<T> {
        Vec::new()
    }

    fn add(&self, records: &mut Vec<T>, record: &Archived<T>) {
        records.push(restore(record));
    }

    fn merge(&self, into: &mut Vec<T>, other: &Vec<T>) {
        into.extend_from_slice(other);
    }

    fn emit(&self, key: K, window: TimeWindow, records: &Vec<T>, push: impl FnMut(O::Item)) {
        (self.function)(key, window, records).into_iter().for_each(push);
    }
}
