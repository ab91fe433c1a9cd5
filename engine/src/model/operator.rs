//! The contracts of the operators in a task.
//!
//! A task is one fused function: a source or the head behind an exchange, then a chain of [`Push`] operators nested
//! in each other, then an end (an exchange or a sink). All of it is called by one thread, the worker's.
//!
//! * An operator never blocks and never waits; it is called again.
//! * Backpressure: an end whose outbox is over its bound calls [`StepContext::block`]. The one who drives
//!   the chain looks at [`StepContext::is_blocked`] after every record and stops there, so an outbox
//!   overruns its bound by what one record becomes at most.
//! * An operator that fails calls [`StepContext::fail`] and drops the record; the driver stops and the job ends.

use std::ops::Range;

use tidemill_storage::record::Record;

use super::{
    checkpoint::{Barrier, CheckpointId, InFlight, Part},
    graph::BuildContext,
    item::Item,
    metrics::OperatorVisitor,
    source::{BoxError, Flow},
    task::Task,
    time::Timestamp,
};
use crate::{platform::Nanos, runtime::exchange::batch::Batch};

/// Index of an operator in its job, in the order of construction.
pub type OperatorIndex = u32;

/// What is said in band besides records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// No record at or below this timestamp follows, except late ones. Never falls.
    Watermark(Timestamp),
    /// Nothing comes for now; the receiver's watermark must not wait for this sender.
    Idle,
    /// Records come again.
    Active,
    /// Everything before it belongs to this checkpoint: an operator with state hands it to the context
    /// ([`StepContext::add_part`]) before it hands the barrier on.
    Barrier(Barrier),
    /// Nothing follows. A watermark of `WATERMARK_MAX` came before it.
    End,
}

/// An operator in a fused chain: takes items one by one and pushes what they become to the next.
pub trait Push<I: Item>: 'static {
    /// Takes one item. Inlined into its caller.
    fn push(&mut self, item: I::Ref<'_>, timestamp: Timestamp, context: &mut StepContext);

    /// Takes a signal, after all items pushed before it.
    fn signal(&mut self, signal: Signal, context: &mut StepContext);

    /// Called at the start and the end of each step: an exchange sends what waits too long or has room now
    /// and blocks the context while it is over its bound; a sink makes visible what it has buffered.
    fn drain(&mut self, context: &mut StepContext);

    /// Shows the counters of this operator and of those behind it. `arrived` is the number of records that were pushed
    /// into it: who pushes has counted them, so an operator counts only what it does not hand on one for one.
    fn report(&self, arrived: u64, visitor: &mut dyn OperatorVisitor);
}

/// The first operator of a task behind an exchange: takes whole batches.
pub trait Head<T: Record>: 'static {
    /// Takes some records of `batch`, by their indices, and returns that of the first one not taken: the end of `records`, or
    /// less when the context was blocked.
    fn batch(&mut self, batch: &Batch<T>, records: Range<usize>, context: &mut StepContext) -> usize;

    /// Hands on the results of records of `batch` from index `from` on that were handled before the context was blocked, though
    /// it is: a barrier overtakes the rest. Returns the index of the first one not handled. The default is for a head that
    /// holds no results back.
    fn catch_up(&mut self, batch: &Batch<T>, from: usize, context: &mut StepContext) -> usize {
        let _ = (batch, context);
        from
    }

    /// Takes a signal, after all records before it. On [`Flow::Yield`] work is left (windows to fire):
    /// [`resume`](Self::resume) is called, until it returns [`Flow::Continue`], before anything else.
    fn signal(&mut self, signal: Signal, context: &mut StepContext) -> Flow;

    /// Goes on with what the last signal or timer began.
    fn resume(&mut self, context: &mut StepContext) -> Flow {
        let _ = context;
        Flow::Continue
    }

    /// The earliest processing-time timer, in wall-clock milliseconds.
    fn next_timer(&self) -> Option<i64> {
        None
    }

    /// Fires the processing-time timers up to `context.wall_millis`; as [`signal`](Self::signal).
    fn on_processing_time(&mut self, context: &mut StepContext) -> Flow {
        let _ = context;
        Flow::Continue
    }

    /// As [`Push::drain`].
    fn drain(&mut self, context: &mut StepContext);

    /// Shows the counters of the head and of the operators behind it.
    fn report(&self, visitor: &mut dyn OperatorVisitor);
}

/// A chain under construction: makes, for each subtask, what pushes into the given operator.
pub trait Chain: Clone + Send + 'static {
    /// What the chain hands on.
    type Out: Item;
    /// The finished task once something stands behind the chain.
    type Task<D: Push<Self::Out>>: Task;

    /// Makes the instance of one subtask, on its worker's thread.
    ///
    /// # Errors
    /// Whatever keeps a source, operator or sink from opening, with the operator's index.
    fn build<D: Push<Self::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Task<D>, OpenError>;
}

/// An operator that could not be opened.
#[derive(Debug)]
pub struct OpenError {
    /// Which one.
    pub operator: OperatorIndex,
    /// What it said.
    pub cause: BoxError,
}

/// What the operators of a task share during one step.
#[derive(Debug)]
pub struct StepContext {
    /// Monotonic time at the start of the step.
    pub now: Nanos,
    /// Wall-clock time in milliseconds at the start of the step.
    pub wall_millis: i64,
    /// Monotonic time at which the oldest record now in work entered the job.
    pub ingest: Nanos,
    blocked: bool,
    fuel: u64,
    fuel_withheld: u64,
    dry: bool,
    pushed: bool,
    wake_at: Option<Nanos>,
    failure: Option<OpenError>,
    /// Barriers that the sources are to send, in the order of their checkpoints. A source keeps account of those it has sent.
    pub triggers: Vec<Barrier>,
    /// Whether the sources are to end as if their input had.
    pub drains: bool,
    /// The oldest checkpoint that the job may still go on from, as far as is known; 0 at first.
    pub oldest_kept: CheckpointId,
    checkpoint: TaskCheckpoint,
}

/// What the task in work has to say about checkpoints.
#[derive(Debug, Default)]
pub struct TaskCheckpoint {
    /// What its operators added since the last barrier.
    pub parts: Vec<(OperatorIndex, Part)>,
    /// The barriers that it has passed, with what its operators added at each.
    pub passed: Vec<(Barrier, Vec<(OperatorIndex, Part)>)>,
    /// What overtaking barriers that it has passed before have overtaken at its inputs; `Err` when that is too much.
    pub overtaken: Vec<(CheckpointId, Result<Vec<(OperatorIndex, InFlight)>, BoxError>)>,
    /// Whether it is a source that has come to the end of its input.
    pub at_end: bool,
}

impl StepContext {
    /// A context for a step that starts at `now`.
    pub fn new(now: Nanos, wall_millis: i64) -> Self {
        Self {
            now,
            wall_millis,
            ingest: now,
            blocked: false,
            fuel: 0,
            fuel_withheld: 0,
            dry: false,
            pushed: false,
            wake_at: None,
            failure: None,
            triggers: Vec::new(),
            drains: false,
            oldest_kept: 0,
            checkpoint: TaskCheckpoint::default(),
        }
    }

    /// Forgets what a task that failed has left: nothing of it is to be taken for another's.
    #[cold]
    pub fn forget_step(&mut self) {
        self.failure = None;
        self.wake_at = None;
        self.checkpoint = TaskCheckpoint::default();
    }

    /// Starts a step: nothing is blocked until an end says so.
    pub fn begin(&mut self, now: Nanos, wall_millis: i64) {
        self.now = now;
        self.wall_millis = wall_millis;
        self.ingest = now;
        (self.dry, self.pushed) = (false, false);
        (self.fuel, self.fuel_withheld) = (0, 0);
        self.blocked = self.failure.is_some();
    }

    /// Says that an output is over its bound: nothing more is to be pushed in this step.
    pub fn block(&mut self) {
        self.blocked = true;
        // A driver that only looks at its fuel stops after the record in work.
        if self.fuel > 1 {
            self.fuel_withheld += self.fuel - 1;
            self.fuel = 1;
        }
    }

    /// Lets a driver push `records` more before it looks up.
    pub fn grant(&mut self, records: u64) {
        self.fuel += records;
    }

    /// Counts one record pushed; true when the driver has to look up: its grant is used up or the context is blocked.
    /// One count and one comparison stand for all that could stop a driver.
    #[inline(always)]
    pub fn spend(&mut self) -> bool {
        self.fuel -= 1;
        self.fuel == 0
    }

    /// Takes back what was granted and not pushed.
    pub fn reclaim(&mut self) -> u64 {
        std::mem::take(&mut self.fuel)
    }

    /// Records of the grants that were not pushed.
    pub fn unspent(&self) -> u64 {
        self.fuel + self.fuel_withheld
    }

    /// Whether the driver has to stop.
    #[inline(always)]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether the task has no input for the moment: time to make visible what a sink has buffered.
    pub fn is_dry(&self) -> bool {
        self.dry
    }

    /// Says whether the task has input left, before the last drain of a step.
    pub fn set_dry(&mut self, dry: bool) {
        self.dry = dry;
    }

    /// Whether anything was pushed into the chain in this step.
    pub fn has_pushed(&self) -> bool {
        self.pushed
    }

    /// Notes, once for many records, that something was or may have been pushed.
    pub fn note_pushed(&mut self, pushed: bool) {
        self.pushed |= pushed;
    }

    /// Adds what an operator has for the checkpoint whose barrier it is handed.
    pub fn add_part(&mut self, operator: OperatorIndex, part: Part) {
        self.checkpoint.parts.push((operator, part));
    }

    /// Says that all operators of the task have been handed this barrier.
    pub fn pass(&mut self, barrier: Barrier) {
        let parts = std::mem::take(&mut self.checkpoint.parts);
        self.checkpoint.passed.push((barrier, parts));
    }

    /// Says what the barrier of a checkpoint has overtaken at the inputs of this task, which has passed it; or why that is not
    /// kept, and the checkpoint fails.
    pub fn add_overtaken(
        &mut self,
        checkpoint: CheckpointId,
        overtaken: Result<Vec<(OperatorIndex, InFlight)>, BoxError>,
    ) {
        self.checkpoint.overtaken.push((checkpoint, overtaken));
    }

    /// Says that the task is a source that has come to the end of its input.
    pub fn arrive_at_end(&mut self) {
        self.checkpoint.at_end = true;
    }

    /// What the task has said about checkpoints in this step, if anything.
    #[inline]
    pub fn take_checkpoint(&mut self) -> Option<TaskCheckpoint> {
        let TaskCheckpoint { passed, overtaken, at_end, .. } = &self.checkpoint;
        let quiet = passed.is_empty() && overtaken.is_empty() && !at_end;
        if quiet { None } else { Some(std::mem::take(&mut self.checkpoint)) }
    }

    /// Stops the job with the error of an operator. The first one counts.
    #[cold]
    pub fn fail(&mut self, operator: OperatorIndex, cause: BoxError) {
        self.block();
        self.failure.get_or_insert(OpenError { operator, cause });
    }

    /// The failure, if an operator failed.
    pub fn take_failure(&mut self) -> Option<OpenError> {
        self.failure.take()
    }

    /// Whether an operator failed.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Asks for another step at `at` even if nothing arrives.
    pub fn wake_at(&mut self, at: Nanos) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// As [`wake_at`](Self::wake_at), at a wall-clock time in milliseconds.
    pub fn wake_at_wall(&mut self, millis: i64) {
        let wait = u64::try_from(millis.saturating_sub(self.wall_millis)).unwrap_or(0);
        self.wake_at(self.now.saturating_add(wait.saturating_mul(1_000_000)));
    }

    /// The earliest time asked for since the last call.
    pub fn take_wake_at(&mut self) -> Option<Nanos> {
        self.wake_at.take()
    }
}
