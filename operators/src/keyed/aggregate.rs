//! Rolling `aggregate`: an [`AggregateFunction`] without a window; hands on the key with the new result after each record.

use std::marker::PhantomData;

use rkyv::Archived;
use tidemill_engine::model::source::BoxError;
use tidemill_storage::{key::Key, record::Record, state::KeyView};

use super::{key::restore_key, rolling::Rolling};
use crate::aggregate::AggregateFunction;

/// An aggregate function per key.
pub struct Aggregate<K, G> {
    function: G,
    key: PhantomData<fn() -> K>,
}

impl<K, G> Aggregate<K, G> {
    /// Aggregates with `function`.
    pub fn new(function: G) -> Self {
        Self { function, key: PhantomData }
    }
}

impl<K, G: Clone> Clone for Aggregate<K, G> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<K: Key, T: Record, G: AggregateFunction<T>> Rolling<T> for Aggregate<K, G> {
    type Accumulator = G::Accumulator;
    type Value = G::Output;
    type Output = (K, G::Output);

    fn create(&self) -> G::Accumulator {
        self.function.create()
    }

    #[inline(always)]
    fn add(&self, accumulator: &mut G::Accumulator, record: &Archived<T>) {
        self.function.add(accumulator, record);
    }

    #[inline(always)]
    fn value(&self, accumulator: &G::Accumulator) -> G::Output {
        self.function.result(accumulator)
    }

    #[inline(always)]
    fn output(&self, key: KeyView<'_>, value: G::Output) -> Result<(K, G::Output), BoxError> {
        Ok((restore_key(key)?, value))
    }
}
