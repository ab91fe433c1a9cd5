//! A task on its worker, and what the worker notes about it.

use crate::{
    model::{
        checkpoint::CheckpointId,
        metrics::{LatencyHistogram, OperatorCounters, OperatorVisitor, TaskReport, TaskTimes},
        operator::{OperatorIndex, StepContext},
        regions::RegionIndex,
        task::{Step, Task},
        time::{Timestamp, WATERMARK_MIN},
    },
    platform::Nanos,
};

/// The place of a task on its worker. It is the same place when the task was dropped and is built anew.
pub(super) struct Slot {
    pub(super) task: Box<dyn Task>,
    pub(super) region: RegionIndex,
    pub(super) is_source: bool,
    /// Nobody is there: its region has failed, or was not built yet.
    pub(super) is_vacant: bool,
    /// The last checkpoint whose barrier it has passed.
    pub(super) passed: CheckpointId,
    /// It is not to be stepped any more.
    pub(super) done: bool,
    /// What the last step came to; the time since then is charged to it.
    pub(super) last: Step,
    pub(super) since: Nanos,
    pub(super) times: TaskTimes,
}

impl Slot {
    /// A place where nobody is yet.
    pub(super) fn vacant(region: RegionIndex, is_source: bool) -> Self {
        Self {
            task: Box::new(Nobody::default()),
            region,
            is_source,
            is_vacant: true,
            passed: 0,
            done: true,
            last: Step::Idle,
            since: 0,
            times: TaskTimes::default(),
        }
    }

    /// Puts a task there, which has not passed a barrier after that of `passed`.
    pub(super) fn fill(&mut self, task: Box<dyn Task>, passed: CheckpointId, now: Nanos) {
        let (region, is_source) = (self.region, self.is_source);
        *self = Self {
            task,
            is_vacant: false,
            done: false,
            passed,
            since: now,
            ..Self::vacant(region, is_source)
        };
    }

    /// Takes the task away.
    pub(super) fn clear(&mut self) -> Box<dyn Task> {
        let vacant = Self::vacant(self.region, self.is_source);
        std::mem::replace(self, vacant).task
    }

    /// Charges the time since the last step to what that step came to.
    pub(super) fn charge(&mut self, now: Nanos) {
        let waited = now.saturating_sub(self.since);
        match self.last {
            Step::Blocked => self.times.blocked += waited,
            Step::Idle => self.times.idle += waited,
            // Between two steps with progress the worker was busy with other tasks.
            Step::Progress | Step::Done => {}
        }
        self.since = now;
    }

    /// What the task tells.
    pub(super) fn report(&self, subtask: usize, now: Nanos, wall_millis: i64) -> TaskReport {
        let mut operators = Collect::default();
        self.task.report(&mut operators);
        let (queued, queue_max) = self.task.queue();
        TaskReport {
            subtask,
            operators: operators.0,
            times: self.times.clone(),
            watermark: self.task.watermark(),
            source: self.task.source_time(subtask, now, wall_millis),
            queued,
            queue_max,
            latency: self.task.latency().clone(),
        }
    }
}

/// The first operator of a task.
pub(super) fn first_operator(task: &dyn Task) -> Option<OperatorIndex> {
    let mut all = Collect::default();
    task.report(&mut all);
    all.0.first().map(|(operator, _)| *operator)
}

#[derive(Default)]
struct Collect(Vec<(OperatorIndex, OperatorCounters)>);

impl OperatorVisitor for Collect {
    fn operator(&mut self, operator: OperatorIndex, counters: &OperatorCounters) {
        self.0.push((operator, counters.clone()));
    }
}

/// In the place of a task that is not there.
#[derive(Default)]
struct Nobody {
    latency: LatencyHistogram,
}

impl Task for Nobody {
    fn step(&mut self, _context: &mut StepContext) -> Step {
        Step::Done
    }

    fn report(&self, _visitor: &mut dyn OperatorVisitor) {}

    fn watermark(&self) -> Timestamp {
        WATERMARK_MIN
    }

    fn queue(&self) -> (usize, usize) {
        (0, 0)
    }

    fn latency(&self) -> &LatencyHistogram {
        &self.latency
    }
}
