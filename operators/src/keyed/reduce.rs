//! Rolling `reduce`: combines each record with the result for its key so far and hands on the new result.

use rkyv::Archived;
use tidemill_engine::model::source::BoxError;
use tidemill_storage::{
    record::{Record, restore},
    state::KeyView,
};

use super::rolling::Rolling;

/// A function of the result so far and a record.
#[derive(Clone)]
pub struct Reduce<F>(pub F);

impl<T, F> Rolling<T> for Reduce<F>
where
    T: Record + Clone,
    F: Fn(T, &Archived<T>) -> T + Clone + Send + 'static,
{
    /// The result so far; none before the first record.
    type Accumulator = Option<T>;
    type Value = Option<T>;
    type Output = T;

    fn create(&self) -> Option<T> {
        None
    }

    #[inline(always)]
    fn add(&self, result: &mut Option<T>, record: &Archived<T>) {
        *result = Some(match result.take() {
            Some(result) => (self.0)(result, record),
            None => restore(record),
        });
    }

    #[inline(always)]
    fn value(&self, result: &Option<T>) -> Option<T> {
        result.clone()
    }

    #[inline(always)]
    fn output(&self, _key: KeyView<'_>, result: Option<T>) -> Result<T, BoxError> {
        result.ok_or_else(|| "a result was asked for before the first record".into())
    }
}
