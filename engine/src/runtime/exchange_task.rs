//! The task behind an exchange: takes batches and signals through its gate and drives its head.
//!
//! ```text
//!          ┌──────────── signal or timer with work left ───────────┐
//!          ▼                                                        │
//!   Resuming ── resume() = Continue ──▶ Running ── End handled ──▶ Finishing ── outputs drained ──▶ done
//! ```

use std::sync::Arc;

use tidemill_storage::record::Record;

use super::{
    exchange::{
        batch::Batch,
        gate::{Arrival, Gate},
    },
    pace::Pace,
};
use crate::{
    model::{
        checkpoint::{Barrier, BarrierKind},
        config::JobConfig,
        graph::BuildContext,
        metrics::{LatencyHistogram, OperatorCounters, OperatorVisitor},
        operator::{Head, OperatorIndex, Signal, StepContext},
        source::Flow,
        task::{Step, Task},
        time::Timestamp,
    },
    platform::Nanos,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// The head has work left from a signal or timer; `ends` when that signal was the end.
    Resuming {
        ends: bool,
    },
    Finishing,
}

/// A task behind an exchange.
pub struct ExchangeTask<T, H> {
    gate: Gate<T>,
    head: H,
    state: State,
    current: Option<Taken<T>>,
    /// A barrier that has arrived. It has a step of its own, so that what it costs is seen.
    barrier: Option<Barrier>,
    step_records_max: usize,
    pace: Pace,
    /// Batches that the current step has handled: when the oldest record of each entered the job, and how many it had.
    handled: Vec<(Nanos, u64)>,
    latency: LatencyHistogram,
    bytes_in: u64,
}

/// The batch in work.
struct Taken<T> {
    batch: Box<Batch<T>>,
    channel: usize,
    position: usize,
}

impl<T: Record, H: Head<T>> ExchangeTask<T, H> {
    /// A task that takes as many records per step as the settings of its job say, and ends one early when its time is up.
    pub fn new(gate: Gate<T>, head: H, context: &BuildContext) -> Self {
        let JobConfig { step_records_max, step_us_max, .. } = *context.config;
        let pace = Pace::new(Arc::clone(&context.subtask.clock), step_us_max * 1_000);
        let latency = LatencyHistogram::default();
        let handled = Vec::new();
        let (state, current, barrier, bytes_in) = (State::Running, None, None, 0);
        Self { gate, head, state, current, barrier, step_records_max, pace, handled, latency, bytes_in }
    }

    /// Hands records of the batch in work to the head; returns how many it took.
    fn advance(&mut self, context: &mut StepContext) -> usize {
        let Some(mut taken) = self.current.take() else { return 0 };
        context.ingest = taken.batch.ingest;
        let from = taken.position;
        let records = from..from + self.pace.stride(taken.batch.len() - from);
        taken.position = self.head.batch(&taken.batch, records, context);
        let handled = taken.position - from;
        self.put_back(taken);
        handled
    }

    fn settle(&mut self, flow: Flow, ends: bool) {
        self.state = match flow {
            Flow::Yield => State::Resuming { ends },
            Flow::Continue if ends => State::Finishing,
            Flow::Continue => State::Running,
        };
    }

    /// What a timer has made the head emit made this task look active to those behind it, and its own inputs will
    /// not say a second time that they are idle.
    fn repeat_idleness(&mut self, context: &mut StepContext) {
        if self.state == State::Running && self.gate.is_idle() {
            let flow = self.head.signal(Signal::Idle, context);
            self.settle(flow, false);
        }
    }

    /// Hands a barrier to all operators of the task.
    #[cold]
    fn pass(&mut self, barrier: Barrier, context: &mut StepContext) -> Step {
        let flow = self.head.signal(Signal::Barrier(barrier), context);
        self.settle(flow, false);
        context.pass(barrier);
        Step::Progress
    }

    /// Does what can be done though nothing more is to be emitted: passes a barrier that overtakes.
    fn run_blocked(&mut self, context: &mut StepContext) -> Step {
        if let Some(barrier) = self.barrier.take_if(|barrier| barrier.kind == BarrierKind::Overtaking) {
            return self.pass(barrier, context);
        }
        if self.barrier.is_none() && self.state == State::Running && self.gate.is_overtaken() {
            self.catch_up(context);
            let in_work = self.current.as_ref().map(|taken| (taken.channel, &*taken.batch, taken.position));
            if let Some(barrier) = self.gate.overtake(in_work) {
                return self.pass(barrier, context);
            }
        }
        self.gate.listen();
        // There may be no next step for long.
        self.gate.give_back();
        Step::Blocked
    }

    /// Lets the head emit what it holds of records that it has taken, so that it stands between two.
    fn catch_up(&mut self, context: &mut StepContext) {
        if let Some(mut taken) = self.current.take() {
            context.ingest = taken.batch.ingest;
            taken.position = self.head.catch_up(&taken.batch, taken.position, context);
            self.put_back(taken);
        }
    }

    /// Gives a batch back when it was handled, else keeps it.
    fn put_back(&mut self, taken: Taken<T>) {
        if taken.position == taken.batch.len() {
            self.handled.push((taken.batch.ingest, taken.batch.len() as u64));
            self.bytes_in += taken.batch.payload_bytes();
            self.gate.recycle(taken.batch, taken.channel);
        } else {
            self.current = Some(taken);
        }
    }

    /// Hands on what barriers that were passed have overtaken: before a later one is.
    #[inline(always)]
    fn tell_overtaken(&mut self, context: &mut StepContext) {
        let next = self.barrier.map(|barrier| barrier.checkpoint);
        while let Some((checkpoint, overtaken)) = self.gate.take_overtaken(next) {
            context.add_overtaken(checkpoint, overtaken);
        }
    }

    fn run(&mut self, context: &mut StepContext) -> Step {
        if let Some(barrier) = self.barrier.take() {
            return self.pass(barrier, context);
        }
        self.pace.begin(context.now);
        let mut records = 0;
        let mut progressed = false;
        while !context.is_blocked() {
            match self.state {
                State::Finishing => return Step::Done,
                State::Resuming { ends } => {
                    let flow = self.head.resume(context);
                    self.settle(flow, ends);
                    self.repeat_idleness(context);
                    if flow == Flow::Yield {
                        return Step::Progress;
                    }
                }
                State::Running if records >= self.step_records_max => return Step::Progress,
                State::Running if self.current.is_some() => {
                    let handled = self.advance(context);
                    records += handled;
                    if self.pace.note(handled, context.now) {
                        return Step::Progress;
                    }
                }
                State::Running if self.head.next_timer().is_some_and(|at| at <= context.wall_millis) => {
                    let flow = self.head.on_processing_time(context);
                    self.settle(flow, false);
                    self.repeat_idleness(context);
                }
                State::Running => match self.gate.poll() {
                    Some(Arrival::Batch(batch, channel)) => {
                        self.current = Some(Taken { batch, channel, position: 0 });
                    }
                    Some(Arrival::Signal(Signal::Barrier(barrier))) => {
                        self.barrier = Some(barrier);
                        return Step::Progress;
                    }
                    Some(Arrival::Signal(signal)) => {
                        let flow = self.head.signal(signal, context);
                        self.settle(flow, signal == Signal::End);
                    }
                    Some(Arrival::Nothing) => {}
                    None if progressed => return Step::Progress,
                    None => return Step::Idle,
                },
            }
            progressed = true;
        }
        if progressed { Step::Progress } else { Step::Blocked }
    }
}

impl<T: Record, H: Head<T>> Task for ExchangeTask<T, H> {
    fn step(&mut self, context: &mut StepContext) -> Step {
        self.gate.give_back();
        self.head.drain(context);
        if context.is_blocked() {
            let step = self.run_blocked(context);
            self.tell_overtaken(context);
            return step;
        }
        let step = self.run(context);
        self.tell_overtaken(context);
        context.note_pushed(step != Step::Idle);
        if step == Step::Idle
            && let Some(at) = self.head.next_timer()
        {
            context.wake_at_wall(at);
        }
        context.set_dry(matches!(step, Step::Idle | Step::Done));
        self.head.drain(context);
        // What the end has sent may still wait for room.
        if step == Step::Done && context.is_blocked() { Step::Progress } else { step }
    }

    fn settle(&mut self, now: Nanos) {
        for (ingest, records) in self.handled.drain(..) {
            self.latency.record(now.saturating_sub(ingest), records);
        }
    }

    fn report(&self, visitor: &mut dyn OperatorVisitor) {
        self.head.report(&mut FirstOperator { bytes_in: self.bytes_in, visitor });
    }

    fn watermark(&self) -> Timestamp {
        self.gate.watermark()
    }

    fn queue(&self) -> (usize, usize) {
        self.gate.fill()
    }

    fn latency(&self) -> &LatencyHistogram {
        &self.latency
    }
}

/// Adds the bytes that the task has taken from its exchange to the counters of its first operator.
struct FirstOperator<'v> {
    bytes_in: u64,
    visitor: &'v mut dyn OperatorVisitor,
}

impl OperatorVisitor for FirstOperator<'_> {
    fn operator(&mut self, operator: OperatorIndex, counters: &OperatorCounters) {
        let bytes_in = std::mem::take(&mut self.bytes_in) + counters.bytes_in;
        self.visitor.operator(operator, &OperatorCounters { bytes_in, ..counters.clone() });
    }
}
