//! The task that begins with a source: polls its reader, assigns timestamps, makes watermarks, drives its chain.
//!
//! Watermarks are made per split and merged: a split that was not begun holds the watermark back, a split
//! without records for the idleness timeout does not. They go out at the end of a step, when the reader has run dry
//! or the interval has passed, so that a stream of them does not cut batches short.

use std::sync::Arc;

use super::{
    blame::Blame,
    progress::merge::{Outcome, WatermarkMerge},
};
use crate::{
    model::{
        config::JobConfig,
        item::Owned,
        metrics::{LatencyHistogram, OperatorCounters, OperatorVisitor},
        operator::{OperatorIndex, Push, Signal, StepContext},
        source::{Flow, Output, Polled, Reader},
        task::{Step, Task},
        time::{Timestamp, WATERMARK_MAX, WATERMARK_MIN},
        watermark::{AssignTimestamps, WatermarkBounds},
    },
    platform::{Clock, Nanos},
};

/// Records between two looks at the clock within a step.
const CLOCK_STRIDE: u64 = 256;

/// A task that begins with a source.
pub struct SourceTask<R, A, D> {
    reader: R,
    progress: SplitProgress,
    pump: Pump<A, D>,
    config: SourceConfig,
    state: State,
    /// When the step with the newest records began, and their number.
    emitted: (Nanos, u64),
    latency: LatencyHistogram,
}

/// What a source task is made with.
pub struct SourceConfig {
    /// The source operator.
    pub operator: OperatorIndex,
    /// As [`JobConfig::step_records_max`].
    pub step_records_max: usize,
    /// As [`JobConfig::step_us_max`], in nanoseconds.
    pub step_time_max: Nanos,
    /// As [`JobConfig::watermark_interval_us`], in nanoseconds.
    pub watermark_interval: Nanos,
    /// The platform's clock.
    pub clock: Arc<dyn Clock>,
}

impl SourceConfig {
    /// The settings of a job's source.
    pub fn new(operator: OperatorIndex, config: &JobConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            operator,
            step_records_max: config.step_records_max,
            step_time_max: config.step_us_max * 1_000,
            watermark_interval: config.watermark_interval_us * 1_000,
            clock,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Finishing,
}

/// What stands behind the reader.
struct Pump<A, D> {
    assign: A,
    down: D,
    counters: OperatorCounters,
}

/// Event time per split.
struct SplitProgress {
    bounds: WatermarkBounds,
    splits: Vec<Split>,
    merge: WatermarkMerge,
    emitted_at: Nanos,
    unsent: Outcome,
    /// Since when the task has been waiting for room: no split is silent meanwhile.
    held_up_since: Option<Nanos>,
}

#[derive(Clone)]
struct Split {
    newest: Timestamp,
    /// The watermark that `newest` stands for, until a late record has made it be sent.
    unsent_watermark: Timestamp,
    ended: bool,
    idle: bool,
    heard: bool,
    heard_at: Nanos,
    /// Waits for its turn: silence does not make it idle.
    waits: bool,
}

impl SplitProgress {
    fn new(splits: usize, in_turn: bool, bounds: WatermarkBounds, now: Nanos) -> Self {
        let split = Split {
            newest: WATERMARK_MIN,
            unsent_watermark: WATERMARK_MIN,
            ended: false,
            idle: false,
            heard: false,
            heard_at: now,
            waits: in_turn,
        };
        // Without a split there is nothing that the watermark could wait for.
        let rest = (splits == 0).then_some(Signal::Idle);
        Self {
            bounds,
            splits: vec![split; splits],
            merge: WatermarkMerge::new(splits),
            emitted_at: now,
            unsent: Outcome { rest, ..Outcome::default() },
            held_up_since: None,
        }
    }

    /// Keeps the newest of several outcomes until it is sent.
    fn keep(&mut self, outcome: Outcome) {
        self.unsent.activity = outcome.activity.or(self.unsent.activity);
        self.unsent.watermark = outcome.watermark.or(self.unsent.watermark);
        self.unsent.rest = if outcome.activity.is_some() { None } else { outcome.rest.or(self.unsent.rest) };
    }

    /// Folds what the splits have seen in this step into the merged watermark.
    fn settle(&mut self, now: Nanos) {
        for index in 0..self.splits.len() {
            let split = &mut self.splits[index];
            if split.ended {
                continue;
            }
            if split.heard {
                (split.heard, split.waits) = (false, false);
                split.idle = false;
                split.heard_at = now;
                let watermark = self.bounds.watermark(split.newest);
                let active = self.merge.active(index);
                self.keep(active);
                let risen = self.merge.watermark(index, watermark);
                self.keep(risen);
            } else if let Some(timeout) = self.bounds.idle_after
                && !split.idle
                && !split.waits
                && now.saturating_sub(split.heard_at) >= timeout
            {
                split.idle = true;
                let idle = self.merge.idle(index);
                self.keep(idle);
            }
        }
    }

    /// The outputs are full from now on, if they were not before.
    fn hold_up(&mut self, now: Nanos) {
        self.held_up_since.get_or_insert(now);
    }

    /// There is room again: the time without counts for no split's idleness.
    fn go_on(&mut self, now: Nanos) {
        if let Some(since) = self.held_up_since.take() {
            let held_up = now.saturating_sub(since);
            for split in &mut self.splits {
                split.heard_at = split.heard_at.saturating_add(held_up);
            }
        }
    }

    /// When the next split becomes idle if nothing is heard from it.
    fn next_idle_at(&self) -> Option<Nanos> {
        let timeout = self.bounds.idle_after?;
        let waiting = self.splits.iter().filter(|split| !split.ended && !split.idle && !split.waits);
        waiting.map(|split| split.heard_at.saturating_add(timeout)).min()
    }

    /// Sends what has become of event time since the last time. The end is not sent here.
    fn send<T: 'static>(&mut self, down: &mut impl Push<Owned<T>>, context: &mut StepContext) {
        let unsent = std::mem::take(&mut self.unsent);
        let rest = unsent.rest.filter(|signal| *signal == Signal::Idle);
        let watermark = unsent.watermark.map(Signal::Watermark);
        for signal in unsent.activity.into_iter().chain(watermark).chain(rest) {
            self.emitted_at = context.now;
            down.signal(signal, context);
        }
    }

    /// The greatest watermark of any split, unless none has one or the last word was said.
    fn reached(&self) -> Option<Timestamp> {
        let newest = self.splits.iter().map(|split| split.newest).max()?;
        let sent = self.merge.merged() == WATERMARK_MAX && self.unsent.watermark.is_none();
        (newest > WATERMARK_MIN && !sent).then(|| self.bounds.watermark(newest))
    }

    fn end(&mut self, index: usize) {
        if !std::mem::replace(&mut self.splits[index].ended, true) {
            let outcome = self.merge.end(index);
            self.keep(outcome);
        }
    }
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
        let stride = self.left.min(CLOCK_STRIDE);
        self.left -= stride;
        self.grant(stride);
        Flow::Continue
    }

    fn grant(&mut self, records: u64) {
        self.granted += records;
        self.context.grant(records);
    }

    /// Records emitted in this step.
    fn emitted(&self) -> u64 {
        self.granted - self.context.unspent()
    }

    /// A record came that the watermark has passed: the watermark goes out before it, so that what is late
    /// depends on the records of the split alone, not on when watermarks happen to be due.
    #[cold]
    fn send_watermark_first<T: 'static>(&mut self, split: usize)
    where
        D: Push<Owned<T>>,
    {
        self.progress.splits[split].unsent_watermark = WATERMARK_MIN;
        self.progress.settle(self.context.now);
        self.progress.send(&mut self.pump.down, self.context);
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
            let seen = &mut self.progress.splits[split];
            seen.heard = true;
            if timestamp <= seen.unsent_watermark {
                self.send_watermark_first(split);
            } else if timestamp > seen.newest {
                seen.newest = timestamp;
                seen.unsent_watermark = self.progress.bounds.watermark(timestamp);
            }
            timestamp
        } else {
            crate::model::time::NO_TIMESTAMP
        };
        self.pump.down.push(record, timestamp, self.context);
        if self.context.spend() { self.look_up() } else { Flow::Continue }
    }

    fn emit_all<I: Iterator<Item = T>>(&mut self, split: usize, records: &mut I) -> Flow {
        if A::ENABLED {
            for record in records {
                if self.emit(split, record) == Flow::Yield {
                    return Flow::Yield;
                }
            }
            return Flow::Continue;
        }
        let reclaimed = self.context.reclaim();
        self.granted -= reclaimed;
        self.left += reclaimed;
        while self.left > 0 && !self.context.is_blocked() {
            let stride = self.left.min(CLOCK_STRIDE);
            let pushed = push_up_to(stride, records, &mut self.pump.down, self.context);
            self.left -= pushed;
            self.granted += pushed;
            if pushed < stride && !self.context.is_blocked() {
                return Flow::Continue;
            }
            if self.clock.now() >= self.until {
                break;
            }
        }
        Flow::Yield
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

/// Pushes up to `most` records without timestamps and returns how many. A function of its own, so that the compiler knows
/// that its arguments do not overlap, and keeps what the chain counts in registers.
#[inline(never)]
fn push_up_to<T: 'static, D: Push<Owned<T>>>(
    most: u64,
    records: &mut impl Iterator<Item = T>,
    down: &mut D,
    context: &mut StepContext,
) -> u64 {
    let mut pushed = 0;
    while pushed < most {
        let Some(record) = records.next() else { break };
        down.push(record, crate::model::time::NO_TIMESTAMP, context);
        pushed += 1;
        if context.is_blocked() {
            break;
        }
    }
    pushed
}

impl<R, A, D> SourceTask<R, A, D>
where
    R: Reader,
    A: AssignTimestamps<R::Item>,
    D: Push<Owned<R::Item>>,
{
    /// A task that reads from `reader` and pushes into `down`.
    pub fn new(reader: R, assign: A, bounds: WatermarkBounds, down: D, config: SourceConfig) -> Self {
        let progress =
            SplitProgress::new(reader.splits(), reader.reads_in_turn(), bounds, config.clock.now());
        Self {
            reader,
            progress,
            pump: Pump { assign, down, counters: OperatorCounters::default() },
            config,
            state: State::Reading,
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
        let _flow = output.look_up();
        let reader = &mut self.reader;
        let polled = Blame::on(self.config.operator, || reader.poll(&mut output, now));
        let emitted = output.emitted();
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

    /// Sends what event time has come to: at once when the reader has run dry, else once per interval.
    fn tell_progress(&mut self, dry: bool, context: &mut StepContext) {
        if A::ENABLED {
            self.progress.settle(context.now);
            if dry && let Some(at) = self.progress.next_idle_at() {
                context.wake_at(at);
            }
        }
        let due = context.now.saturating_sub(self.progress.emitted_at) >= self.config.watermark_interval;
        if !dry && !due {
            return;
        }
        self.progress.send(&mut self.pump.down, context);
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
        if context.is_blocked() {
            self.progress.hold_up(context.now);
            return Step::Blocked;
        }
        if self.state == State::Finishing {
            return Step::Done;
        }
        self.progress.go_on(context.now);
        let step = self.read(context);
        if context.has_failed() {
            return step;
        }
        if step == Step::Done {
            self.state = State::Finishing;
            // Where this subtask has come to, for those behind it that wait for idle ones only.
            if let Some(watermark) = self.progress.reached() {
                self.pump.down.signal(Signal::Watermark(watermark), context);
            }
            self.pump.down.signal(Signal::Watermark(WATERMARK_MAX), context);
            self.pump.down.signal(Signal::End, context);
        } else {
            self.tell_progress(step == Step::Idle, context);
        }
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
        self.pump.down.report(counters.records_out, visitor);
    }

    fn watermark(&self) -> Timestamp {
        if self.state == State::Finishing { WATERMARK_MAX } else { self.progress.merge.merged() }
    }

    fn queue(&self) -> (usize, usize) {
        (0, 0)
    }

    fn latency(&self) -> &LatencyHistogram {
        &self.latency
    }
}
