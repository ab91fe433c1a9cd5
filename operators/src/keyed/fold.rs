//! Rolling `fold`: adds each record to the value of its key and hands on the key with the new value.

use rkyv::Archived;
use tidemill_engine::model::source::BoxError;
use tidemill_storage::{key::Key, record::Record, state::KeyView};

use super::{key::restore_key, rolling::Rolling};

/// An initial value and a function that adds a record to it.
#[derive(Clone)]
pub struct Fold<A, F> {
    initial: A,
    function: F,
}

impl<A, F> Fold<A, F> {
    /// Begins with `initial` for each key.
    pub fn new(initial: A, function: F) -> Self {
        Self { initial, function }
    }
}

impl<K, T, A, F> Rolling<K, T> for Fold<A, F>
where
    K: Key,
    T: Record,
    A: Record + Clone,
    F: Fn(&mut A, &Archived<T>) + Clone + Send + 'static,
{
    type Accumulator = A;
    type Value = A;
    type Output = (K, A);

    #[inline(always)]
    fn first(&self, record: &Archived<T>) -> A {
        let mut value = self.initial.clone();
        (self.function)(&mut value, record);
        value
    }

    #[inline(always)]
    fn add(&self, value: &mut A, record: &Archived<T>) {
        (self.function)(value, record);
    }

    #[inline(always)]
    fn value(&self, value: &A) -> A {
        value.clone()
    }

    #[inline(always)]
    fn output(&self, key: KeyView<'_>, value: A) -> Result<(K, A), BoxError> {
        Ok((restore_key(key)?, value))
    }
}
