//! A task: what the worker steps. One per chain and subtask; the only place where types are erased.

use super::{
    metrics::{LatencyHistogram, OperatorVisitor, SourceTime},
    operator::StepContext,
    time::Timestamp,
};
use crate::platform::Nanos;

/// What one step of a task came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Records or signals were handled; there may be more.
    Progress,
    /// No input.
    Idle,
    /// Input may be there, but an output is over its bound.
    Blocked,
    /// Everything was handed on; the task is never stepped again.
    Done,
}

/// A fused chain of operators, from its input to its end.
pub trait Task {
    /// Handles input within the step's budget. Never blocks.
    fn step(&mut self, context: &mut StepContext) -> Step;

    /// Called after every step that came to [`Step::Progress`] or [`Step::Done`], with the time at its end: notes the
    /// latency of what the step handled, behind the step's back and with one reading of the clock.
    fn settle(&mut self, now: Nanos) {
        let _ = now;
    }

    /// Shows the counters of all operators of the task.
    fn report(&self, visitor: &mut dyn OperatorVisitor);

    /// The watermark that the task has seen on its inputs (for a source: given out).
    fn watermark(&self) -> Timestamp;

    /// How far subtask `subtask` of a source has come in event time; `None` where the task begins with something else, or its records have no
    /// timestamps. It is now `now`, and `wall_millis` by the wall clock.
    fn source_time(&self, subtask: usize, now: Nanos, wall_millis: i64) -> Option<SourceTime> {
        let _ = (subtask, now, wall_millis);
        None
    }

    /// Batches that wait in the task's input channels, and the number that fits.
    fn queue(&self) -> (usize, usize);

    /// Latency of the records that it has handled.
    fn latency(&self) -> &LatencyHistogram;
}
