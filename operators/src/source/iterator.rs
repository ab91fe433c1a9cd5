//! Iterators as sources.
//!
//! An iterator is read on by passing over what was taken of it before a restart: it must give the same items each time.

use std::sync::{Mutex, PoisonError};

use tidemill_engine::{
    model::source::{BoxError, Flow, Items, Output, Polled, Reader, Source, SubtaskContext},
    platform::Nanos,
};
use tidemill_storage::Record;

/// Emits what one iterator yields, in subtask 0; the other subtasks end at once. The iterator runs on a data
/// core: it must not block.
pub struct IteratorSource<I>(Mutex<I>);

/// A source of one iterator, read by subtask 0.
///
/// A job that starts again begins with a clone of it and passes over what it had taken, with [`Iterator::nth`]: the
/// iterator must give the same items each time. One that cannot be cloned is made anew by [`from_parallel_iter`].
///
/// ```
/// let evens = tidemill_operators::source::from_iter((0..).step_by(2).take(1000));
/// # drop(evens);
/// ```
pub fn from_iter<I>(items: impl IntoIterator<IntoIter = I>) -> IteratorSource<I>
where
    I: Iterator + Clone + Send + 'static,
{
    IteratorSource(Mutex::new(items.into_iter()))
}

impl<I> Source for IteratorSource<I>
where
    I: Iterator<Item: 'static> + Clone + Send + 'static,
{
    type Item = I::Item;
    type Split = IteratorSplit;
    type Reader = IteratorReader<I>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, context: &SubtaskContext) -> Result<Vec<IteratorSplit>, BoxError> {
        let whole = IteratorSplit { subtask: 0, parallelism: 1, taken: 0 };
        Ok(if context.subtask == 0 { vec![whole] } else { Vec::new() })
    }

    fn open(&self, _: &SubtaskContext, splits: Vec<IteratorSplit>) -> Result<Self::Reader, BoxError> {
        let items = || self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(IteratorReader::new(splits, |_| items()))
    }
}

/// Emits what one iterator per subtask yields.
pub struct ParallelIteratorSource<F>(F);

/// A source of one iterator per subtask: `make` gets the subtask's index and the parallelism. The iterators
/// run on data cores: they must not block.
///
/// A job that starts again makes the iterators again, with the index and the parallelism that they had when the job first
/// started, whatever its parallelism is now, and passes over what it had taken of each: `make` must give the same items
/// for the same numbers.
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
    type Split = IteratorSplit;
    type Reader = IteratorReader<I>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, context: &SubtaskContext) -> Result<Vec<IteratorSplit>, BoxError> {
        let (subtask, parallelism) = (context.subtask as u64, context.parallelism as u64);
        Ok(vec![IteratorSplit { subtask, parallelism, taken: 0 }])
    }

    fn open(&self, _: &SubtaskContext, splits: Vec<IteratorSplit>) -> Result<Self::Reader, BoxError> {
        Ok(IteratorReader::new(splits, |split| (self.0)(split.subtask as usize, split.parallelism as usize)))
    }
}

/// One iterator, and how much was taken of it.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
pub struct IteratorSplit {
    /// Of which subtask it is, in a job of this
    subtask: u64,
    /// parallelism.
    parallelism: u64,
    /// Items that were emitted.
    taken: u64,
}

/// A part of an iterator source, which can count.
pub trait Counted: Record + Copy {
    /// Counts records that were emitted.
    fn pass(&mut self, records: u64);
}

impl Counted for IteratorSplit {
    fn pass(&mut self, records: u64) {
        self.taken += records;
    }
}

/// Reads iterators, one after the other.
pub struct IteratorReader<I, P = IteratorSplit> {
    parts: Vec<(Option<Items<I>>, P)>,
    at: usize,
}

impl<I: Iterator> IteratorReader<I> {
    /// Reads each split on from where it stands.
    fn new(splits: Vec<IteratorSplit>, make: impl Fn(&IteratorSplit) -> I) -> Self {
        Self::of(splits, |split| {
            let mut items = make(split);
            if let Some(last) = split.taken.checked_sub(1) {
                items.nth(last as usize);
            }
            items
        })
    }
}

impl<I, P> IteratorReader<I, P> {
    /// Reads what `make` gives for each split.
    pub(super) fn of(splits: Vec<P>, make: impl Fn(&P) -> I) -> Self {
        Self { parts: splits.into_iter().map(|split| (Some(Items(make(&split))), split)).collect(), at: 0 }
    }
}

impl<I: Iterator<Item: 'static> + 'static, P: Counted> Reader for IteratorReader<I, P> {
    type Item = I::Item;
    type Split = P;

    fn splits(&self) -> usize {
        self.parts.len()
    }

    fn position(&self, split: usize) -> P {
        self.parts[split].1
    }

    fn reads_in_turn(&self) -> bool {
        true
    }

    #[inline]
    fn poll<O: Output<I::Item>>(&mut self, output: &mut O, _now: Nanos) -> Result<Polled, BoxError> {
        let Some((own, split)) = self.parts.get_mut(self.at) else { return Ok(Polled::End) };
        let Some(items) = own.take() else { return Ok(Polled::End) };
        let before = output.emitted();
        let (items, flow) = output.emit_all(self.at, items);
        split.pass(output.emitted() - before);
        if flow == Flow::Yield {
            *own = Some(items);
            return Ok(Polled::More);
        }
        // It is dropped now, since it may hold more than its items.
        output.finish_split(self.at);
        self.at += 1;
        Ok(if self.at == self.parts.len() { Polled::End } else { Polled::More })
    }
}
