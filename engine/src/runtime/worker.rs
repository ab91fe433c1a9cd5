//! The worker: one per core, *the* hot loop. It steps its tasks in the order of flow and never blocks.
//!
//! A turn: look for a stop, a wish for a report and mail from the control plane; give each unfinished task one step; say whether anything
//! was done. The platform calls it again at once, or parks the core until a channel or a timer wakes it.
//!
//! A task that fails or panics stops the whole job: the first failure is kept, with the name of the
//! operator, and every worker drops its tasks at its next turn.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    blame::Blame,
    checkpoints::{CheckpointDesk, TaskAt},
};
use crate::{
    model::{
        checkpoint::{CheckpointId, FromWorker, ToWorker},
        error::Error,
        graph::{StoreRegistry, unwound},
        metrics::{
            LatencyHistogram, OperatorCounters, OperatorInfo, OperatorVisitor, TaskReport, TaskTimes,
            WorkerReport,
        },
        operator::{OpenError, OperatorIndex, StepContext, TaskCheckpoint},
        shared::JobShared,
        source::BoxError,
        task::{Step, Task},
    },
    platform::{Clock, Drive, Nanos, PlatformError, Turn},
};

/// Age at which a reading of the wall clock is renewed. It counts milliseconds: one reading serves many turns.
const WALL_AGE_MAX: Nanos = 100_000;

/// A task and what the worker notes about it.
struct Slot {
    task: Box<dyn Task>,
    subtask: usize,
    is_source: bool,
    /// The last checkpoint whose barrier it has passed.
    passed: CheckpointId,
    done: bool,
    /// What the last step came to; the time since then is charged to it.
    last: Step,
    since: Nanos,
    times: TaskTimes,
}

/// One worker with its tasks.
pub struct Worker {
    index: usize,
    slots: Vec<Slot>,
    shared: Arc<JobShared>,
    operators: Arc<[OperatorInfo]>,
    clock: Arc<dyn Clock>,
    context: StepContext,
    wall_millis: i64,
    wall_read_at: Nanos,
    reported: u64,
    checkpoints: CheckpointDesk,
    /// Steps in which a barrier was passed, and nothing else done.
    stalls: LatencyHistogram,
}

/// A task, on its way to its worker.
pub struct OpenedTask {
    /// Its subtask's index.
    pub subtask: usize,
    /// Whether it begins with a source.
    pub is_source: bool,
    /// The task.
    pub task: Box<dyn Task>,
}

impl Worker {
    /// A worker with `tasks`, in the order of flow, and the stores of their operators.
    pub fn new(
        index: usize,
        tasks: Vec<OpenedTask>,
        stores: StoreRegistry,
        shared: Arc<JobShared>,
        operators: Arc<[OperatorInfo]>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let now = clock.now();
        let slots = tasks.into_iter().map(|OpenedTask { subtask, is_source, task }| Slot {
            task,
            subtask,
            is_source,
            passed: 0,
            done: false,
            last: Step::Idle,
            since: now,
            times: TaskTimes::default(),
        });
        let slots = slots.collect();
        let wall_millis = clock.wall_millis();
        let context = StepContext::new(now, wall_millis);
        let checkpoints = CheckpointDesk::new(Arc::clone(&shared), stores);
        Self {
            index,
            slots,
            shared,
            operators,
            clock,
            context,
            wall_millis,
            wall_read_at: now,
            reported: 0,
            checkpoints,
            stalls: LatencyHistogram::default(),
        }
    }

    fn step_all(&mut self, now: Nanos) -> Turn {
        if now.saturating_sub(self.wall_read_at) >= WALL_AGE_MAX {
            self.wall_millis = self.clock.wall_millis();
            self.wall_read_at = now;
        }
        let mut now = now;
        let mut busy = false;
        let mut unfinished = false;
        let mut wake_at = None;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.done {
                continue;
            }
            self.context.begin(now, self.wall_millis);
            let context = &mut self.context;
            let stepped = catch_unwind(AssertUnwindSafe(|| slot.task.step(context)));
            let step = match stepped {
                Ok(step) if !self.context.has_failed() => step,
                Ok(_) => {
                    let failed = self.context.take_failure();
                    self.fail(index, failed.map(|failed| (Some(failed.operator), failed.cause)));
                    return Turn::Busy;
                }
                Err(panic) => {
                    self.fail(index, Some((Blame::take(), unwound(panic))));
                    return Turn::Busy;
                }
            };
            let checkpoint = self.context.take_checkpoint();
            let stalls = checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.passed.is_empty());
            if let Some(checkpoint) = checkpoint {
                self.note_checkpoint(index, checkpoint);
            }
            let slot = &mut self.slots[index];
            match step {
                Step::Progress | Step::Done => {
                    busy = true;
                    let after = self.clock.now();
                    if stalls {
                        self.stalls.record(after.saturating_sub(now), 1);
                    }
                    slot.task.settle(after);
                    slot.charge(now);
                    slot.times.busy += after - now.min(after);
                    slot.since = after;
                    now = after;
                }
                Step::Idle | Step::Blocked => slot.charge(now),
            }
            slot.last = step;
            slot.done = step == Step::Done;
            unfinished |= !slot.done;
            if let Some(at) = self.context.take_wake_at() {
                wake_at = Some(wake_at.map_or(at, |earlier: Nanos| earlier.min(at)));
            }
        }
        if !unfinished && !self.checkpoints.is_waiting() {
            self.leave();
            Turn::Done
        } else if busy {
            Turn::Busy
        } else {
            Turn::Idle { wake_at }
        }
    }

    /// Takes what the task in slot `index` has said about checkpoints.
    #[cold]
    fn note_checkpoint(&mut self, index: usize, checkpoint: TaskCheckpoint) {
        let slot = &mut self.slots[index];
        let task = TaskAt { index, subtask: slot.subtask, is_source: slot.is_source };
        if checkpoint.at_end {
            self.shared.tell_control(FromWorker::AtEnd);
        }
        for (barrier, parts) in checkpoint.passed {
            slot.passed = barrier.checkpoint;
            self.checkpoints.pass(task, barrier, parts);
        }
        for (checkpoint, overtaken) in checkpoint.overtaken {
            let failed = overtaken.as_ref().err();
            let operator = failed.and_then(|_| first_operator(&*slot.task)).unwrap_or_default();
            self.checkpoints.add_overtaken(task, operator, checkpoint, overtaken);
        }
        let sources = self.slots.iter().filter(|slot| slot.is_source && !slot.done);
        let sent = sources.map(|slot| slot.passed).min().unwrap_or(CheckpointId::MAX);
        self.context.triggers.retain(|barrier| barrier.checkpoint > sent);
    }

    /// Does what the control plane asks for, and hears what became of snapshots.
    fn attend(&mut self) {
        let mut heard = Ok(());
        while let Some(message) = self.shared.next_for_worker(self.index) {
            match message {
                ToWorker::Trigger(barrier) if self.slots.iter().any(|slot| slot.is_source) => {
                    self.context.triggers.push(barrier);
                }
                ToWorker::Trigger(_) => {}
                ToWorker::Drain => self.context.drains = true,
                ToWorker::Kept(oldest) => self.context.oldest_kept = oldest,
                ToWorker::Retire(checkpoint) => heard = heard.and(self.checkpoints.retire(checkpoint)),
            }
        }
        if self.checkpoints.is_waiting() {
            heard = heard.and(self.checkpoints.poll());
        }
        if let Err((operator, error)) = heard {
            let operator = self.operators[operator as usize].name.clone();
            self.shared.fail(Error::Operator {
                operator,
                subtask: self.index,
                cause: Arc::new(error.into()),
            });
        }
    }

    /// Stops the job because of the task in slot `index`.
    #[cold]
    fn fail(&mut self, index: usize, failed: Option<(Option<OperatorIndex>, BoxError)>) {
        let (operator, cause) = failed.unwrap_or_else(|| (None, "it failed without saying why".into()));
        // A panic outside user code has no operator to blame: the first of its task stands for all.
        let operator = operator.or_else(|| first_operator(&*self.slots[index].task));
        let info = operator.and_then(|operator| self.operators.get(operator as usize));
        let operator = info.map_or_else(|| "unknown".to_owned(), |info| info.name.clone());
        let subtask = self.slots[index].subtask;
        self.shared.fail(Error::Operator { operator, subtask, cause: Arc::new(cause) });
    }

    /// The last report, and nothing left behind.
    fn leave(&mut self) {
        self.checkpoints.close();
        self.shared.report(self.index, self.shared.report_wanted(), true, self.report());
        self.slots.clear();
    }

    fn report(&self) -> WorkerReport {
        let tasks = self.slots.iter().map(|slot| {
            let mut operators = Collect::default();
            slot.task.report(&mut operators);
            let (queued, queue_max) = slot.task.queue();
            TaskReport {
                subtask: slot.subtask,
                operators: operators.0,
                times: slot.times.clone(),
                watermark: slot.task.watermark(),
                queued,
                queue_max,
                latency: slot.task.latency().clone(),
            }
        });
        WorkerReport {
            tasks: tasks.collect(),
            wall_millis: self.clock.wall_millis(),
            stalls: self.stalls.clone(),
        }
    }
}

impl Slot {
    /// Charges the time since the last step to what that step came to.
    fn charge(&mut self, now: Nanos) {
        let waited = now.saturating_sub(self.since);
        match self.last {
            Step::Blocked => self.times.blocked += waited,
            Step::Idle => self.times.idle += waited,
            // Between two steps with progress the worker was busy with other tasks.
            Step::Progress | Step::Done => {}
        }
        self.since = now;
    }
}

impl Drive for Worker {
    fn turn(&mut self, now: Nanos) -> Turn {
        if self.shared.is_stopped() {
            self.leave();
            return Turn::Done;
        }
        let wanted = self.shared.report_wanted();
        if wanted != self.reported {
            self.reported = wanted;
            self.shared.report(self.index, wanted, false, self.report());
        }
        self.attend();
        self.step_all(now)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that goes with tasks left has been unwound: the others must not wait for what it would have sent.
        if !self.slots.is_empty() {
            let cause = "its thread panicked outside of the operators".to_owned();
            self.shared.fail(PlatformError::WorkerLost { worker: self.index, cause }.into());
        }
        // However a worker ends, nobody waits for its report.
        self.shared.leave(self.index);
    }
}

/// The first operator of a task.
fn first_operator(task: &dyn Task) -> Option<OperatorIndex> {
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

/// Makes the tasks of a worker; a panic in user code that opens is an error like any other.
///
/// # Errors
/// The operator that did not open, and why.
pub fn open<R>(build: impl FnOnce() -> Result<R, OpenError>) -> Result<R, (Option<OperatorIndex>, BoxError)> {
    match catch_unwind(AssertUnwindSafe(build)) {
        Ok(Ok(built)) => Ok(built),
        Ok(Err(failed)) => Err((Some(failed.operator), failed.cause)),
        Err(panic) => Err((Blame::take(), unwound(panic))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::time::Timestamp,
        platform::{Platform, SimPlatform},
    };

    struct Endless;

    impl Task for Endless {
        fn step(&mut self, _context: &mut StepContext) -> Step {
            Step::Idle
        }

        fn report(&self, _visitor: &mut dyn OperatorVisitor) {}

        fn watermark(&self) -> Timestamp {
            0
        }

        fn queue(&self) -> (usize, usize) {
            (0, 0)
        }

        fn latency(&self) -> &LatencyHistogram {
            unreachable!("nobody asks")
        }
    }

    #[test]
    fn a_worker_that_goes_with_tasks_left_fails_the_job() {
        struct Nobody;
        impl crate::platform::Wake for Nobody {
            fn wake(&self) {}
        }
        let shared = Arc::new(JobShared::new(vec![Arc::new(Nobody)]));
        let tasks = vec![OpenedTask { subtask: 0, is_source: false, task: Box::new(Endless) }];
        let clock = SimPlatform::new(1).clock();
        let worker =
            Worker::new(0, tasks, StoreRegistry::default(), Arc::clone(&shared), Arc::new([]), clock);
        drop(worker);
        assert!(shared.is_stopped());
        assert!(matches!(shared.failure(), Some(Error::Platform(_))), "{:?}", shared.failure());
    }
}
