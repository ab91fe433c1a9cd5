//! Iterators as sources.

use std::sync::{Mutex, PoisonError};

use tidemill_engine::{
    model::source::{BoxError, Flow, Output, Polled, Reader, Source, SubtaskContext},
    platform::Nanos,
};

use super::error::SourceError;

/// Emits what one iterator yields, in subtask 0; the other subtasks end at once. The iterator runs on a data
/// core: it must not block.
pub struct IteratorSource<I>(Mutex<Option<I>>);

/// A source of one iterator, read by subtask 0.
///
/// ```
/// let evens = tidemill_operators::source::from_iter((0..).step_by(2).take(1000));
/// # drop(evens);
/// ```
pub fn from_iter<I>(items: impl IntoIterator<IntoIter = I>) -> IteratorSource<I>
where
    I: Iterator + Send + 'static,
{
    IteratorSource(Mutex::new(Some(items.into_iter())))
}

impl<I> Source for IteratorSource<I>
where
    I: Iterator<Item: 'static> + Send + 'static,
{
    type Item = I::Item;
    type Split = ();
    type Reader = IteratorReader<I>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![()])
    }

    fn open(&self, context: &SubtaskContext, _splits: Vec<()>) -> Result<Self::Reader, BoxError> {
        if context.subtask != 0 {
            return Ok(IteratorReader { items: None });
        }
        let items = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let missing = SourceError::NoShare { source_name: "IteratorSource", subtask: 0 };
        Ok(IteratorReader::new(items.ok_or(missing)?))
    }
}

/// Emits what one iterator per subtask yields.
pub struct ParallelIteratorSource<F>(F);

/// A source of one iterator per subtask: `make` gets the subtask's index and the parallelism. The iterators
/// run on data cores: they must not block.
///
/// ```
/// // The numbers below a million, dealt over the subtasks.
/// let numbers = tidemill_operators::source::from_parallel_iter(|subtask, parallelism| {
///     (subtask as u64..1_000_000).step_by(parallelism)
/// });
/// # drop(numbers);
/// ```
pub fn from_parallel_iter<F, I>(make: F) -> ParallelIteratorSource<F>
where
    F: Fn(usize, usize) -> I + Send + Sync + 'static,
    I: Iterator<Item: 'static> + 'static,
{
    ParallelIteratorSource(make)
}

impl<F, I> Source for ParallelIteratorSource<F>
where
    F: Fn(usize, usize) -> I + Send + Sync + 'static,
    I: Iterator<Item: 'static> + 'static,
{
    type Item = I::Item;
    type Split = ();
    type Reader = IteratorReader<I>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![()])
    }

    fn open(&self, context: &SubtaskContext, _splits: Vec<()>) -> Result<Self::Reader, BoxError> {
        Ok(IteratorReader::new((self.0)(context.subtask, context.parallelism)))
    }
}

/// Reads an iterator, or nothing.
pub struct IteratorReader<I> {
    items: Option<I>,
}

impl<I> IteratorReader<I> {
    pub(super) fn new(items: I) -> Self {
        Self { items: Some(items) }
    }
}

impl<I: Iterator<Item: 'static> + 'static> Reader for IteratorReader<I> {
    type Item = I::Item;
    type Split = ();

    fn position(&self, _split: usize) {}

    fn splits(&self) -> usize {
        usize::from(self.items.is_some())
    }

    #[inline]
    fn poll<O: Output<I::Item>>(&mut self, output: &mut O, _now: Nanos) -> Result<Polled, BoxError> {
        let Some(items) = self.items.take() else { return Ok(Polled::End) };
        let (items, flow) = output.emit_all(0, items);
        if flow == Flow::Yield {
            self.items = Some(items);
            return Ok(Polled::More);
        }
        output.finish_split(0);
        // It is dropped now, since it may hold more than its items; `splits` was asked before the first poll.
        Ok(Polled::End)
    }
}
