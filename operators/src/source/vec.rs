//! A vector as a source: for tests, examples and small inputs.

use std::sync::{Mutex, PoisonError};

use tidemill_engine::model::source::{BoxError, Source, SubtaskContext};

use super::{error::SourceError, iterator::IteratorReader};

/// Emits the items of a vector; at parallelism n, subtask i emits the i-th of n contiguous shares.
pub struct VecSource<T> {
    items: Vec<T>,
    shares: Mutex<Vec<Option<Vec<T>>>>,
}

/// A source of the items of a vector.
///
/// ```
/// let numbers = tidemill_operators::source::from_vec(vec![1, 2, 3]);
/// # drop(numbers);
/// ```
pub fn from_vec<T: Send + 'static>(items: Vec<T>) -> VecSource<T> {
    VecSource { items, shares: Mutex::new(Vec::new()) }
}

impl<T: Send + Sync + 'static> Source for VecSource<T> {
    type Item = T;
    type Split = ();
    type Reader = IteratorReader<std::vec::IntoIter<T>>;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        let mut items = std::mem::take(&mut self.items);
        let mut shares = Vec::with_capacity(parallelism);
        for subtasks_left in (1..=parallelism).rev() {
            // Cut from the end: each share is moved once.
            let size = items.len() / subtasks_left;
            shares.push(Some(items.split_off(items.len() - size)));
        }
        shares.reverse();
        *self.shares.get_mut().unwrap_or_else(PoisonError::into_inner) = shares;
        Ok(())
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![()])
    }

    fn open(&self, context: &SubtaskContext, _splits: Vec<()>) -> Result<Self::Reader, BoxError> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let share = shares.get_mut(context.subtask).and_then(Option::take);
        let missing = SourceError::NoShare { source_name: "VecSource", subtask: context.subtask };
        Ok(IteratorReader::new(share.ok_or(missing)?.into_iter()))
    }
}
