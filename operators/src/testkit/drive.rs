//! Steps a task under test by hand, in the worker's place.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use tidemill_engine::{
    model::{
        checkpoint::{Barrier, CheckpointContext, Part, SubtaskState},
        config::JobConfig,
        graph::{BuildContext, StoreRegistry, TakenShares},
        item::Item,
        metrics::{OperatorCounters, OperatorInfo, OperatorVisitor},
        operator::{Chain, OperatorIndex, StepContext},
        source::SubtaskContext,
        task::{Step, Task},
    },
    platform::{Clock, Nanos, Wake},
};
use tidemill_storage::{
    log::pool::BlockPool,
    snapshot::disk::memory::MemoryDisk,
    store::files::{SnapshotEvent, WriterKind},
};

use super::{operator::Seen, probe::Probe};

/// Steps after which an operator is taken to be stuck.
const STEPS_MAX: u64 = 1_000_000;
/// Operators that a chain under test may have.
const OPERATORS_MAX: OperatorIndex = 16;
/// How far apart steps are.
const STEP_NANOS: Nanos = 1_000;

/// What a task has done.
pub(super) struct Driven<U> {
    /// What came out.
    pub(super) seen: Vec<Seen<U>>,
    /// What its operators counted.
    pub(super) counters: Vec<(OperatorIndex, OperatorCounters)>,
    /// The barriers that it has passed, and what its operators added.
    pub(super) passed: Vec<(Barrier, Vec<(OperatorIndex, SubtaskState)>)>,
}

/// Steps the chain to its end.
pub(super) fn drive<C: Chain>(
    chain: C,
    context: &BuildContext,
    often_full: bool,
    setting: &str,
) -> Driven<<C::Out as Item>::Native> {
    let log = Rc::new(RefCell::new(Vec::new()));
    let built = chain.build(context, Probe::<C::Out>::new(Rc::clone(&log), often_full));
    let mut task = match built {
        Ok(task) => task,
        Err(error) => panic!("the operator does not open: {}; under {setting}", error.cause),
    };
    let mut step = StepContext::new(0, 0);
    let mut steps: u64 = 0;
    let mut passed = Vec::new();
    loop {
        steps += 1;
        assert!(steps < STEPS_MAX, "the operator does not come to its end; under {setting}");
        step.begin(steps * STEP_NANOS, 0);
        let done = task.step(&mut step) == Step::Done;
        if let Some(failed) = step.take_failure() {
            panic!("the operator fails: {}; under {setting}", failed.cause);
        }
        if let Some(checkpoint) = step.take_checkpoint() {
            let durable = |(barrier, parts)| (barrier, durable(barrier, parts, &context.stores, setting));
            passed.extend(checkpoint.passed.into_iter().map(durable));
        }
        if done {
            let mut counters = Counters::default();
            task.report(&mut counters);
            drop(task);
            return Driven { seen: log.take(), counters: counters.0, passed };
        }
    }
}

/// What operators have in a checkpoint once their state is durable, which it is at once. The checkpoint before it is given
/// up then.
fn durable(
    barrier: Barrier,
    parts: Vec<(OperatorIndex, Part)>,
    stores: &StoreRegistry,
    setting: &str,
) -> Vec<(OperatorIndex, SubtaskState)> {
    let mut states: Vec<(OperatorIndex, SubtaskState)> = Vec::new();
    for (operator, part) in parts {
        let at = states.iter().position(|(known, _)| *known == operator).unwrap_or_else(|| {
            states.push((operator, SubtaskState::default()));
            states.len() - 1
        });
        let state = &mut states[at].1;
        match part {
            Part::Bytes(bytes) => state.bytes = Some(bytes),
            Part::Splits(splits) => state.splits = Some(splits),
            Part::InFlight(in_flight) => state.in_flight.extend(in_flight),
            Part::Committables(committables) => state.committables.extend(committables),
            Part::State => {
                let stores = stores.borrow();
                let store = stores.iter().find(|store| store.operator == operator);
                let Some(store) = store else {
                    panic!("the operator's store is not registered; under {setting}")
                };
                while matches!(store.snapshots.go_on(), Ok(true)) {}
                state.manifest = match store.snapshots.next_event() {
                    Ok(Some(SnapshotEvent::Done { snapshot, manifest, .. }))
                        if snapshot == barrier.checkpoint =>
                    {
                        Some(manifest)
                    }
                    other => panic!("the snapshot is not made: {other:?}; under {setting}"),
                };
                if let Err(error) = store.snapshots.release(barrier.checkpoint - 1) {
                    panic!("a snapshot cannot be given up: {error}; under {setting}");
                }
            }
        }
    }
    states
}

#[derive(Default)]
struct Counters(Vec<(OperatorIndex, OperatorCounters)>);

impl OperatorVisitor for Counters {
    fn operator(&mut self, operator: OperatorIndex, counters: &OperatorCounters) {
        self.0.push((operator, counters.clone()));
    }
}

/// Always says the same.
struct StillClock(Nanos);

impl Clock for StillClock {
    fn now(&self) -> Nanos {
        self.0
    }

    fn wall_millis(&self) -> i64 {
        0
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// Where a task under test runs.
pub(super) struct Place {
    pub(super) subtask: usize,
    pub(super) parallelism: usize,
    /// Monotonic time.
    pub(super) now: Nanos,
    pub(super) disk: MemoryDisk,
    pub(super) checkpoints: CheckpointContext,
}

impl Default for Place {
    /// The only subtask, without checkpoints.
    fn default() -> Self {
        let (disk, checkpoints) = (MemoryDisk::default(), CheckpointContext::default());
        Self { subtask: 0, parallelism: 1, now: 0, disk, checkpoints }
    }
}

/// What a task under test is built with.
pub(super) fn context(config: JobConfig, place: Place) -> BuildContext {
    let Place { subtask, parallelism, now, disk, checkpoints } = place;
    let subtask = SubtaskContext {
        subtask,
        parallelism,
        clock: Arc::new(StillClock(now)),
        waker: Arc::new(Nobody),
        disk: Arc::new(disk.clone()),
        inline_io: true,
    };
    BuildContext {
        subtask,
        config: Arc::new(config),
        operators: (0..OPERATORS_MAX).map(|index| OperatorInfo { id: id(index), name: id(index) }).collect(),
        state_pool: BlockPool::new(false),
        state_writer: WriterKind::Here,
        disk: Arc::new(disk),
        checkpoints,
        stores: StoreRegistry::default(),
        taken: TakenShares::default(),
    }
}

/// The stable id of an operator under test.
pub(super) fn id(operator: OperatorIndex) -> String {
    format!("operator {operator}")
}
