//! Starts a described job on a platform: the one place that knows both the control plane and the data plane.

use std::sync::Arc;

use tidemill_storage::{log::pool::BlockPool, store::files::WriterKind};

use crate::{
    control::{
        handle::JobHandle,
        supervisor::{MakeWorkers, Seating, Supervisor},
        works::Berth,
    },
    model::{
        checkpoint::CheckpointContext,
        config::JobConfig,
        error::Error,
        graph::{BuildContext, JobGraph, StoreRegistry, TakenShares},
        metrics::OperatorInfo,
        regions::Regions,
        shared::JobShared,
        source::SubtaskContext,
    },
    platform::{Drive, DriveFactory, Platform, Wake},
    runtime::{
        builder::Builder,
        worker::{Place, Worker},
    },
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
    let make_workers = make_workers(Arc::clone(&platform), Arc::clone(&operators));
    let mut supervisor = Supervisor::new(graph, config, platform, operators, make_workers)?;
    let first = supervisor.begin()?;
    JobHandle::new(supervisor, first)
}

fn make_workers(platform: Arc<dyn Platform>, operators: Arc<[OperatorInfo]>) -> MakeWorkers {
    Box::new(move |seating| {
        let Seating { config, shared, wakers, regions, berths } = seating;
        let factories = berths.into_iter().enumerate().map(|(index, berth)| {
            let seat = Seat {
                index,
                berth,
                regions: Arc::clone(&regions),
                shared: Arc::clone(shared),
                waker: Arc::clone(&wakers[index]),
                config: Arc::clone(config),
                platform: Arc::clone(&platform),
                state_writer: platform.state_writer(),
                operators: Arc::clone(&operators),
            };
            Box::new(move || Box::new(seat.take()) as Box<dyn Drive>) as DriveFactory
        });
        factories.collect()
    })
}

/// Everything that a worker needs, on its way to the worker's thread.
struct Seat {
    index: usize,
    berth: Berth,
    regions: Arc<Regions>,
    shared: Arc<JobShared>,
    waker: Arc<dyn Wake>,
    config: Arc<JobConfig>,
    platform: Arc<dyn Platform>,
    state_writer: WriterKind,
    operators: Arc<[OperatorInfo]>,
}

impl Seat {
    fn take(self) -> Worker {
        let Self { index, berth, regions, shared, waker, config, platform, state_writer, operators } = self;
        let inline_io = platform.inline_io();
        let subtask = SubtaskContext {
            subtask: index,
            // Each task is told that of its chain.
            parallelism: config.parallelism,
            clock: platform.clock(),
            waker,
            disk: platform.disk(),
            inline_io,
        };
        let template = BuildContext {
            subtask,
            config,
            operators,
            // A platform whose workers read by themselves has no threads to spare for memory either.
            state_pool: BlockPool::new(!inline_io),
            disk: platform.disk(),
            state_writer,
            checkpoints: CheckpointContext::default(),
            stores: StoreRegistry::default(),
            taken: TakenShares::default(),
        };
        let places: Vec<Place> =
            berth.places.into_iter().map(|(region, is_source)| Place { region, is_source }).collect();
        let mut worker = Worker::new(&places, regions, shared, Builder::new(template, platform.mishaps()));
        berth.crews.into_iter().for_each(|crew| worker.build(crew));
        worker
    }
}
