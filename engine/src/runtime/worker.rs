//! The worker: one per core, *the* hot loop. It steps its tasks in the order of flow and never blocks.
//!
//! A turn: look for a stop, a wish for a report and mail from the control plane; give each unfinished task one step; say whether anything
//! was done. The platform calls it again at once, or parks the core until a channel or a timer wakes it.
//!
//! A task that fails or panics, with the name of the operator, stops the whole job: the first failure is kept, and every worker drops its
//! tasks at its next turn. Where the job has several [regions](crate::model::regions) and may be started again, it stops its own region only:
//! the worker drops that region's tasks, others are told to drop theirs, and all build them anew when the control plane sends
//! them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    blame::Blame,
    builder::Builder,
    checkpoints::{CheckpointDesk, TaskAt},
    slot::{Slot, first_operator},
};
use crate::{
    model::{
        checkpoint::{CheckpointContext, CheckpointId, FromWorker, ToWorker},
        checkpoint_error::CheckpointError,
        error::Error,
        graph::{Crew, StoreRegistry, unwound},
        metrics::{LatencyHistogram, OperatorInfo, WorkerReport},
        operator::{OperatorIndex, StepContext, TaskCheckpoint},
        regions::{RegionIndex, Regions},
        shared::JobShared,
        source::BoxError,
        task::Step,
    },
    platform::{Clock, Drive, Nanos, PlatformError, Turn},
};

/// Age at which a reading of the wall clock is renewed. It counts milliseconds: one reading serves many turns.
const WALL_AGE_MAX: Nanos = 100_000;

/// One worker with its tasks.
pub struct Worker {
    index: usize,
    slots: Vec<Slot>,
    shared: Arc<JobShared>,
    regions: Arc<Regions>,
    operators: Arc<[OperatorInfo]>,
    builder: Builder,
    clock: Arc<dyn Clock>,
    context: StepContext,
    wall_millis: i64,
    wall_read_at: Nanos,
    reported: u64,
    checkpoints: CheckpointDesk,
    /// Steps in which a barrier was passed, and nothing else done.
    stalls: LatencyHistogram,
    /// Where regions fail apart: those of which it is to be told when all their tasks here have come to their end.
    untold: Vec<RegionIndex>,
    /// It may leave when all its tasks have come to their end.
    may_leave: bool,
}

/// The places of a worker's tasks.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The region of the task.
    pub region: RegionIndex,
    /// Whether it begins with a source.
    pub is_source: bool,
}

impl Worker {
    /// A worker with places for tasks, in the order of flow, and nobody there yet. What it builds its tasks with says which
    /// worker it is.
    pub fn new(places: &[Place], regions: Arc<Regions>, shared: Arc<JobShared>, builder: Builder) -> Self {
        let template = builder.template();
        let (clock, operators) = (Arc::clone(&template.subtask.clock), Arc::clone(&template.operators));
        let checkpoints = CheckpointDesk::new(Arc::clone(&shared), StoreRegistry::clone(&template.stores));
        let (now, wall_millis) = (clock.now(), clock.wall_millis());
        Self {
            index: template.subtask.subtask,
            slots: places.iter().map(|place| Slot::vacant(place.region, place.is_source)).collect(),
            shared,
            may_leave: !regions.are_many(),
            regions,
            operators,
            builder,
            clock,
            context: StepContext::new(now, wall_millis),
            wall_millis,
            wall_read_at: now,
            reported: 0,
            checkpoints,
            stalls: LatencyHistogram::default(),
            untold: Vec::new(),
        }
    }

    /// Builds tasks, each in its place. If one does not open, its region has failed.
    pub fn build(&mut self, crew: Crew) {
        let Crew { region, tasks, checkpoints } = crew;
        let mut operators = Vec::new();
        for plan in tasks {
            let slot = plan.slot;
            operators.extend_from_slice(&plan.operators);
            match self.builder.build(plan, &checkpoints) {
                Ok(task) => self.slots[slot].fill(task, checkpoints.before, self.clock.now()),
                Err((operator, cause)) => return self.fail(region, operator, cause),
            }
        }
        if let Err(error) = self.all_restored(region, &operators, &checkpoints) {
            return self.shared.fail(error.into());
        }
        if self.regions.are_many() {
            self.untold.push(region);
        }
    }

    /// Checks that the operators of a region have taken up all that a checkpoint holds of them, and opened all states that their stores were
    /// restored with, or may leave some: what they leave is not in the next checkpoint.
    fn all_restored(
        &self,
        region: RegionIndex,
        operators: &[OperatorIndex],
        checkpoints: &CheckpointContext,
    ) -> Result<(), CheckpointError> {
        let template = self.builder.template();
        let words = |operator| template.not_taken(operator, &checkpoints.restored);
        let left = operators.iter().map(|operator| (*operator, words(*operator).join(", ")));
        let unopened = self.checkpoints.unopened(|operator| self.regions.of_operator(operator) == region);
        let unopened = unopened.into_iter().map(|(operator, names)| (operator, names.join(", ")));
        let mut left = left.filter(|(_, words)| !words.is_empty()).chain(unopened);
        if !template.config.checkpoints.as_ref().is_some_and(|settings| settings.allow_non_restored_state) {
            let label = |(operator, states): (OperatorIndex, _)| {
                let operator = self.operators[operator as usize].label();
                CheckpointError::NonRestoredStates { operator, states }
            };
            return left.next().map_or(Ok(()), |left| Err(label(left)));
        }
        // One worker has a subtask of every operator.
        for (operator, states) in left.filter(|_| self.index == 0) {
            let operator = self.operators[operator as usize].label();
            tracing::warn!(
                operator,
                states,
                "what the checkpoint holds of an operator and it does not open is dropped"
            );
        }
        Ok(())
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
                    self.fail_task(index, failed.map(|failed| (Some(failed.operator), failed.cause)));
                    return Turn::Busy { until: now };
                }
                Err(panic) => {
                    self.fail_task(index, Some((Blame::take(), unwound(panic))));
                    return Turn::Busy { until: now };
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
        if self.checkpoints.is_unheard() {
            self.checkpoints.wake_control(self.passed(|_| true));
        }
        if !self.untold.is_empty() && !self.checkpoints.is_waiting() {
            self.tell_done();
        }
        if !unfinished && self.may_leave && !self.checkpoints.is_waiting() {
            self.leave();
            Turn::Done
        } else if busy {
            Turn::Busy { until: now }
        } else {
            Turn::Idle { wake_at }
        }
    }

    /// Takes what the task in slot `index` has said about checkpoints.
    #[cold]
    fn note_checkpoint(&mut self, index: usize, checkpoint: TaskCheckpoint) {
        let slot = &mut self.slots[index];
        let task = TaskAt { index, subtask: self.index, is_source: slot.is_source };
        if checkpoint.at_end {
            self.shared.tell_control(FromWorker::AtEnd(slot.region));
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
        let sent = self.passed(|slot| slot.is_source);
        self.context.triggers.retain(|barrier| barrier.checkpoint > sent);
    }

    /// The last checkpoint whose barrier all tasks among these have passed that are not done.
    fn passed(&self, is_one: impl Fn(&Slot) -> bool) -> CheckpointId {
        let open = self.slots.iter().filter(|slot| is_one(slot) && !slot.done);
        open.map(|slot| slot.passed).min().unwrap_or(CheckpointId::MAX)
    }

    /// Does what the control plane asks for, and hears what became of snapshots.
    fn attend(&mut self) {
        let mut broken = Vec::new();
        while let Some(message) = self.shared.next_for_worker(self.index) {
            match message {
                ToWorker::Trigger(barrier) if self.slots.iter().any(|slot| slot.is_source) => {
                    self.context.triggers.push(barrier);
                }
                ToWorker::Trigger(_) => {}
                ToWorker::Drain => self.context.drains = true,
                ToWorker::Kept(oldest) => self.context.oldest_kept = oldest,
                ToWorker::Retire(checkpoint) => broken.extend(self.checkpoints.retire(checkpoint)),
                ToWorker::Drop(region) => {
                    self.drop_region(region);
                    // What is built behind this has stores of its own.
                    broken.retain(|(operator, _)| self.regions.of_operator(*operator) != region);
                    self.shared.tell_control(FromWorker::Dropped(region));
                }
                ToWorker::Build => {
                    let crew = self.shared.next_crew(self.index);
                    crew.into_iter().for_each(|crew| self.build(crew));
                }
                ToWorker::Leave => self.may_leave = true,
            }
        }
        if self.checkpoints.is_waiting() {
            let began = self.clock.now();
            match self.checkpoints.go_on() {
                Ok(true) => self.stalls.record(self.clock.now().saturating_sub(began), 1),
                Ok(false) => {}
                Err(store) => broken.push(store),
            }
            broken.extend(self.checkpoints.poll());
        }
        for (operator, error) in broken {
            let region = self.regions.of_operator(operator);
            // One that is not there has failed already.
            if self.slots.iter().any(|slot| slot.region == region && !slot.is_vacant) {
                self.fail(region, Some(operator), error.into());
            }
        }
    }

    /// Says which regions have come to their end here.
    #[cold]
    fn tell_done(&mut self) {
        let slots = &self.slots;
        self.untold.retain(|region| {
            let done = slots.iter().filter(|slot| slot.region == *region).all(|slot| slot.done);
            if done {
                self.shared.tell_control(FromWorker::Done(*region));
            }
            !done
        });
    }

    /// Drops all tasks of a region, and what they have in checkpoints under way.
    #[cold]
    fn drop_region(&mut self, region: RegionIndex) {
        self.untold.retain(|untold| *untold != region);
        for slot in self.slots.iter_mut().filter(|slot| slot.region == region && !slot.is_vacant) {
            let operator = first_operator(&*slot.task);
            let task = slot.clear();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(task))) {
                // It may have left anything behind.
                let operator = name_of(&self.operators, Blame::take().or(operator));
                let cause = Arc::new(unwound(panic));
                self.shared.fail(Error::Operator { operator, subtask: self.index, cause });
            }
        }
        let (slots, regions) = (&self.slots, &self.regions);
        let is_operator = |operator| regions.of_operator(operator) == region;
        self.checkpoints.drop_region(|task| slots[task].region == region, is_operator);
    }

    /// Stops the region of the task in slot `index`, or the job.
    #[cold]
    fn fail_task(&mut self, index: usize, failed: Option<(Option<OperatorIndex>, BoxError)>) {
        self.context.forget_step();
        let (operator, cause) = failed.unwrap_or_else(|| (None, "it failed without saying why".into()));
        // A panic outside user code has no operator to blame: the first of its task stands for all.
        let operator = operator.or_else(|| first_operator(&*self.slots[index].task));
        self.fail(self.slots[index].region, operator, cause);
    }

    /// Stops a region because of one of its operators; the job, where regions do not fail apart.
    #[cold]
    fn fail(&mut self, region: RegionIndex, operator: Option<OperatorIndex>, cause: BoxError) {
        let operator = name_of(&self.operators, operator);
        let failure = Error::Operator { operator, subtask: self.index, cause: Arc::new(cause) };
        if self.regions.are_many() {
            self.drop_region(region);
            self.shared.tell_control(FromWorker::Failed(region, failure));
        } else {
            self.shared.fail(failure);
        }
    }

    /// The last report, and nothing left behind.
    fn leave(&mut self) {
        self.checkpoints.close();
        self.shared.report(self.index, self.shared.report_wanted(), true, self.report());
        self.slots.clear();
    }

    fn report(&self) -> WorkerReport {
        let (now, wall_millis) = (self.clock.now(), self.clock.wall_millis());
        let there = self.slots.iter().filter(|slot| !slot.is_vacant);
        WorkerReport {
            tasks: there.map(|slot| slot.report(self.index, now, wall_millis)).collect(),
            wall_millis,
            stalls: self.stalls.clone(),
        }
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

/// What an error calls an operator.
fn name_of(operators: &[OperatorInfo], operator: Option<OperatorIndex>) -> String {
    let info = operator.and_then(|operator| operators.get(operator as usize));
    info.map_or_else(|| "unknown".to_owned(), OperatorInfo::label)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tidemill_storage::{log::pool::BlockPool, store::files::WriterKind};

    use super::*;
    use crate::{
        model::{
            checkpoint::{Barrier, BarrierKind, Part},
            config::JobConfig,
            graph::{BuildContext, TakenShares, TaskPlan},
            metrics::OperatorVisitor,
            source::SubtaskContext,
            task::Task,
            time::Timestamp,
        },
        platform::{Platform, SimPlatform, Wake, wakes::Wakes},
    };

    /// Does what it is told at each step.
    struct Puppet {
        act: Box<dyn FnMut(&mut StepContext) -> Step>,
        latency: LatencyHistogram,
    }

    impl Task for Puppet {
        fn step(&mut self, context: &mut StepContext) -> Step {
            (self.act)(context)
        }

        fn report(&self, _visitor: &mut dyn OperatorVisitor) {}

        fn watermark(&self) -> Timestamp {
            0
        }

        fn queue(&self) -> (usize, usize) {
            (0, 0)
        }

        fn latency(&self) -> &LatencyHistogram {
            &self.latency
        }
    }

    fn plan(slot: usize, act: impl FnMut(&mut StepContext) -> Step + Send + 'static) -> TaskPlan {
        let build = move |_: &BuildContext| {
            let act: Box<dyn FnMut(&mut StepContext) -> Step> = Box::new(act);
            Ok(Box::new(Puppet { act, latency: LatencyHistogram::default() }) as Box<dyn Task>)
        };
        TaskPlan { slot, parallelism: 1, operators: Vec::new(), build: Box::new(build) }
    }

    fn crew(region: RegionIndex, tasks: Vec<TaskPlan>) -> Crew {
        Crew { region, tasks, checkpoints: CheckpointContext::default() }
    }

    /// A worker with one task in each region, and what it shares.
    fn worker(regions: usize) -> (Worker, Arc<JobShared>) {
        worker_under(Arc::new(Wakes::default()), regions)
    }

    /// The same, with a control plane that is woken like this.
    fn worker_under(coordinator: Arc<dyn Wake>, regions: usize) -> (Worker, Arc<JobShared>) {
        let platform = SimPlatform::new(1);
        let subtask = SubtaskContext {
            subtask: 0,
            parallelism: 1,
            clock: platform.clock(),
            waker: Arc::new(Wakes::default()),
            disk: Platform::disk(&platform),
            inline_io: true,
        };
        let template = BuildContext {
            subtask,
            config: Arc::new(JobConfig::default()),
            operators: Arc::new([]),
            state_pool: BlockPool::new(false),
            disk: Platform::disk(&platform),
            state_writer: WriterKind::Thread,
            checkpoints: CheckpointContext::default(),
            stores: StoreRegistry::default(),
            taken: TakenShares::default(),
        };
        let shared = Arc::new(JobShared::new(vec![Arc::new(Wakes::default())]).with_control(coordinator));
        let places: Vec<Place> = (0..regions).map(|region| Place { region, is_source: false }).collect();
        let apart = Arc::new(Regions::apart(regions));
        (Worker::new(&places, apart, Arc::clone(&shared), Builder::new(template, None)), shared)
    }

    #[test]
    fn a_worker_that_goes_with_tasks_left_fails_the_job() {
        let (mut worker, shared) = worker(1);
        worker.build(crew(0, vec![plan(0, |_| Step::Idle)]));
        drop(worker);
        assert!(shared.is_stopped());
        assert!(matches!(shared.failure(), Some(Error::Platform(_))), "{:?}", shared.failure());
    }

    #[test]
    fn a_task_that_panics_goes_with_its_region_and_leaves_nothing_to_the_others() {
        let (mut worker, shared) = worker(2);
        let steps = Arc::new(AtomicU64::new(0));
        worker.build(crew(
            0,
            vec![plan(0, |context| {
                // Half of its part in a checkpoint, and a failure that nobody asks for any more.
                context.add_part(7, Part::State);
                context.fail(7, "first".into());
                panic!("expected by the test");
            })],
        ));
        let other = {
            let steps = Arc::clone(&steps);
            plan(1, move |context: &mut StepContext| {
                if steps.fetch_add(1, Ordering::Relaxed) == 0 {
                    context.pass(Barrier { checkpoint: 3, kind: BarrierKind::Running });
                }
                Step::Progress
            })
        };
        worker.build(crew(1, vec![other]));
        for _ in 0..3 {
            assert!(matches!(worker.turn(0), Turn::Busy { .. }));
        }
        assert_eq!(steps.load(Ordering::Relaxed), 2, "all but the turn of the panic");
        assert!(!shared.is_stopped() && shared.failure().is_none());
        assert!(matches!(shared.next_for_control(), Some(FromWorker::Failed(0, _))));
        let Some(FromWorker::Passed(passed)) = shared.next_for_control() else { panic!("it has passed") };
        assert_eq!((passed.checkpoint, passed.operators.len()), (3, 0));
        assert!(shared.next_for_control().is_none());
    }

    #[test]
    fn the_control_plane_is_woken_when_all_tasks_have_told_what_they_have_in_a_checkpoint() {
        let wakes = Arc::new(Wakes::default());
        let (mut worker, shared) = worker_under(Arc::clone(&wakes) as Arc<dyn Wake>, 3);
        // The third ends before its barrier has come.
        for (slot, passes_at) in [(0, 1), (1, 3), (2, u64::MAX)] {
            let mut steps = 0;
            let act = move |context: &mut StepContext| {
                steps += 1;
                if steps == passes_at {
                    context.pass(Barrier { checkpoint: 5, kind: BarrierKind::Running });
                }
                if steps == 5 && passes_at == u64::MAX { Step::Done } else { Step::Progress }
            };
            worker.build(crew(slot, vec![plan(slot, act)]));
        }
        let mut heard = Vec::new();
        for _ in 0..5 {
            assert!(matches!(worker.turn(0), Turn::Busy { .. }));
            let told = std::iter::from_fn(|| shared.next_for_control());
            let passed = told.filter(|told| matches!(told, FromWorker::Passed(_))).count();
            heard.push((passed, wakes.take()));
        }
        // The end of the third wakes it once more, as the end of its region.
        assert_eq!(heard, [(1, 0), (0, 0), (1, 0), (0, 0), (0, 2)]);
    }

    #[test]
    fn a_worker_drops_builds_and_leaves_as_it_is_told() {
        let (mut worker, shared) = worker(2);
        worker.build(crew(0, vec![plan(0, |_| Step::Done)]));
        worker.build(crew(1, vec![plan(1, |_| Step::Idle)]));
        assert!(matches!(worker.turn(0), Turn::Busy { .. }));
        assert!(matches!(shared.next_for_control(), Some(FromWorker::Done(0))));
        shared.tell_workers(ToWorker::Drop(1));
        assert_eq!(worker.turn(0), Turn::Idle { wake_at: None });
        assert!(matches!(shared.next_for_control(), Some(FromWorker::Dropped(1))));
        assert_eq!(worker.report().tasks.len(), 1);
        shared.send_crew(0, crew(1, vec![plan(1, |_| Step::Done)]));
        assert!(matches!(worker.turn(0), Turn::Busy { .. }));
        assert!(matches!(shared.next_for_control(), Some(FromWorker::Done(1))));
        assert_eq!(worker.turn(0), Turn::Idle { wake_at: None }, "others may not have ended");
        shared.tell_workers(ToWorker::Leave);
        assert_eq!(worker.turn(0), Turn::Done);
        assert!(shared.all_left() && shared.next_for_control().is_none());
    }

    #[test]
    fn a_region_that_does_not_open_is_dropped_as_one_that_fails_later() {
        let (mut worker, shared) = worker(2);
        let build = |_: &BuildContext| -> Result<Box<dyn Task>, _> { panic!("expected by the test") };
        let broken = TaskPlan { slot: 0, parallelism: 1, operators: Vec::new(), build: Box::new(build) };
        worker.build(crew(0, vec![broken]));
        worker.build(crew(1, vec![plan(1, |_| Step::Idle)]));
        assert!(matches!(shared.next_for_control(), Some(FromWorker::Failed(0, Error::Operator { .. }))));
        assert_eq!((worker.turn(0), shared.is_stopped()), (Turn::Idle { wake_at: None }, false));
    }
}
