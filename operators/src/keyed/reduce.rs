//! Rolling `reduce`: combines each record with the result for its key so far and hands on the new result.

use rkyv::Archived;
use tidemill_engine::model::source::BoxError;
use tidemill_storage::{
    key::Key,
    record::{Record, restore},
    state::KeyView,
};

use super::rolling::Rolling;

/// A function of the result so far and a record.
#[derive(Clone)]
pub struct Reduce<F>(pub F);

impl<K, T, F> Rolling<K, T> for Reduce<F>
where
    K: Key,
    T: Record + Clone,
    F: Fn(T, &Archived<T>) -> T + Clone + Send + 'static,
{
    /// The result so far.
    type Accumulator = T;
    type Value = T;
    type Output = T;

    #[inline(always)]
    fn first(&self, record: &Archived<T>) -> T {
        restore(record)
    }

    #[inline(always)]
    fn add(&self, result: &mut T, record: &Archived<T>) {
        // The function takes the result by value. A copy is what there is: an `Option` to take it out of would be stored,
        // too, and would keep plain records from being updated in place.
        *result = (self.0)(result.clone(), record);
    }

    #[inline(always)]
    fn value(&self, result: &T) -> T {
        result.clone()
    }

    #[inline(always)]
    fn output(&self, _key: KeyView<'_>, result: T) -> Result<T, BoxError> {
        Ok(result)
    }
}
