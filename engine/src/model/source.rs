//! The contract of a source: a description that is checked once and opened once per subtask.

use std::sync::Arc;

use tidemill_storage::{record::Record, snapshot::disk::Disk};

use super::checkpoint::CheckpointId;
use crate::platform::{Clock, Nanos, Wake};

/// An error of user code or of a connector, of any type; the engine adds operator and subtask.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where an instance of an operator runs, and what it may use.
#[derive(Clone)]
pub struct SubtaskContext {
    /// Index of this instance, from 0.
    pub subtask: usize,
    /// Number of instances.
    pub parallelism: usize,
    /// The platform's clock.
    pub clock: Arc<dyn Clock>,
    /// Wakes the worker that this instance lives on, from any thread.
    pub waker: Arc<dyn Wake>,
    /// The platform's disk, for what has to survive its simulated crashes.
    pub disk: Arc<dyn Disk>,
    /// Blocking reads happen inside `poll`, on the worker's thread, instead of on an I/O thread that wakes
    /// the worker: true on a platform without real threads, where a run must replay exactly.
    pub inline_io: bool,
}

/// A source: says what there is to read. One [`Reader`] is opened per subtask.
///
/// What there is to read is cut into *splits*: a range of a file, a partition, a range of numbers. A split says what it is
/// and where it is to be read on, so that a checkpoint can keep it and any subtask can take it up. A source that cannot be read
/// twice has splits without a content, such as `()`; what was read since the last checkpoint is lost with a crash.
pub trait Source: Send + Sync + 'static {
    /// The records that it produces.
    type Item: 'static;
    /// A part of the input, from the first record that was not emitted yet.
    type Split: Record;
    /// What reads a share of them.
    type Reader: Reader<Item = Self::Item, Split = Self::Split>;

    /// Finds out what there is. Called once, on the thread that starts the job, before any worker runs: a missing
    /// file or a port in use is found here.
    ///
    /// # Errors
    /// Whatever makes the source unreadable.
    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError>;

    /// The splits of one subtask in a job that starts afresh. Called on the worker's thread, after `prepare`; again at each
    /// restart without a checkpoint, with the same result.
    ///
    /// # Errors
    /// Whatever makes this share unreadable.
    fn splits(&self, context: &SubtaskContext) -> Result<Vec<Self::Split>, BoxError>;

    /// Opens the reader of one subtask for these splits: its own of a fresh start, or those that fell to it from a checkpoint.
    ///
    /// # Errors
    /// Whatever makes them unreadable: also that what they name is not there any more.
    fn open(&self, context: &SubtaskContext, splits: Vec<Self::Split>) -> Result<Self::Reader, BoxError>;
}

/// Reads the share of one subtask; called on one thread only, again and again, and never blocks.
pub trait Reader: 'static {
    /// The records that it produces.
    type Item: 'static;
    /// A part of the input.
    type Split: Record;

    /// Number of splits in this share, known from the start. A watermark is the least over all splits
    /// that are neither idle nor finished, so a split that was not begun yet holds it back.
    fn splits(&self) -> usize {
        1
    }

    /// Split `split` (below [`splits`](Self::splits), and not finished) from the first record on that was not emitted yet.
    /// Called between two polls.
    fn position(&self, split: usize) -> Self::Split;

    /// The positions that were just asked for are those of a checkpoint. Called at each of them, whatever becomes of it;
    /// their numbers rise.
    fn checkpoint(&mut self, checkpoint: CheckpointId) {
        let _ = checkpoint;
    }

    /// No checkpoint before `oldest` will be gone on from: what only those needed may be given up. `oldest` may be one of an
    /// earlier start of the job, of which this reader knows nothing. Must not block.
    fn kept(&mut self, oldest: CheckpointId) {
        let _ = oldest;
    }

    /// The job is to end as if its input had (`stop --drain`): whether it is cut off right here, as it is unless a
    /// reader says otherwise; a job that begins with that savepoint reads on from its [`position`](Self::position). One that has promised to deliver something more returns false, is polled on, and says
    /// [`Polled::End`] soon. Called before each poll from then on.
    fn drain(&mut self) -> bool {
        true
    }

    /// Whether splits are read one after the other, as files are. Then none is idle before its first record: it
    /// only waits for its turn.
    fn reads_in_turn(&self) -> bool {
        false
    }

    /// Emits records until [`Flow::Yield`] is returned, nothing is there, or the share is exhausted.
    ///
    /// # Errors
    /// An error stops the job; it should name the place in the input.
    fn poll<O: Output<Self::Item>>(&mut self, output: &mut O, now: Nanos) -> Result<Polled, BoxError>;
}

/// What a reader says after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// There may be more at once.
    More,
    /// Nothing for now: the reader wakes its worker, or wants to be polled at the given time.
    Pending(Option<Nanos>),
    /// The share is exhausted.
    End,
}

/// Takes what a reader emits.
pub trait Output<T> {
    /// Takes one record of split `split` (below [`Reader::splits`]). The record is always taken; after
    /// [`Flow::Yield`] the reader returns [`Polled::More`] without emitting another.
    fn emit(&mut self, split: usize, record: T) -> Flow;

    /// Emits what `supply` gives, as [`emit`](Self::emit) would one by one, until it gives no more
    /// ([`Flow::Continue`]) or [`Flow::Yield`]; returns it for the next time. The loop owns what it works on, so that the
    /// compiler can keep it in registers: a source that can give many records at a time should use it.
    fn emit_all<S: Supply<T>>(&mut self, split: usize, mut supply: S) -> (S, Flow) {
        let mut flow = Flow::Continue;
        supply.supply(u64::MAX, |record| {
            flow = self.emit(split, record);
            flow
        });
        (supply, flow)
    }

    /// Number of records taken so far; what it begins with is not said, and may change between two polls.
    fn emitted(&self) -> u64;
    /// Says that `split` is exhausted: it holds the watermark back no longer.
    fn finish_split(&mut self, split: usize);
    /// Counts records that were read and could not be decoded, and were skipped as the source's settings say.
    fn skipped(&mut self, records: u64);
    /// Counts bytes read from outside.
    fn bytes_read(&mut self, bytes: u64);
}

/// Gives many records at a time, in a loop of its own: each source knows best how to count what it gives.
pub trait Supply<T> {
    /// Gives `take` up to `records_max` records, and no more after [`Flow::Yield`]. Returns how many: fewer than
    /// `records_max` although `take` never said so means that there are no more. Not called again after that.
    fn supply(&mut self, records_max: u64, take: impl FnMut(T) -> Flow) -> u64;
}

/// What an iterator gives.
pub struct Items<I>(pub I);

impl<I: Iterator> Supply<I::Item> for Items<I> {
    #[inline(always)]
    fn supply(&mut self, records_max: u64, mut take: impl FnMut(I::Item) -> Flow) -> u64 {
        let mut left = records_max;
        while left > 0 {
            let Some(record) = self.0.next() else { break };
            left -= 1;
            if take(record) == Flow::Yield {
                break;
            }
        }
        records_max - left
    }
}

/// Backpressure, as a value.
#[must_use = "an operator that ignores `Yield` overruns its outputs"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// The budget of this step is used up or an output is full: return and be called again.
    Yield,
}
