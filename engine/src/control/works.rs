//! Where the tasks of a job come from: its graph, of which each region's tasks and channels are made when an attempt begins, and again
//! when the region has failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    model::{
        checkpoint::CheckpointContext,
        checkpoint_config::RestartStrategy,
        config::JobConfig,
        graph::{Crew, JobGraph, TaskPlan},
        operator::OperatorIndex,
        regions::{RegionIndex, Regions},
    },
    platform::Wake,
};

/// The graph of a job, with its regions. Used by the supervisor between attempts and by the coordinator during one.
pub(crate) struct Works {
    graph: Mutex<JobGraph>,
    regions: Arc<Regions>,
    config: Arc<JobConfig>,
}

/// A worker's place in an attempt.
pub(crate) struct Berth {
    /// The places of its tasks, in the order of flow: the region of each, and whether it begins with a source.
    pub(crate) places: Vec<(RegionIndex, bool)>,
    /// Its tasks, by region.
    pub(crate) crews: Vec<Crew>,
}

impl Works {
    /// Of a job that is checked. One that is not to be started again has one region: it fails as a whole.
    pub(super) fn new(graph: JobGraph, config: Arc<JobConfig>) -> Self {
        let regions = Regions::of(&graph);
        let regions = if config.restart == RestartStrategy::None { regions.united() } else { regions };
        Self { graph: Mutex::new(graph), regions: Arc::new(regions), config }
    }

    fn graph(&self) -> MutexGuard<'_, JobGraph> {
        // A panic while tasks are planned leaves the description as it was.
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The regions of the job.
    pub(super) fn regions(&self) -> &Arc<Regions> {
        &self.regions
    }

    /// Number of tasks of the job: subtasks of all chains.
    pub(super) fn tasks(&self) -> usize {
        self.graph().nodes.iter().map(|node| node.parallelism).sum()
    }

    /// Number of tasks that begin with a source, by region.
    pub(super) fn sources(&self) -> Vec<usize> {
        let mut sources = vec![0; self.regions.count()];
        for (index, node) in self.graph().nodes.iter().enumerate().filter(|(_, node)| node.is_source) {
            sources[self.regions.of_node(index)] += node.parallelism;
        }
        sources
    }

    /// Whether an operator writes to an exchange.
    pub(super) fn has_edge(&self, operator: OperatorIndex) -> bool {
        self.graph().edges.iter().any(|edge| edge.operator == operator)
    }

    /// Makes all channels and the plans of all tasks; `contexts` has what those of each region are told.
    pub(super) fn berths(&self, wakers: &[Arc<dyn Wake>], contexts: Vec<CheckpointContext>) -> Vec<Berth> {
        let mut crews: Vec<_> = contexts
            .into_iter()
            .enumerate()
            .map(|(region, context)| self.crews(region, wakers, &context).into_iter())
            .collect();
        let graph = self.graph();
        let berth = |worker| {
            let here = graph.nodes.iter().enumerate().filter(|(_, node)| worker < node.parallelism);
            let places = here.map(|(index, node)| (self.regions.of_node(index), node.is_source));
            Berth { places: places.collect(), crews: crews.iter_mut().filter_map(Iterator::next).collect() }
        };
        (0..wakers.len()).map(berth).collect()
    }

    /// Makes the channels of a region and the plans of its tasks, worker by worker: subtask i of every chain lives on worker i.
    pub(super) fn crews(
        &self,
        region: RegionIndex,
        wakers: &[Arc<dyn Wake>],
        checkpoints: &CheckpointContext,
    ) -> Vec<Crew> {
        let graph = self.graph();
        graph.connect(&self.regions, region, &self.config, wakers);
        let crew = |worker| {
            let here = graph.nodes.iter().enumerate().filter(|(_, node)| worker < node.parallelism);
            let own = here.enumerate().filter(|(_, (index, _))| self.regions.of_node(*index) == region);
            let tasks = own.map(|(slot, (_, node))| TaskPlan {
                slot,
                parallelism: node.parallelism,
                operators: node.operators.clone(),
                build: (node.instance)(),
            });
            Crew { region, tasks: tasks.collect(), checkpoints: checkpoints.clone() }
        };
        (0..wakers.len()).map(crew).collect()
    }
}
