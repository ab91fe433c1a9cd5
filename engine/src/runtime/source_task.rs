//! The task that begins with a source: polls its reader, assigns timestamps, makes watermarks, drives its chain.
//!
//! Watermarks are made per split and merged: a split that was not begun holds the watermark back, a split
//! without records for the idleness timeout does not. They go out at the end of a step, when the reader has run dry
//! or the interval has passed, so that a stream of them does not cut batches short.
//!
//! Checkpoints begin here: between two polls the task notes where its splits stand and sends the barrier.
//!
//! ```text
//!            ┌── ordinary barrier ──┐
//!            ▼                      │     suspending barrier
//!         Reading ──────────────────┴──────────────────────────▶ Silent
//!            │ input read, or to be drained
//!            ▼
//!   checkpoints are to end it? ── no ─────────────┐
//!            │ yes                                ▼
//!            ▼                                Finishing ── outputs drained ──▶ done
//!          AtEnd ── final barrier, then End ──────┘
//! ```
//!
//! A task that was drained notes in the final checkpoint where its splits stand, as in any other: whoever goes on from there reads on.

use std::sync::Arc;

use tidemill_storage::record::{Record, to_bytes};

use super::{blame::Blame, held::Held, progress::splits::SplitProgress};
use crate::{
    model::{
        checkpoint::{Barrier, BarrierKind, CheckpointId, Part, SplitPart},
        graph::BuildContext,
        item::Owned,
        metrics::{LatencyHistogram, OperatorCounters, OperatorVisitor, SourceTime},
        operator::{OperatorIndex, Push, Signal, StepContext},
        source::{BoxError, Flow, Output, Polled, Reader, Supply},
        task::{Step, Task},
        time::{NO_TIMESTAMP, Timestamp, WATERMARK_MAX},
        watermark::{AssignTimestamps, WatermarkBounds},
    },
    platform::{Clock, Nanos},
};

/// Records between two looks at the clock within a step; more where they turn out to be cheap.
const CLOCK_STRIDE: u64 = 256;

/// A task that begins with a source.
pub struct SourceTask<R, A, D> {
    reader: R,
    progress: SplitProgress,
    pump: Pump<A, D>,
    config: SourceConfig,
    state: State,
    /// The input was cut off where it stood: there may be more of it.
    is_drained: bool,
    /// The last checkpoint whose barrier was sent.
    sent: CheckpointId,
    /// The oldest checkpoint that is kept, as the reader knows it.
    oldest_kept: CheckpointId,
    /// When the step with the newest records began, and their number.
    emitted: (Nanos, u64),
    latency: LatencyHistogram,
}

/// What a source task is made with.
pub struct SourceConfig {
    /// The source operator.
    pub operator: OperatorIndex,
    /// As [`JobConfig::step_records_max`](crate::model::config::JobConfig::step_records_max).
    pub step_records_max: usize,
    /// As [`JobConfig::step_us_max`](crate::model::config::JobConfig::step_us_max), in nanoseconds.
    pub step_time_max: Nanos,
    /// As [`JobConfig::watermark_interval_us`](crate::model::config::JobConfig::watermark_interval_us), in nanoseconds.
    pub watermark_interval: Nanos,
    /// The platform's clock.
    pub clock: Arc<dyn Clock>,
    /// Whether the end waits for a final checkpoint.
    pub ends_with_checkpoint: bool,
    /// The last checkpoint whose barrier is not for this task.
    pub before: CheckpointId,
}

impl SourceConfig {
    /// The settings of a job's source.
    pub fn new(operator: OperatorIndex, context: &BuildContext) -> Self {
        let config = &context.config;
        Self {
            operator,
            clock: Arc::clone(&context.subtask.clock),
            ends_with_checkpoint: context.checkpoints.ends_with_checkpoint,
            before: context.checkpoints.before,
            step_records_max: config.step_records_max,
            step_time_max: config.step_us_max * 1_000,
            watermark_interval: config.watermark_interval_us * 1_000,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// Everything was read; the final checkpoint is awaited.
    AtEnd,
    /// Nothing is to be said any more.
    Silent,
    Finishing,
}

/// What stands behind the reader.
struct Pump<A, D> {
    assign: A,
    down: Held<D>,
    counters: OperatorCounters,
}

/// What the reader emits into during one step.
struct StepOutput<'s, A, D> {
    operator: OperatorIndex,
    pump: &'s mut Pump<A, D>,
    progress: &'s mut SplitProgress,
    context: &'s mut StepContext,
    clock: &'s dyn Clock,
    until: Nanos,
    /// Records of the step's budget that were not granted yet.
    left: u64,
    granted: u64,
}

impl<A, D> StepOutput<'_, A, D> {
    /// The grant is used up: goes on for another one, unless the outputs, the budget or the time are.
    #[cold]
    fn look_up(&mut self) -> Flow {
        if self.context.is_blocked() || self.left == 0 || self.clock.now() >= self.until {
            // A reader that goes on in spite of `Yield` is told again after each record.
            self.left = 0;
            self.grant(1);
            return Flow::Yield;
        }
        self.go_on();
        Flow::Continue
    }

    /// Grants records up to the next look at the clock.
    fn go_on(&mut self) {
        let stride = self.left.min(CLOCK_STRIDE);
        self.left -= stride;
        self.grant(stride);
    }

    fn grant(&mut self, records: u64) {
        self.granted += records;
        self.context.grant(records);
    }

    /// How many records to push before the next look at the clock: what takes half of the time that is left, if they
    /// cost what those before them in this step did. Where records are cheap a look costs as much as a dozen of them
    /// or more, and one per step is enough.
    fn stride_at_pace(&self, now: Nanos) -> u64 {
        let elapsed = now.saturating_sub(self.context.now).max(1);
        let half = (self.until - now) / 2;
        (self.emitted().saturating_mul(half) / elapsed).max(CLOCK_STRIDE)
    }

    /// Records emitted in this step.
    fn emitted(&self) -> u64 {
        self.granted - self.context.unspent()
    }

    /// A record came that the watermark has passed: the watermark goes out before it, so that what is late
    /// depends on the records of the split alone, not on when watermarks happen to be due.
    #[cold]
    fn send_watermark_first<T: 'static>(&mut self)
    where
        D: Push<Owned<T>>,
    {
        self.progress.settle(self.context.now);
        self.progress.send(&mut *self.pump.down, self.context);
    }
}

impl<T, A, D> Output<T> for StepOutput<'_, A, D>
where
    T: 'static,
    A: AssignTimestamps<T>,
    D: Push<Owned<T>>,
{
    #[inline(always)]
    fn emit(&mut self, split: usize, record: T) -> Flow {
        let timestamp = if A::ENABLED {
            let assign = &mut self.pump.assign;
            let timestamp = Blame::on(self.operator, || assign.timestamp(&record));
            if self.progress.note(split, timestamp) {
                self.send_watermark_first();
            }
            timestamp
        } else {
            NO_TIMESTAMP
        };
        self.pump.down.push(record, timestamp, self.context);
        if self.context.spend() { self.look_up() } else { Flow::Continue }
    }

    fn emit_all<S: Supply<T>>(&mut self, split: usize, mut supply: S) -> (S, Flow) {
        if A::ENABLED {
            let mut flow = Flow::Continue;
            supply.supply(u64::MAX, |record| {
                flow = self.emit(split, record);
                flow
            });
            return (supply, flow);
        }
        let reclaimed = self.context.reclaim();
        self.granted -= reclaimed;
        self.left += reclaimed;
        let mut work = Held::new((supply, self.pump.down.lend()));
        let mut flow = Flow::Yield;
        let mut stride = CLOCK_STRIDE;
        while self.left > 0 && !self.context.is_blocked() {
            stride = self.left.min(stride);
            let pushed = push_up_to(stride, &mut work, self.context);
            self.left -= pushed;
            self.granted += pushed;
            if pushed < stride && !self.context.is_blocked() {
                flow = Flow::Continue;
                break;
            }
            if self.left == 0 {
                break;
            }
            let now = self.clock.now();
            if now >= self.until {
                break;
            }
            stride = self.stride_at_pace(now);
        }
        let (supply, down) = work.lend();
        self.pump.down.give_back(down);
        (supply, flow)
    }

    fn emitted(&self) -> u64 {
        StepOutput::emitted(self)
    }

    fn finish_split(&mut self, split: usize) {
        self.progress.settle(self.context.now);
        self.progress.end(split);
    }

    fn skipped(&mut self, records: u64) {
        self.pump.counters.skipped += records;
    }

    fn bytes_read(&mut self, bytes: u64) {
        self.pump.counters.bytes_in += bytes;
    }
}

/// Pushes up to `records_max` records without timestamps; returns how many. Supply and chain are moved out and back:
/// while the loop owns them and nothing else can see them, the compiler keeps what they count in registers. There are
/// just enough, if one pointer leads to both.
#[inline(never)]
fn push_up_to<T: 'static, S: Supply<T>, D: Push<Owned<T>>>(
    records_max: u64,
    work: &mut Held<(S, D)>,
    context: &mut StepContext,
) -> u64 {
    let (mut supply, mut down) = work.lend();
    let pushed = supply.supply(records_max, |record| {
        down.push(record, NO_TIMESTAMP, context);
        if context.is_blocked() { Flow::Yield } else { Flow::Continue }
    });
    work.give_back((supply, down));
    pushed
}

impl<R, A, D> SourceTask<R, A, D>
where
    R: Reader,
    A: AssignTimestamps<R::Item>,
    D: Push<Owned<R::Item>>,
{
    /// A task that reads from `reader` and pushes into `down`. `newest` has the greatest timestamps that were seen in the
    /// reader's splits before, for those that a checkpoint gave.
    pub fn new(
        reader: R,
        newest: &[Timestamp],
        assign: A,
        bounds: WatermarkBounds,
        down: D,
        config: SourceConfig,
    ) -> Self {
        let mut progress =
            SplitProgress::new(reader.splits(), reader.reads_in_turn(), bounds, config.clock.now());
        // A reader of splits without content may have fewer than a checkpoint has brought together.
        let resumed = newest.iter().take(reader.splits()).enumerate();
        resumed.for_each(|(split, newest)| progress.resume(split, *newest));
        Self {
            reader,
            progress,
            pump: Pump { assign, down: Held::new(down), counters: OperatorCounters::default() },
            sent: config.before,
            config,
            state: State::Reading,
            is_drained: false,
            oldest_kept: 0,
            emitted: (0, 0),
            latency: LatencyHistogram::default(),
        }
    }

    fn read(&mut self, context: &mut StepContext) -> Step {
        let now = context.now;
        let mut output = StepOutput {
            operator: self.config.operator,
            pump: &mut self.pump,
            progress: &mut self.progress,
            context,
            clock: &*self.config.clock,
            until: now + self.config.step_time_max,
            left: self.config.step_records_max as u64,
            granted: 0,
        };
        output.go_on();
        let reader = &mut self.reader;
        let polled = Blame::on(self.config.operator, || reader.poll(&mut output, now));
        let emitted = output.emitted();
        context.note_pushed(emitted > 0);
        if emitted > 0 {
            self.pump.counters.records_in += emitted;
            self.emitted = (now, emitted);
        }
        match polled {
            Ok(Polled::More) => Step::Progress,
            Ok(Polled::Pending(at)) => {
                if let Some(at) = at {
                    context.wake_at(at);
                }
                if emitted > 0 { Step::Progress } else { Step::Idle }
            }
            Ok(Polled::End) => Step::Done,
            Err(error) => {
                context.fail(self.config.operator, error);
                Step::Blocked
            }
        }
    }

    /// Sends the barriers that are due: the one that overtakes all else, if there is one, and those behind it if there is room.
    #[cold]
    fn send_barriers(&mut self, context: &mut StepContext) {
        let overtaking = context.triggers.iter().rposition(|barrier| barrier.kind == BarrierKind::Overtaking);
        // Checkpoints before it were given up.
        let first = overtaking.unwrap_or(0);
        let end = if context.is_blocked() { first + 1 } else { context.triggers.len() };
        for i in first..end {
            let barrier = context.triggers[i];
            if barrier.checkpoint <= self.sent || matches!(self.state, State::Silent | State::Finishing) {
                continue;
            }
            if let Err(error) = self.send_barrier(barrier, context) {
                context.fail(self.config.operator, error);
            }
        }
    }

    fn send_barrier(&mut self, barrier: Barrier, context: &mut StepContext) -> Result<(), BoxError> {
        self.sent = barrier.checkpoint;
        let splits = Blame::on(self.config.operator, || self.positions())?;
        context.add_part(self.config.operator, Part::Splits(splits));
        Blame::on(self.config.operator, || self.reader.checkpoint(barrier.checkpoint));
        self.pump.down.signal(Signal::Barrier(barrier), context);
        context.pass(barrier);
        match barrier.kind {
            BarrierKind::Running | BarrierKind::Overtaking => {}
            BarrierKind::Suspending => self.state = State::Silent,
            BarrierKind::Final => {
                self.state = State::Finishing;
                // Whoever could not pass the barrier is not told that all is well.
                if !context.has_failed() {
                    self.pump.down.signal(Signal::End, context);
                }
            }
        }
        Ok(())
    }

    /// Where the splits stand that have something left.
    fn positions(&self) -> Result<Vec<SplitPart>, BoxError> {
        if self.state == State::AtEnd && !self.is_drained {
            return Ok(Vec::new());
        }
        let position = |(split, newest)| {
            let bytes = to_bytes(&self.reader.position(split))?;
            Ok(SplitPart { newest, schema: R::Split::schema(), bytes: bytes.bytes().to_vec() })
        };
        self.progress.unfinished().map(position).collect()
    }

    /// Says that the input was read.
    fn end(&mut self, context: &mut StepContext) {
        // Where this subtask has come to, for those behind it that wait for idle ones only.
        if let Some(watermark) = self.progress.reached() {
            self.pump.down.signal(Signal::Watermark(watermark), context);
        }
        self.pump.down.signal(Signal::Watermark(WATERMARK_MAX), context);
        if self.config.ends_with_checkpoint {
            self.state = State::AtEnd;
            context.arrive_at_end();
        } else {
            self.state = State::Finishing;
            self.pump.down.signal(Signal::End, context);
        }
    }

    /// Sends what event time has come to: at once when the reader has run dry, else once per interval.
    fn tell_progress(&mut self, dry: bool, context: &mut StepContext) {
        if A::ENABLED {
            self.progress.settle(context.now);
            if dry && let Some(at) = self.progress.next_idle_at() {
                context.wake_at(at);
            }
        }
        let due = self.progress.is_due(context.now, self.config.watermark_interval);
        if !dry && !due {
            return;
        }
        self.progress.send(&mut *self.pump.down, context);
    }
}

impl<R, A, D> Task for SourceTask<R, A, D>
where
    R: Reader,
    A: AssignTimestamps<R::Item>,
    D: Push<Owned<R::Item>>,
{
    fn step(&mut self, context: &mut StepContext) -> Step {
        self.pump.down.drain(context);
        if context.oldest_kept != self.oldest_kept {
            self.oldest_kept = context.oldest_kept;
            Blame::on(self.config.operator, || self.reader.kept(context.oldest_kept));
        }
        if context.is_blocked() {
            self.progress.hold_up(context.now);
            let overtakes =
                |barrier: &Barrier| barrier.kind == BarrierKind::Overtaking && barrier.checkpoint > self.sent;
            if context.triggers.iter().any(overtakes) {
                self.send_barriers(context);
                return Step::Progress;
            }
            return Step::Blocked;
        }
        let sends_barriers = context.triggers.last().is_some_and(|last| last.checkpoint > self.sent);
        if sends_barriers {
            self.send_barriers(context);
        }
        let step = match self.state {
            State::Finishing => Step::Done,
            // They have a step of their own, so that what they cost is seen.
            _ if sends_barriers => Step::Progress,
            State::AtEnd | State::Silent => Step::Idle,
            State::Reading => {
                self.progress.go_on(context.now);
                self.is_drained = context.drains && Blame::on(self.config.operator, || self.reader.drain());
                let read = if self.is_drained { Step::Done } else { self.read(context) };
                if context.has_failed() {
                    return read;
                }
                if read == Step::Done {
                    self.end(context);
                } else {
                    self.tell_progress(read == Step::Idle, context);
                }
                if self.state == State::AtEnd { Step::Progress } else { read }
            }
        };
        context.set_dry(step != Step::Progress);
        self.pump.down.drain(context);
        if context.is_blocked() {
            self.progress.hold_up(context.now);
        }
        // What the end has sent may still wait for room.
        if step == Step::Done && context.is_blocked() { Step::Progress } else { step }
    }

    fn settle(&mut self, now: Nanos) {
        let (began, records) = std::mem::take(&mut self.emitted);
        if records > 0 {
            self.latency.record(now.saturating_sub(began), records);
        }
    }

    fn report(&self, visitor: &mut dyn OperatorVisitor) {
        let counters =
            OperatorCounters { records_out: self.pump.counters.records_in, ..self.pump.counters.clone() };
        visitor.operator(self.config.operator, &counters);
        // After a panic in the chain only the source has something left to tell.
        if let Some(down) = self.pump.down.get() {
            down.report(counters.records_out, visitor);
        }
    }

    fn watermark(&self) -> Timestamp {
        if matches!(self.state, State::AtEnd | State::Finishing) {
            WATERMARK_MAX
        } else {
            self.progress.merged()
        }
    }

    fn source_time(&self, subtask: usize, now: Nanos, wall_millis: i64) -> Option<SourceTime> {
        if !A::ENABLED {
            return None;
        }
        let is_over = matches!(self.state, State::AtEnd | State::Finishing);
        let unchanged = now.saturating_sub(self.progress.unchanged_since());
        Some(SourceTime {
            subtask,
            watermark: self.watermark(),
            since_millis: wall_millis.saturating_sub((unchanged / 1_000_000) as i64),
            held_back_by: self.progress.held_back_by().filter(|_| !is_over),
            is_idle: self.progress.is_idle(),
        })
    }

    fn queue(&self) -> (usize, usize) {
        (0, 0)
    }

    fn latency(&self) -> &LatencyHistogram {
        &self.latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::Items;

    /// Keeps what it is pushed and blocks when it has seen so many.
    struct Bounded {
        seen: Vec<u64>,
        bound: usize,
    }

    impl Push<Owned<u64>> for Bounded {
        fn push(&mut self, item: u64, _timestamp: Timestamp, context: &mut StepContext) {
            self.seen.push(item);
            if self.seen.len() == self.bound {
                context.block();
            }
        }

        fn signal(&mut self, _signal: Signal, _context: &mut StepContext) {}

        fn drain(&mut self, _context: &mut StepContext) {}

        fn report(&self, _arrived: u64, _visitor: &mut dyn OperatorVisitor) {}
    }

    #[test]
    fn pushes_as_many_as_it_may_and_never_asks_an_iterator_that_has_ended() {
        for budget in 0..6 {
            for there in 0..6 {
                for bound in 1..7 {
                    let mut numbers = 0..there;
                    let mut ended = false;
                    let records = std::iter::from_fn(|| {
                        assert!(!ended, "asked again after the end");
                        let next = numbers.next();
                        ended = next.is_none();
                        next
                    });
                    let mut work = Held::new((Items(records), Bounded { seen: Vec::new(), bound }));
                    let mut context = StepContext::new(0, 0);
                    let pushed = push_up_to(budget, &mut work, &mut context);
                    let expected = budget.min(there).min(bound as u64);
                    let (_, down) = work.lend();
                    assert_eq!(down.seen, (0..expected).collect::<Vec<_>>());
                    assert_eq!(pushed, expected);
                }
            }
        }
    }
}
