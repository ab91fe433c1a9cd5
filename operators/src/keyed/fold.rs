//! Rolling `fold`: adds each record to the value of its key and hands on the key with the new value.

use std::marker::PhantomData;

use rkyv::Archived;
use tidemill_engine::model::source::BoxError;
use tidemill_storage::{key::Key, record::Record, state::KeyView};

use super::{key::restore_key, rolling::Rolling};

/// An initial value and a function that adds a record to it.
pub struct Fold<K, A, F> {
    initial: A,
    function: F,
    key: PhantomData<fn() -> K>,
}

impl<K, A, F> Fold<K, A, F> {
    /// Begins with `initial` for each key.
    pub fn new(initial: A, function: F) -> Self {
        Self { initial, function, key: PhantomData }
    }
}

impl<K, A: Clone, F: Clone> Clone for Fold<K, A, F> {
    fn clone(&self) -> Self {
        Self::new(self.initial.clone(), self.function.clone())
    }
}

impl<K, T, A, F> Rolling<T> for Fold<K, A, F>
where
    K: Key,
    T: Record,
    A: Record + Clone,
    F: Fn(&mut A, &Archived<T>) + Clone + Send + 'static,
{
    type Accumulator = A;
    type Value = A;
    type Output = (K, A);

    fn create(&self) -> A {
        self.initial.clone()
    }

    #[inline(always)]
    fn add(&self, accumulator: &mut A, record: &Archived<T>) {
        (self.function)(accumulator, record);
    }

    #[inline(always)]
    fn value(&self, accumulator: &A) -> A {
        accumulator.clone()
    }

    #[inline(always)]
    fn output(&self, key: KeyView<'_>, value: A) -> Result<(K, A), BoxError> {
        Ok((restore_key(key)?, value))
    }
}
