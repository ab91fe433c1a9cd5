//! Rolling `aggregate`: an [`AggregateFunction`] without a window; hands on the key with the new result after each record.

use rkyv::Archived;
use tidemill_engine::model::source::BoxError;
use tidemill_storage::{key::Key, record::Record, state::KeyView};

use super::{key::restore_key, rolling::Rolling};
use crate::aggregate::AggregateFunction;

/// An aggregate function per key.
#[derive(Clone)]
pub struct Aggregate<G>(pub G);

impl<K: Key, T: Record, G: AggregateFunction<T>> Rolling<K, T> for Aggregate<G> {
    type Accumulator = G::Accumulator;
    type Value = G::Output;
    type Output = (K, G::Output);

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
    fn value(&self, accumulator: &G::Accumulator) -> G::Output {
        self.0.result(accumulator)
    }

    #[inline(always)]
    fn output(&self, key: KeyView<'_>, value: G::Output) -> Result<(K, G::Output), BoxError> {
        Ok((restore_key(key)?, value))
    }
}
