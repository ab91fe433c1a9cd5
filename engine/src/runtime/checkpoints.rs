//! A worker's share in checkpoints: keeps what its tasks have added until their state is durable, then tells the control plane.
//!
//! The control plane needs a core, and where none is idle it takes the worker's. So it is woken once all is told that the worker has
//! in a checkpoint, and not for each of its tasks.

use std::sync::Arc;

use tidemill_storage::{state::StateError, store::files::SnapshotEvent};

use crate::model::{
    checkpoint::{Barrier, BarrierKind, CheckpointId, FromWorker, InFlight, Part, Passed, SubtaskState},
    graph::StoreRegistry,
    operator::OperatorIndex,
    shared::JobShared,
    source::BoxError,
};

/// The checkpoints under way on one worker.
pub(super) struct CheckpointDesk {
    shared: Arc<JobShared>,
    stores: StoreRegistry,
    waiting: Vec<Waiting>,
    /// The checkpoints of which something was told that the control plane was not woken for.
    told: Vec<CheckpointId>,
}

/// A task that has passed a barrier, and what is not there yet of what it has in the checkpoint.
struct Waiting {
    /// Index of the task on its worker.
    task: usize,
    passed: Passed,
    /// The operators whose state is not durable.
    stores: Vec<OperatorIndex>,
    /// Whether its inputs have not brought all that the barrier has overtaken.
    records: bool,
}

impl Waiting {
    fn is_whole(&self) -> bool {
        self.stores.is_empty() && !self.records
    }
}

/// Which task of a worker.
#[derive(Clone, Copy)]
pub(super) struct TaskAt {
    /// Its index on the worker.
    pub(super) index: usize,
    /// The index of its subtask.
    pub(super) subtask: usize,
    /// Whether it begins with a source.
    pub(super) is_source: bool,
}

/// What an operator has, among others.
fn state_of(
    operators: &mut Vec<(OperatorIndex, SubtaskState)>,
    operator: OperatorIndex,
) -> &mut SubtaskState {
    let at = operators.iter().position(|(known, _)| *known == operator).unwrap_or_else(|| {
        operators.push((operator, SubtaskState::default()));
        operators.len() - 1
    });
    &mut operators[at].1
}

impl CheckpointDesk {
    pub(super) fn new(shared: Arc<JobShared>, stores: StoreRegistry) -> Self {
        Self { shared, stores, waiting: Vec::new(), told: Vec::new() }
    }

    /// Whether some state is not durable yet.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes what the operators of a task have added at a barrier. Behind one that overtakes, a task with inputs says later
    /// [what was overtaken](Self::add_overtaken).
    pub(super) fn pass(&mut self, task: TaskAt, barrier: Barrier, parts: Vec<(OperatorIndex, Part)>) {
        let mut stores = Vec::new();
        let mut operators: Vec<(OperatorIndex, SubtaskState)> = Vec::new();
        for (operator, part) in parts {
            let state = state_of(&mut operators, operator);
            match part {
                Part::InFlight(in_flight) => state.in_flight.extend(in_flight),
                Part::Bytes(bytes) => state.bytes = Some(bytes),
                Part::Splits(splits) => state.splits = Some(splits),
                Part::Committables(committables) => state.committables.extend(committables),
                Part::State => stores.push(operator),
            }
        }
        let TaskAt { index: task, subtask, is_source } = task;
        let passed = Passed { checkpoint: barrier.checkpoint, subtask, operators, bytes_written: 0 };
        let records = barrier.kind == BarrierKind::Overtaking && !is_source;
        let waiting = Waiting { task, passed, stores, records };
        if !waiting.is_whole() {
            self.tell_prepared(&waiting.passed);
        }
        self.waiting.push(waiting);
        self.tell();
    }

    /// Takes what a barrier has overtaken at the inputs of a task that has passed it, or why that is not kept.
    pub(super) fn add_overtaken(
        &mut self,
        task: TaskAt,
        operator: OperatorIndex,
        checkpoint: CheckpointId,
        overtaken: Result<Vec<(OperatorIndex, InFlight)>, BoxError>,
    ) {
        let is_it = |waiting: &&mut Waiting| {
            waiting.task == task.index && waiting.passed.checkpoint == checkpoint && waiting.records
        };
        let Some(waiting) = self.waiting.iter_mut().find(is_it) else { return };
        waiting.records = false;
        match overtaken {
            Ok(overtaken) => {
                for (edge, in_flight) in overtaken {
                    waiting.passed.bytes_written += in_flight.bytes.len() as u64;
                    state_of(&mut waiting.passed.operators, edge).in_flight.push(in_flight);
                }
            }
            Err(cause) => {
                let subtask = task.subtask;
                self.shared.tell_control(FromWorker::Declined { checkpoint, operator, subtask, cause });
            }
        }
        self.tell();
    }

    /// Goes on with a snapshot that has something to copy, for some fifty microseconds, so that the tasks have their turns in between.
    /// Whether there is one; else the store that cannot go on, by its operator.
    pub(super) fn go_on(&self) -> Result<bool, (OperatorIndex, StateError)> {
        for store in &*self.stores.borrow() {
            if store.snapshots.go_on().map_err(|error| (store.operator, error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Hears what became of the snapshots; returns the stores that cannot go on, by their operators.
    pub(super) fn poll(&mut self) -> Vec<(OperatorIndex, StateError)> {
        let stores = std::mem::take(&mut *self.stores.borrow_mut());
        let mut broken = Vec::new();
        for store in &stores {
            loop {
                match store.snapshots.next_event() {
                    Ok(Some(event)) => self.note(store.operator, store.subtask, event),
                    Ok(None) => break,
                    Err(error) => {
                        broken.push((store.operator, error));
                        break;
                    }
                }
            }
        }
        *self.stores.borrow_mut() = stores;
        self.tell();
        broken
    }

    fn note(&mut self, operator: OperatorIndex, subtask: usize, event: SnapshotEvent) {
        match event {
            SnapshotEvent::Done { snapshot, manifest, bytes_written } => {
                let Some(passed) = self.settle(operator, snapshot) else { return };
                passed.bytes_written += bytes_written;
                let own = passed.operators.iter_mut().filter(|(own, _)| *own == operator);
                own.for_each(|(_, state)| state.manifest = Some(manifest.clone()));
            }
            SnapshotEvent::Failed { snapshot, error } => {
                let cause = Box::new(error);
                let declined = FromWorker::Declined { checkpoint: snapshot, operator, subtask, cause };
                self.shared.tell_control(declined);
                // What the task has all the same is told behind it: what a sink has prepared goes with the next checkpoint.
                let _passed = self.settle(operator, snapshot);
            }
            SnapshotEvent::Exported { .. } => {}
        }
    }

    /// The task of `operator`, which waits for its snapshot no longer.
    fn settle(&mut self, operator: OperatorIndex, snapshot: CheckpointId) -> Option<&mut Passed> {
        let is_it = |waiting: &&mut Waiting| {
            waiting.passed.checkpoint == snapshot && waiting.stores.contains(&operator)
        };
        let waiting = self.waiting.iter_mut().find(is_it)?;
        waiting.stores.retain(|open| *open != operator);
        Some(&mut waiting.passed)
    }

    /// Tells what sinks have prepared, as it takes time to make sure of that, too.
    fn tell_prepared(&self, passed: &Passed) {
        let prepared = passed.operators.iter().filter(|(_, state)| !state.committables.is_empty());
        let committables: Vec<_> =
            prepared.map(|(operator, state)| (*operator, state.committables.clone())).collect();
        if !committables.is_empty() {
            let checkpoint = passed.checkpoint;
            self.shared.tell_control(FromWorker::Prepared { checkpoint, committables });
        }
    }

    /// Tells of all that is durable.
    fn tell(&mut self) {
        let (durable, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(Waiting::is_whole);
        self.waiting = waiting;
        let durable: Vec<Waiting> = durable;
        for Waiting { passed, .. } in durable {
            self.told.push(passed.checkpoint);
            self.shared.leave_for_control(FromWorker::Passed(Box::new(passed)));
        }
    }

    /// Whether something was told that the control plane was not woken for.
    #[inline]
    pub(super) fn is_unheard(&self) -> bool {
        !self.told.is_empty()
    }

    /// Wakes the control plane, if all was told that this worker has in some checkpoint. Each of its tasks has passed the barrier of
    /// `passed`, or is done.
    #[cold]
    pub(super) fn wake_control(&mut self, passed: CheckpointId) {
        let Self { waiting, told, .. } = self;
        let before = told.len();
        told.retain(|told| {
            *told > passed || waiting.iter().any(|waiting| waiting.passed.checkpoint == *told)
        });
        if told.len() < before {
            self.shared.wake_control();
        }
    }

    /// Gives up the snapshots of a checkpoint; returns the stores that cannot go on, as [`poll`](Self::poll).
    pub(super) fn retire(&mut self, checkpoint: CheckpointId) -> Vec<(OperatorIndex, StateError)> {
        let stores = self.stores.borrow();
        let released = stores.iter().map(|store| (store.operator, store.snapshots.release(checkpoint)));
        released.filter_map(|(operator, released)| Some((operator, released.err()?))).collect()
    }

    /// Lets go of what some tasks have in checkpoints under way, and of the stores of their operators.
    pub(super) fn drop_region(
        &mut self,
        is_task: impl Fn(usize) -> bool,
        is_operator: impl Fn(OperatorIndex) -> bool,
    ) {
        self.waiting.retain(|waiting| !is_task(waiting.task));
        self.stores.borrow_mut().retain(|store| !is_operator(store.operator));
    }

    /// States that the stores of some operators were restored with and that nobody has opened, by operator.
    pub(super) fn unopened(
        &self,
        is_operator: impl Fn(OperatorIndex) -> bool,
    ) -> Vec<(OperatorIndex, Vec<String>)> {
        let stores = self.stores.borrow();
        let own = stores.iter().filter(|store| is_operator(store.operator));
        let unopened = own.map(|store| {
            let names = store.snapshots.unopened();
            (store.operator, names.iter().map(|name| format!("`{}`", name.state)).collect::<Vec<_>>())
        });
        unopened.filter(|(_, names)| !names.is_empty()).collect()
    }

    /// Lets all stores go.
    pub(super) fn close(&mut self) {
        self.waiting.clear();
        self.stores.borrow_mut().clear();
    }
}
