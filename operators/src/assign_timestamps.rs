//! `assign_timestamps_and_watermarks`: gives records event time in the middle of a chain.
//!
//! State: the newest timestamp of this subtask, and the watermark sent last. A watermark follows when the input runs dry or
//! the job's watermark interval has passed. Watermarks from above are replaced; only the one at the end passes.
//!
//! What a checkpoint keeps of several subtasks becomes the least where their number changes: a watermark may then be said
//! again, and no record is late that was not.

use tidemill_engine::{
    model::{
        graph::BuildContext,
        item::Item,
        metrics::{OperatorCounters, OperatorVisitor},
        operator::{Chain, OpenError, OperatorIndex, Push, Signal, StepContext},
        time::{Timestamp, WATERMARK_MAX, WATERMARK_MIN},
        watermark::{AssignTimestamps, WatermarkBounds, WatermarkStrategy},
    },
    platform::Nanos,
    runtime::blame::Blame,
};
use tidemill_storage::Record;

use crate::kept;

/// A chain that assigns timestamps at its end.
#[derive(Clone)]
pub struct Timestamped<C, A> {
    up: C,
    operator: OperatorIndex,
    strategy: WatermarkStrategy<A>,
}

impl<C, A> Timestamped<C, A> {
    /// Assigns timestamps behind `up`.
    pub fn new(up: C, operator: OperatorIndex, strategy: WatermarkStrategy<A>) -> Self {
        Self { up, operator, strategy }
    }
}

impl<C, A> Chain for Timestamped<C, A>
where
    C: Chain,
    A: AssignTimestamps<<C::Out as Item>::View>,
{
    type Out = C::Out;
    type Task<D: Push<C::Out>> = C::Task<TimestampedPush<A, D>>;

    fn build<D: Push<C::Out>>(self, context: &BuildContext, down: D) -> Result<Self::Task<D>, OpenError> {
        let kept = kept::restored::<KeptProgress>(self.operator, context)?;
        let least = |of: fn(&KeptProgress) -> i64| kept.iter().map(of).min().unwrap_or(WATERMARK_MIN);
        let (newest, sent) = (least(|kept| kept.newest), least(|kept| kept.sent));
        let bounds = self.strategy.bounds;
        let push = TimestampedPush {
            operator: self.operator,
            assign: self.strategy.assign,
            bounds,
            interval: context.config.watermark_interval_us * 1_000,
            newest,
            heard: false,
            // That the input has ended is said again; should there be more of it now, its watermarks count.
            sent: if sent == WATERMARK_MAX { bounds.watermark(newest) } else { sent },
            sent_at: context.subtask.clock.now(),
            heard_at: context.subtask.clock.now(),
            idle: false,
            down,
        };
        self.up.build(context, push)
    }
}

/// What a checkpoint keeps of one subtask. Stored.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
struct KeptProgress {
    newest: i64,
    sent: i64,
}

/// The running operator.
pub struct TimestampedPush<A, D> {
    operator: OperatorIndex,
    assign: A,
    bounds: WatermarkBounds,
    interval: Nanos,
    newest: Timestamp,
    heard: bool,
    sent: Timestamp,
    sent_at: Nanos,
    heard_at: Nanos,
    idle: bool,
    down: D,
}

impl<I, A, D> Push<I> for TimestampedPush<A, D>
where
    I: Item,
    A: AssignTimestamps<I::View>,
    D: Push<I>,
{
    #[inline(always)]
    fn push(&mut self, item: I::Ref<'_>, _timestamp: Timestamp, context: &mut StepContext) {
        let timestamp = Blame::on(self.operator, || self.assign.timestamp(I::view(&item)));
        self.heard = true;
        if timestamp > self.newest {
            self.newest = timestamp;
        } else if timestamp <= self.bounds.watermark(self.newest) {
            // What is late depends on the records alone, not on when watermarks happen to be due.
            self.send_watermark::<I>(context);
        }
        self.down.push(item, timestamp, context);
    }

    fn signal(&mut self, signal: Signal, context: &mut StepContext) {
        match signal {
            Signal::Watermark(WATERMARK_MAX) | Signal::End => {
                // Nothing of what the records alone would say may follow.
                self.sent = WATERMARK_MAX;
                self.down.signal(signal, context);
            }
            Signal::Barrier(_) => {
                kept::keep(self.operator, &KeptProgress { newest: self.newest, sent: self.sent }, context);
                self.down.signal(signal, context);
            }
            // Made here from the records themselves, and from their absence.
            Signal::Watermark(_) | Signal::Idle | Signal::Active => {}
        }
    }

    fn drain(&mut self, context: &mut StepContext) {
        self.down.drain(context);
        if context.is_blocked() {
            // Not silent but held up: that is no idleness, and signals would only pile up.
            self.heard_at = context.now;
        } else if self.sent < WATERMARK_MAX {
            self.tell_progress::<I>(context);
        }
    }

    fn report(&self, arrived: u64, visitor: &mut dyn OperatorVisitor) {
        let (records_in, records_out) = (arrived, arrived);
        visitor.operator(
            self.operator,
            &OperatorCounters { records_in, records_out, ..OperatorCounters::default() },
        );
        self.down.report(arrived, visitor);
    }
}

impl<A, D> TimestampedPush<A, D> {
    fn send_watermark<I: Item>(&mut self, context: &mut StepContext)
    where
        D: Push<I>,
    {
        let watermark = self.bounds.watermark(self.newest);
        if watermark > self.sent {
            self.sent = watermark;
            self.sent_at = context.now;
            self.down.signal(Signal::Watermark(watermark), context);
        }
    }

    fn tell_progress<I: Item>(&mut self, context: &mut StepContext)
    where
        D: Push<I>,
    {
        if std::mem::take(&mut self.heard) {
            self.heard_at = context.now;
            if std::mem::take(&mut self.idle) {
                self.down.signal(Signal::Active, context);
            }
        }
        if context.is_dry() || context.now.saturating_sub(self.sent_at) >= self.interval {
            self.send_watermark::<I>(context);
        }
        if let Some(timeout) = self.bounds.idle_after
            && !self.idle
        {
            if context.now.saturating_sub(self.heard_at) >= timeout {
                self.idle = true;
                self.down.signal(Signal::Idle, context);
            } else {
                context.wake_at(self.heard_at.saturating_add(timeout));
            }
        }
    }
}
