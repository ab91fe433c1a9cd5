//! [`Combined`]: windows over what [`Combine`](super::combine::Combine) hands on.

use std::marker::PhantomData;

use rkyv::Archived;
use tidemill_storage::{
    key::Key,
    record::{Record, restore, with_value},
};

use super::{accumulator::WindowAccumulator, assigner::TimeWindow};

/// What `A` computes of records `T`, from accumulators of such records.
pub struct Combined<A, T> {
    of_records: A,
    records: PhantomData<fn() -> T>,
}

impl<A, T> Combined<A, T> {
    /// With the function of the records themselves.
    pub fn new(of_records: A) -> Self {
        Self { of_records, records: PhantomData }
    }
}

impl<A: Clone, T> Clone for Combined<A, T> {
    fn clone(&self) -> Self {
        Self::new(self.of_records.clone())
    }
}

impl<K: Key, T: Record, A: WindowAccumulator<K, T>> WindowAccumulator<K, A::Accumulator> for Combined<A, T> {
    type Accumulator = A::Accumulator;
    type Output = A::Output;

    #[inline(always)]
    fn first(&self, part: &Archived<A::Accumulator>) -> A::Accumulator {
        restore::<A::Accumulator>(part)
    }

    #[inline(always)]
    fn add(&self, accumulator: &mut A::Accumulator, part: &Archived<A::Accumulator>) {
        with_value::<A::Accumulator, _>(part, |part| self.of_records.merge(accumulator, part));
    }

    #[inline(always)]
    fn merge(&self, into: &mut A::Accumulator, other: &A::Accumulator) {
        self.of_records.merge(into, other);
    }

    #[inline(always)]
    fn result(&self, key: K, window: TimeWindow, accumulator: &A::Accumulator) -> A::Output {
        self.of_records.result(key, window, accumulator)
    }
}
