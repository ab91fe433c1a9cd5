//! The job graph: chains and edges as the stream API describes them, before anything runs.

use std::{
    any::Any,
    cell::RefCell,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use tidemill_storage::{
    log::pool::BlockPool,
    snapshot::disk::Disk,
    state::StateError,
    store::{Snapshots, files::WriterKind},
};

use super::{
    checkpoint::{CheckpointContext, OperatorState, Restored},
    config::JobConfig,
    error::Error,
    metrics::OperatorInfo,
    operator::{OpenError, OperatorIndex},
    regions::{RegionIndex, Regions},
    sink::{CommitContext, Committer},
    source::{BoxError, SubtaskContext},
    task::Task,
};
use crate::{
    platform::Wake,
    runtime::exchange::edge::{Connect, Wiring},
    runtime::exchange::partition::Pattern,
};

/// What a chain is built with, besides its own description.
#[derive(Clone)]
pub struct BuildContext {
    /// Where the instance runs.
    pub subtask: SubtaskContext,
    /// The settings of the job.
    pub config: Arc<JobConfig>,
    /// All operators of the job, by index.
    pub operators: Arc<[OperatorInfo]>,
    /// Where the state of all tasks of this worker has its memory from.
    pub state_pool: Arc<BlockPool>,
    /// Where stores keep their files.
    pub disk: Arc<dyn Disk>,
    /// Who writes them.
    pub state_writer: WriterKind,
    /// What there is to know about checkpoints.
    pub checkpoints: CheckpointContext,
    /// Where stores make themselves known, so that the worker hears what becomes of their snapshots.
    pub stores: StoreRegistry,
    /// What was taken up of the checkpoint that the job goes on from.
    pub taken: TakenShares,
}

/// A store of one operator, known to its worker.
pub struct RegisteredStore {
    /// The operator.
    pub operator: OperatorIndex,
    /// Its subtask.
    pub subtask: usize,
    /// By which its snapshots are followed and given up.
    pub snapshots: Snapshots,
}

/// The stores of one worker. Used by one thread.
pub type StoreRegistry = Rc<RefCell<Vec<RegisteredStore>>>;

/// What an operator may have in a checkpoint and takes up when it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// Keyed state: of this kind are the manifests.
    State,
    /// Its own record, of [`Part::Bytes`](super::checkpoint::Part::Bytes).
    Record,
    /// The places in the splits of a source.
    Splits,
}

impl Share {
    /// Each, and what it is called.
    const ALL: [(Self, &str); 3] = [
        (Self::State, "keyed state"),
        (Self::Record, "watermarks, or what else it keeps of itself"),
        (Self::Splits, "the places of a source"),
    ];

    /// Whether an operator has some.
    fn is_in(self, state: &OperatorState) -> bool {
        state.subtasks.iter().any(|subtask| match self {
            Self::State => subtask.manifest.is_some(),
            Self::Record => subtask.bytes.is_some(),
            Self::Splits => subtask.splits.is_some(),
        })
    }
}

/// What the operators of one worker have taken up. Used by one thread.
pub type TakenShares = Rc<RefCell<BTreeSet<(OperatorIndex, Share)>>>;

impl BuildContext {
    /// The stable id of an operator, under which its state is kept.
    pub fn operator_id(&self, operator: OperatorIndex) -> &str {
        &self.operators[operator as usize].id
    }

    /// What the checkpoint that the job goes on from holds of an operator, for what an exchange behind it has under way.
    pub fn restored(&self, operator: OperatorIndex) -> Option<&OperatorState> {
        self.checkpoints.restored.get(self.operator_id(operator))
    }

    /// The same, for an operator that takes up a share of it. What no operator takes up keeps the job from going on, as it would not be in the
    /// next checkpoint; so this is called also where there may be nothing.
    pub fn take(&self, operator: OperatorIndex, share: Share) -> Option<&OperatorState> {
        self.taken.borrow_mut().insert((operator, share));
        self.restored(operator)
    }

    /// What a checkpoint holds of an operator and nobody has taken up, in words.
    pub fn not_taken(&self, operator: OperatorIndex, restored: &Restored) -> Vec<&'static str> {
        let Some(state) = restored.get(self.operator_id(operator)) else { return Vec::new() };
        let taken = self.taken.borrow();
        let left = Share::ALL
            .into_iter()
            .filter(|(share, _)| share.is_in(state) && !taken.contains(&(operator, *share)));
        left.map(|(_, words)| words).collect()
    }
}

/// Builds the task of one subtask on its worker's thread.
pub type TaskBuilder = Box<dyn FnOnce(&BuildContext) -> Result<Box<dyn Task>, OpenError> + Send>;

/// Makes the builder of one subtask.
pub type TaskMaker = Box<dyn Fn() -> TaskBuilder + Send>;

/// A finished chain: gives a builder for each subtask.
pub struct Node {
    /// Number of subtasks.
    pub parallelism: usize,
    /// Whether it begins with a source.
    pub is_source: bool,
    /// Its operators, by index.
    pub operators: Vec<OperatorIndex>,
    /// The edges that it reads from, by index.
    pub reads: Vec<usize>,
    /// Makes the builder of one subtask.
    pub instance: TaskMaker,
}

/// A task that a worker is to build.
pub struct TaskPlan {
    /// Its place among the tasks of the worker, which are in the order of flow.
    pub slot: usize,
    /// Number of subtasks of its chain.
    pub parallelism: usize,
    /// Its operators, by index.
    pub operators: Vec<OperatorIndex>,
    /// Builds it.
    pub build: TaskBuilder,
}

/// The tasks of one region on one worker, on their way there.
pub struct Crew {
    /// The region.
    pub region: RegionIndex,
    /// Its tasks, in the order of flow.
    pub tasks: Vec<TaskPlan>,
    /// What they are told about checkpoints.
    pub checkpoints: CheckpointContext,
}

/// An edge between two chains.
pub struct EdgeNode {
    /// Makes its channels.
    pub edge: Box<dyn Connect>,
    /// Which subtasks it connects.
    pub pattern: Pattern,
    /// Whether every record goes to every consumer.
    pub broadcasts: bool,
    /// Number of producing subtasks.
    pub producers: usize,
    /// Number of consuming subtasks.
    pub consumers: usize,
    /// Whether a chain that was added reads from it.
    pub consumed: bool,
    /// The operator that writes to it.
    pub operator: OperatorIndex,
}

/// Checks a source or sink before anything runs.
pub type Preparation = Box<dyn FnMut() -> Result<(), BoxError> + Send>;

/// Opens what commits for a sink, if the sink has transactions.
pub type CommitterMaker = Box<dyn Fn(&CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> + Send>;

/// A job, described.
#[derive(Default)]
pub struct JobGraph {
    /// All operators, by index.
    pub operators: Vec<OperatorInfo>,
    /// Operators whose id is the name that the user gave them, where no other has it.
    named: Vec<(OperatorIndex, String)>,
    /// All chains, each after those that it reads from.
    pub nodes: Vec<Node>,
    /// All edges.
    pub edges: Vec<EdgeNode>,
    /// What has to be checked first, and for which operator.
    pub preparations: Vec<(OperatorIndex, Preparation)>,
    /// What commits for each sink.
    pub committers: Vec<(OperatorIndex, CommitterMaker)>,
    /// What was already found wrong while the job was described.
    pub problems: Vec<Error>,
}

impl JobGraph {
    /// Adds an operator with its default name and an id made from its place.
    pub fn add_operator(&mut self, name: &str) -> OperatorIndex {
        let index = self.operators.len();
        self.operators.push(OperatorInfo { id: format!("{index}-{name}"), name: name.to_owned() });
        OperatorIndex::try_from(index).unwrap_or(OperatorIndex::MAX)
    }

    /// Adds an operator that the user has named, such as a source or a sink. That name is its id where no other operator of the
    /// job has it, so that its state is found again when operators before it come or go.
    pub fn add_named_operator(&mut self, name: &str) -> OperatorIndex {
        let operator = self.add_operator(name);
        self.named.push((operator, name.to_owned()));
        operator
    }

    /// Gives an operator the id that the user has chosen.
    pub fn set_id(&mut self, operator: OperatorIndex, id: &str) {
        self.named.retain(|(named, _)| *named != operator);
        self.operators[operator as usize].id = id.to_owned();
    }

    /// Gives operators that the user has named, but not given an id, their names as ids. Two that would have the same one both
    /// keep those made from their places.
    fn settle_ids(&mut self) {
        let named = std::mem::take(&mut self.named);
        for (operator, name) in &named {
            let is_other = |other: usize| other != *operator as usize;
            let mut operators = self.operators.iter().enumerate();
            let is_taken = operators.any(|(other, info)| is_other(other) && info.id == *name)
                || named.iter().any(|(other, theirs)| is_other(*other as usize) && theirs == name);
            if !is_taken {
                self.operators[*operator as usize].id.clone_from(name);
            }
        }
    }

    /// Adds an edge and returns its index.
    pub fn add_edge(&mut self, edge: EdgeNode) -> usize {
        self.edges.push(edge);
        self.edges.len() - 1
    }

    /// The operator with this index.
    pub fn operator_mut(&mut self, index: OperatorIndex) -> &mut OperatorInfo {
        &mut self.operators[index as usize]
    }

    /// Checks that the job makes sense and that every source and sink can start. From then on operators have their ids.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn prepare(&mut self) -> Result<(), Error> {
        if self.nodes.is_empty() {
            return Err(Error::config(
                "the job has no sink".to_owned(),
                "a stream without a sink computes nothing that anybody sees".to_owned(),
                "end at least one stream with a sink, such as `.sink(…)` or `.for_each(…)`".to_owned(),
            ));
        }
        self.settle_ids();
        let mut ids: Vec<&str> = self.operators.iter().map(|operator| operator.id.as_str()).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::config(
                format!("two operators have the id `{}`", twice[0]),
                "state is found again by its operator's id".to_owned(),
                "give each operator an id of its own with `.uid(…)`".to_owned(),
            ));
        }
        if let Some(edge) = self.edges.iter().find(|edge| !edge.consumed) {
            return Err(Error::config(
                format!("the stream behind `{}` is never used", self.operators[edge.operator as usize].name),
                "its records would pile up with nobody to take them".to_owned(),
                "end the stream in a sink, or do not make it".to_owned(),
            ));
        }
        if let Some(problem) = self.problems.first() {
            return Err(problem.clone());
        }
        for (operator, prepare) in &mut self.preparations {
            prepare_safely(prepare).map_err(|cause| Error::Prepare {
                operator: self.operators[*operator as usize].name.clone(),
                cause: Arc::new(cause),
            })?;
        }
        Ok(())
    }

    /// Makes the channels of every edge of a region, in place of those that there were.
    pub fn connect(
        &self,
        regions: &Regions,
        region: RegionIndex,
        config: &JobConfig,
        wakers: &[Arc<dyn Wake>],
    ) {
        let edges = self.edges.iter().enumerate().filter(|(index, _)| regions.of_edge(*index) == region);
        for (_, EdgeNode { edge, pattern, broadcasts, producers, consumers, operator, .. }) in edges {
            edge.connect(Wiring {
                operator: *operator,
                broadcasts: *broadcasts,
                pattern: *pattern,
                producers: *producers,
                consumers: *consumers,
                capacity: config.channel_batches_max,
                wakers,
            });
        }
    }
}

/// A panic in a source's or sink's own code is an error like any other.
fn prepare_safely(prepare: &mut Preparation) -> Result<(), BoxError> {
    catch_unwind(AssertUnwindSafe(prepare)).unwrap_or_else(|panic| Err(unwound(panic)))
}

/// The error that an unwinding stands for: a fault of the state is an error with words of its own, all else a panic.
pub(crate) fn unwound(payload: Box<dyn Any + Send>) -> BoxError {
    let panic = match payload.downcast::<StateError>() {
        Ok(error) => return error,
        Err(panic) => panic,
    };
    let message = panic.downcast_ref::<&str>().map(|message| (*message).to_owned());
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", message.unwrap_or_else(|| "no message".to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(graph: &JobGraph) -> Vec<&str> {
        graph.operators.iter().map(|operator| operator.id.as_str()).collect()
    }

    #[test]
    fn a_name_that_the_user_gave_is_an_id_where_it_is_the_only_one() {
        let mut graph = JobGraph::default();
        let clicks = graph.add_named_operator("clicks");
        graph.add_operator("map");
        graph.add_named_operator("rows");
        graph.settle_ids();
        assert_eq!(ids(&graph), ["clicks", "1-map", "rows"]);
        assert_eq!(graph.operators[clicks as usize].name, "clicks");
    }

    #[test]
    fn a_name_that_others_have_too_is_no_id() {
        let mut graph = JobGraph::default();
        graph.add_named_operator("numbers");
        let counts = graph.add_operator("fold");
        graph.set_id(counts, "counts");
        graph.add_named_operator("counts");
        graph.add_named_operator("numbers");
        // Named like another is by default.
        graph.add_named_operator("5-map");
        graph.add_operator("map");
        graph.settle_ids();
        assert_eq!(ids(&graph), ["0-numbers", "counts", "2-counts", "3-numbers", "4-5-map", "5-map"]);
    }

    #[test]
    fn an_id_that_was_chosen_stays_and_leaves_the_name_to_another() {
        let mut graph = JobGraph::default();
        let first = graph.add_named_operator("rows");
        graph.set_id(first, "rows of before");
        let second = graph.add_named_operator("rows");
        graph.operator_mut(second).name = "other words".to_owned();
        graph.settle_ids();
        assert_eq!(ids(&graph), ["rows of before", "rows"]);
    }
}
