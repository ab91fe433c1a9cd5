//! Records made from their numbers: for tests, examples, benchmarks, and input that is addressed by number.
//!
//! Numbers are dealt to the subtasks in blocks, so that all of them move through the range, and through event time, together.
//! A position is a number: going on after a restart passes over nothing, whatever the parallelism.

use std::ops::Range;

use tidemill_engine::{
    model::source::{BoxError, Flow, Output, Polled, Reader, Source, SubtaskContext, Supply},
    platform::Nanos,
};
use tidemill_storage::Record;

/// Consecutive numbers that one subtask takes at a time.
const BLOCK_NUMBERS: u64 = 1_000;

/// Emits a record for each number of a range.
pub struct GeneratorSource<F> {
    numbers: Range<u64>,
    make: F,
}

/// A source of the records that `make` gives for the numbers of a range, as Flink's `DataGeneratorSource`.
///
/// At parallelism n each subtask makes every n-th block of 1,000 records, in ascending order, with its own clone of `make`, which
/// runs on data cores: it must not block. It must give the same record for the same number each time, for a job that starts
/// again; what it remembers may only make it faster.
///
/// ```
/// let squares = tidemill_operators::source::from_generator(0..1_000_000, |n| n * n);
/// # drop(squares);
/// ```
pub fn from_generator<T, F>(numbers: Range<u64>, make: F) -> GeneratorSource<F>
where
    F: FnMut(u64) -> T + Clone + Send + Sync + 'static,
    T: 'static,
{
    GeneratorSource { numbers, make }
}

/// Every so many-th block of a range, from one of its numbers on.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
pub struct GeneratorSplit {
    /// The number of the record to be made next.
    next: u64,
    /// Where its block ends, if the range does not before.
    block_end: u64,
    /// From the end of one block to the beginning of the next.
    skip: u64,
    /// Numbers per block.
    block: u64,
}

impl GeneratorSplit {
    /// Goes to the next block if this one is done.
    fn settle(&mut self) {
        if self.next == self.block_end {
            self.next = self.block_end.saturating_add(self.skip);
            self.block_end = self.next.saturating_add(self.block);
        }
    }
}

impl<T, F> Source for GeneratorSource<F>
where
    F: FnMut(u64) -> T + Clone + Send + Sync + 'static,
    T: 'static,
{
    type Item = T;
    type Split = GeneratorSplit;
    type Reader = GeneratorReader<F>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, context: &SubtaskContext) -> Result<Vec<GeneratorSplit>, BoxError> {
        let (subtask, parallelism) = (context.subtask as u64, context.parallelism as u64);
        let next = self.numbers.start.saturating_add(subtask * BLOCK_NUMBERS);
        Ok(vec![GeneratorSplit {
            next,
            block_end: next.saturating_add(BLOCK_NUMBERS),
            skip: (parallelism - 1) * BLOCK_NUMBERS,
            block: BLOCK_NUMBERS,
        }])
    }

    fn open(&self, _: &SubtaskContext, splits: Vec<GeneratorSplit>) -> Result<GeneratorReader<F>, BoxError> {
        let unfinished = (0..splits.len()).collect();
        Ok(GeneratorReader { splits, unfinished, end: self.numbers.end, make: Some(self.make.clone()) })
    }
}

/// Makes the records of some splits, a block of each in turn.
pub struct GeneratorReader<F> {
    splits: Vec<GeneratorSplit>,
    /// Which of them have something left; the last one's turn it is.
    unfinished: Vec<usize>,
    end: u64,
    /// There, except while it is lent; lost with a panic.
    make: Option<F>,
}

impl<T, F> Reader for GeneratorReader<F>
where
    F: FnMut(u64) -> T + 'static,
    T: 'static,
{
    type Item = T;
    type Split = GeneratorSplit;

    fn splits(&self) -> usize {
        self.splits.len()
    }

    fn position(&self, split: usize) -> GeneratorSplit {
        self.splits[split]
    }

    #[inline]
    fn poll<O: Output<T>>(&mut self, output: &mut O, _now: Nanos) -> Result<Polled, BoxError> {
        while let (Some(at), Some(make)) = (self.unfinished.last().copied(), self.make.take()) {
            let split = &mut self.splits[at];
            let run = Run { next: split.next, end: split.block_end.min(self.end), make };
            let (run, flow) = output.emit_all(at, run);
            split.next = run.next;
            self.make = Some(run.make);
            if flow == Flow::Yield {
                return Ok(Polled::More);
            }
            split.settle();
            if split.next >= self.end {
                self.unfinished.pop();
                output.finish_split(at);
            } else {
                self.unfinished.rotate_right(1);
            }
        }
        Ok(Polled::End)
    }
}

/// Consecutive numbers, and what makes records of them.
struct Run<F> {
    next: u64,
    end: u64,
    make: F,
}

impl<T, F: FnMut(u64) -> T> Supply<T> for Run<F> {
    #[inline(always)]
    fn supply(&mut self, records_max: u64, mut take: impl FnMut(T) -> Flow) -> u64 {
        let first = self.next;
        let end = self.end.min(first.saturating_add(records_max));
        let mut next = first;
        while next < end {
            let record = (self.make)(next);
            next += 1;
            if take(record) == Flow::Yield {
                break;
            }
        }
        self.next = next;
        next - first
    }
}
