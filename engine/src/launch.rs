//! Starts a described job on a platform: the one place that knows both the control plane and the data plane.

use std::sync::Arc;

use tidemill_storage::{log::pool::BlockPool, snapshot::disk::Disk, store::files::WriterKind};

use crate::{
    control::{
        handle::JobHandle,
        supervisor::{MakeWorkers, Supervisor},
    },
    model::{
        checkpoint::CheckpointContext,
        checkpoint_error::CheckpointError,
        config::JobConfig,
        error::Error,
        graph::{BuildContext, JobGraph, RegisteredStore, StoreRegistry, TaskBuilder},
        metrics::OperatorInfo,
        shared::JobShared,
        source::SubtaskContext,
    },
    platform::{Clock, Drive, DriveFactory, Platform, Turn, Wake},
    runtime::worker::{self, OpenedTask, Worker},
};

/// Checks the job and the machine, wires the job up and starts its workers.
///
/// # Errors
/// Whatever is wrong with the settings, a source, a sink or the machine. Then nothing runs.
pub fn launch(
    mut graph: JobGraph,
    config: JobConfig,
    platform: Arc<dyn Platform>,
) -> Result<JobHandle, Error> {
    config.check()?;
    // Whether the machine can run it comes before what is asked of others.
    drop(platform.prepare(config.parallelism)?);
    graph.prepare()?;
    let operators: Arc<[OperatorInfo]> = graph.operators.clone().into();
    let state_memory_bytes = config.state_memory_bytes(platform.memory_bytes());
    let config = Arc::new(JobConfig { state_memory_bytes_max: Some(state_memory_bytes), ..config });
    let make_workers = make_workers(Arc::clone(&config), Arc::clone(&platform), Arc::clone(&operators));
    let mut supervisor = Supervisor::new(graph, config, platform, operators, make_workers)?;
    let first = supervisor.begin()?;
    JobHandle::new(supervisor, first)
}

fn make_workers(
    config: Arc<JobConfig>,
    platform: Arc<dyn Platform>,
    operators: Arc<[OperatorInfo]>,
) -> MakeWorkers {
    Box::new(move |graph, seating| {
        let factories = (0..config.parallelism).map(|index| {
            let seat = Seat {
                index,
                tasks: tasks_of(graph, index),
                config: Arc::clone(&config),
                clock: platform.clock(),
                waker: Arc::clone(&seating.wakers[index]),
                inline_io: platform.inline_io(),
                state_writer: platform.state_writer(),
                shared: Arc::clone(seating.shared),
                operators: Arc::clone(&operators),
                disk: platform.disk(),
                checkpoints: seating.checkpoints.clone(),
            };
            Box::new(move || seat.take()) as DriveFactory
        });
        factories.collect()
    })
}

/// The tasks of worker `index`: subtask i of every chain lives on worker i.
fn tasks_of(graph: &JobGraph, index: usize) -> Vec<TaskPlan> {
    let here = graph.nodes.iter().filter(|node| index < node.parallelism);
    here.map(|node| TaskPlan {
        parallelism: node.parallelism,
        is_source: node.is_source,
        build: (node.instance)(),
    })
    .collect()
}

/// A task to be built.
struct TaskPlan {
    parallelism: usize,
    is_source: bool,
    build: TaskBuilder,
}

/// Everything that a worker needs, on its way to the worker's thread.
struct Seat {
    index: usize,
    tasks: Vec<TaskPlan>,
    config: Arc<JobConfig>,
    clock: Arc<dyn Clock>,
    waker: Arc<dyn Wake>,
    inline_io: bool,
    state_writer: WriterKind,
    shared: Arc<JobShared>,
    operators: Arc<[OperatorInfo]>,
    disk: Arc<dyn Disk>,
    checkpoints: CheckpointContext,
}

impl Seat {
    fn take(self) -> Box<dyn Drive> {
        let Self { index, tasks, config, clock, waker, inline_io, state_writer, .. } = self;
        let Self { shared, operators, disk, checkpoints, .. } = self;
        let mut built = Vec::with_capacity(tasks.len());
        // A platform whose workers read by themselves has no threads to spare for memory either.
        let state_pool = BlockPool::new(!inline_io);
        let stores = StoreRegistry::default();
        for TaskPlan { parallelism, is_source, build } in tasks {
            let context = BuildContext {
                subtask: SubtaskContext {
                    subtask: index,
                    parallelism,
                    clock: Arc::clone(&clock),
                    waker: Arc::clone(&waker),
                    disk: Arc::clone(&disk),
                    inline_io,
                },
                config: Arc::clone(&config),
                operators: Arc::clone(&operators),
                state_pool: Arc::clone(&state_pool),
                disk: Arc::clone(&disk),
                state_writer,
                checkpoints: checkpoints.clone(),
                stores: StoreRegistry::clone(&stores),
            };
            match worker::open(|| build(&context)) {
                Ok(task) => built.push(OpenedTask { subtask: index, is_source, task }),
                Err((operator, cause)) => {
                    let info = operator.and_then(|operator| operators.get(operator as usize));
                    let operator = info.map_or_else(|| "unknown".to_owned(), |info| info.name.clone());
                    shared.fail(Error::Operator { operator, subtask: index, cause: Arc::new(cause) });
                    shared.leave(index);
                    return Box::new(Gone);
                }
            }
        }
        if let Err(error) = all_restored(&config, &operators, &stores.borrow()) {
            shared.fail(error.into());
            shared.leave(index);
            return Box::new(Gone);
        }
        Box::new(Worker::new(index, built, stores, shared, operators, clock))
    }
}

/// Checks that operators have opened all states that their stores were restored with, or may leave some: what is not opened is not in
/// the next checkpoint.
fn all_restored(
    config: &JobConfig,
    operators: &[OperatorInfo],
    stores: &[RegisteredStore],
) -> Result<(), CheckpointError> {
    if config.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.allow_non_restored_state) {
        return Ok(());
    }
    for store in stores {
        let unopened = store.snapshots.unopened();
        if !unopened.is_empty() {
            let operator = operators[store.operator as usize].name.clone();
            let names: Vec<String> = unopened.iter().map(|name| format!("`{}`", name.state)).collect();
            return Err(CheckpointError::NonRestoredStates { operator, states: names.join(", ") });
        }
    }
    Ok(())
}

/// In the place of a worker whose tasks did not open.
struct Gone;

impl Drive for Gone {
    fn turn(&mut self, _now: u64) -> Turn {
        Turn::Done
    }
}
