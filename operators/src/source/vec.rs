//! A vector as a source: for tests, examples and small inputs.

use std::{ops::Range, sync::Arc};

use tidemill_engine::model::source::{BoxError, Source, SubtaskContext};
use tidemill_storage::Record;

use super::{
    error::SourceError,
    iterator::{Counted, IteratorReader},
};

/// Emits the items of a vector; at parallelism n, subtask i emits the i-th of n contiguous shares.
pub struct VecSource<T> {
    items: Arc<Vec<T>>,
}

/// A source of the items of a vector. Each is cloned on its way: the vector stays whole for a job that starts again.
///
/// ```
/// let numbers = tidemill_operators::source::from_vec(vec![1, 2, 3]);
/// # drop(numbers);
/// ```
pub fn from_vec<T: Clone + Send + Sync + 'static>(items: Vec<T>) -> VecSource<T> {
    VecSource { items: Arc::new(items) }
}

/// The items of a vector from one place up to another.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
pub struct VecSplit {
    from: u64,
    to: u64,
}

impl Counted for VecSplit {
    fn pass(&mut self, records: u64) {
        self.from += records;
    }
}

impl<T: Clone + Send + Sync + 'static> Source for VecSource<T> {
    type Item = T;
    type Split = VecSplit;
    type Reader = IteratorReader<VecItems<T>, VecSplit>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, context: &SubtaskContext) -> Result<Vec<VecSplit>, BoxError> {
        let (items, parallelism) = (self.items.len() as u128, context.parallelism as u128);
        let cut = |subtask: usize| (items * subtask as u128 / parallelism) as u64;
        Ok(vec![VecSplit { from: cut(context.subtask), to: cut(context.subtask + 1) }])
    }

    fn open(&self, _: &SubtaskContext, splits: Vec<VecSplit>) -> Result<Self::Reader, BoxError> {
        let items = self.items.len() as u64;
        if let Some(VecSplit { from, to }) = splits.iter().find(|split| split.to > items) {
            return Err(SourceError::ShorterVector { items, from: *from, to: *to }.into());
        }
        Ok(IteratorReader::of(splits, |split| VecItems {
            items: Arc::clone(&self.items),
            range: split.from as usize..split.to as usize,
        }))
    }
}

/// Clones of some items of a vector.
pub struct VecItems<T> {
    items: Arc<Vec<T>>,
    range: Range<usize>,
}

impl<T: Clone> Iterator for VecItems<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.range.next().map(|at| self.items[at].clone())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}
