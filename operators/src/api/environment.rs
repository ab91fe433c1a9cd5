//! [`StreamEnvironment`]: where a job is described and started.

use std::{cell::RefCell, path::PathBuf, rc::Rc, sync::Arc};

use tidemill_engine::{
    control::handle::JobHandle,
    launch::launch,
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::{JobConfig, StateBackendKind},
        error::Error,
        graph::JobGraph,
        metrics::JobMetrics,
        source::Source,
        watermark::{AssignTimestamps, WatermarkStrategy},
    },
    platform::{GlommioPlatform, Platform},
};

use super::stream::{Stream, StreamBase};
use crate::source_chain::FromSource;

/// The graph that streams of one environment add to.
pub(crate) type SharedGraph = Rc<RefCell<JobGraph>>;

/// Describes a job and starts it.
///
/// Settings come first; streams are made from sources and end in sinks; [`execute`](Self::execute)
/// runs the job to its end, [`start`](Self::start) gives a handle at once.
pub struct StreamEnvironment {
    graph: SharedGraph,
    config: JobConfig,
    platform: Arc<dyn Platform>,
}

impl Default for StreamEnvironment {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamEnvironment {
    /// One worker per core that this process may use.
    pub fn new() -> Self {
        let platform = GlommioPlatform::new();
        let parallelism = platform.cores().usable();
        Self::on(Arc::new(platform), JobConfig { parallelism, ..JobConfig::default() })
    }

    /// With these settings, on this machine's cores.
    pub fn with_config(config: JobConfig) -> Self {
        Self::on(Arc::new(GlommioPlatform::new()), config)
    }

    /// With these settings on another platform: a simulated one, or one with its own settings.
    pub fn on(platform: Arc<dyn Platform>, config: JobConfig) -> Self {
        Self { graph: Rc::default(), config, platform }
    }

    /// Names the job; see [`JobConfig::name`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// Sets the number of workers, which is that of the subtasks of each operator; see [`JobConfig::parallelism`].
    pub fn parallelism(mut self, workers: usize) -> Self {
        self.config.parallelism = workers;
        self
    }

    /// Sets the number of key groups, the bound on parallelism for the life of the job's state; see [`JobConfig::max_parallelism`].
    pub fn max_parallelism(mut self, key_groups: u32) -> Self {
        self.config.max_parallelism = Some(key_groups);
        self
    }

    /// Chooses where keyed operators keep their state.
    pub fn state_backend(mut self, backend: StateBackendKind) -> Self {
        self.config.state_backend = backend;
        self
    }

    /// Chooses the directory for state that leaves memory; see [`JobConfig::state_dir`].
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.config.state_dir = Some(directory.into());
        self
    }

    /// Bounds the memory that state takes on each core, in bytes; see [`JobConfig::state_memory_bytes_max`].
    pub fn state_memory_bytes_max(mut self, bytes: u64) -> Self {
        self.config.state_memory_bytes_max = Some(bytes);
        self
    }

    /// Takes checkpoints, and goes on from the newest that is there; see [`JobConfig::checkpoints`].
    pub fn checkpoints(mut self, checkpoints: CheckpointConfig) -> Self {
        self.config.checkpoints = Some(checkpoints);
        self
    }

    /// Starts the job again when it fails; see [`JobConfig::restart`].
    pub fn restart(mut self, strategy: RestartStrategy) -> Self {
        self.config.restart = strategy;
        self
    }

    /// What the job runs on.
    pub(crate) fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// The settings of the job.
    pub fn config(&self) -> &JobConfig {
        &self.config
    }

    /// A stream of what `source` reads, in as many subtasks as the job has workers. `name` is for messages and metrics, and the
    /// source's id too if no other operator of the job has it; [`Stream::uid`] gives it another.
    pub fn from_source<S, A>(
        &self,
        name: &str,
        source: S,
        strategy: WatermarkStrategy<A>,
    ) -> Stream<FromSource<S, A>>
    where
        S: Source,
        A: AssignTimestamps<S::Item>,
    {
        let operator = self.graph.borrow_mut().add_named_operator(name);
        let chain = FromSource::new(operator, source, strategy);
        let parallelism = self.config.parallelism;
        let preparation = Box::new(chain.preparation(parallelism));
        self.graph.borrow_mut().preparations.push((operator, preparation));
        let base = StreamBase {
            graph: Rc::clone(&self.graph),
            workers: parallelism,
            parallelism,
            timestamps: A::ENABLED,
            last: operator,
            reads: Vec::new(),
            operators: vec![operator],
        };
        Stream::new(base, chain)
    }

    /// Runs the job to the end of its input. A job with checkpoints that is asked to stop (`SIGTERM`, `SIGINT`) takes a last one and
    /// returns; started again with the same directory, it goes on from there.
    ///
    /// # Errors
    /// Whatever keeps the job from starting, or stops it.
    pub fn execute(self) -> Result<JobMetrics, Error> {
        self.start()?.wait_or_suspend()
    }

    /// Starts the job and returns its handle.
    ///
    /// # Errors
    /// Whatever keeps the job from starting: a setting, a source, a sink, the machine.
    pub fn start(self) -> Result<JobHandle, Error> {
        launch(self.graph.take(), self.config, self.platform)
    }
}
