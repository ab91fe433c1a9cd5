//! Checkpoints: the barrier that travels with the records, what each operator adds to one, and what the control plane and
//! the workers say to each other about it.
//!
//! Follows Chandy and Lamport as Flink does (Carbone et al., *Lightweight Asynchronous Snapshots for Distributed
//! Dataflows*, 2015):
//!
//! ```text
//! coordinator ──Trigger──▶ workers: sources note their positions and send a barrier
//!                             │   barriers travel in band; a task with several inputs waits until each has brought it
//!                             ▼
//!             every task: its operators add their parts, the barrier goes on
//! coordinator ◀──Passed────── when its state is durable
//!      │  all tasks have passed, all is durable: the manifest is written
//!      ├──▶ sinks' committers commit
//!      └──Retire, Kept──▶ workers: older snapshots, and what only they needed, are given up
//! ```

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{error::Error, operator::OperatorIndex, regions::RegionIndex, source::BoxError, time::Timestamp};

/// Number of a checkpoint: from 1, rising over the whole life of a job, restarts included.
pub type CheckpointId = u64;

/// Divides the records of a channel: those before it are in the checkpoint, those after it are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// What follows it.
    pub kind: BarrierKind,
}

/// What follows a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    /// More records.
    Running,
    /// More records, too; and it overtakes those that are under way, which become part of the checkpoint: what Flink calls
    /// unaligned. It does not travel in band but is announced ([`announcement`](crate::runtime::exchange::announcement)).
    Overtaking,
    /// Nothing: the job is about to be stopped, and goes on from here another time.
    Suspending,
    /// The end: all input was read, and all that follows from it is before the barrier.
    Final,
}

impl BarrierKind {
    /// Whether the job goes on behind it.
    pub fn goes_on(self) -> bool {
        matches!(self, Self::Running | Self::Overtaking)
    }
}

/// What one operator of one subtask adds to a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A few bytes that are read back by the same operator.
    Bytes(Vec<u8>),
    /// Where a source reads on.
    Splits(Vec<SplitPart>),
    /// What a sink has prepared and wants to be committed.
    Committables(Vec<Committable>),
    /// Keyed state. Its store was sealed, and says by itself when that is durable.
    State,
    /// What the barrier has overtaken.
    InFlight(Vec<InFlight>),
}

/// What a barrier has overtaken on one channel, as one end of the channel has seen it. What the receiver had before it
/// comes first; behind it what the sender had no room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Index of the producing subtask.
    pub from: usize,
    /// Index of the consuming subtask.
    pub to: usize,
    /// How many producing subtasks the edge had.
    pub producers: usize,
    /// How many consuming subtasks the edge had.
    pub consumers: usize,
    /// Which end has seen it.
    pub end: ChannelEnd,
    /// Schema of the records.
    pub schema: Cow<'static, str>,
    /// The elements, in their order ([`in_flight`](crate::runtime::exchange::in_flight)).
    pub bytes: Vec<u8>,
}

/// One end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelEnd {
    /// The consumer's.
    Receiver,
    /// The producer's.
    Sender,
}

/// One split of a source as a checkpoint keeps it: the way a source's [`Split`](super::source::Source::Split) is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPart {
    /// The greatest timestamp seen in it.
    pub newest: Timestamp,
    /// Schema of the split's type.
    pub schema: Cow<'static, str>,
    /// The split, archived.
    pub bytes: Vec<u8>,
}

/// What a sink writer has prepared: enough for its [`Committer`](super::sink::Committer) to commit it after a crash. Opaque
/// to the engine.
pub type Committable = Vec<u8>;

/// What one subtask of an operator has in a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubtaskState {
    /// Of [`Part::Bytes`].
    pub bytes: Option<Vec<u8>>,
    /// Of [`Part::Splits`].
    pub splits: Option<Vec<SplitPart>>,
    /// Of [`Part::Committables`].
    pub committables: Vec<Committable>,
    /// Manifest of the snapshot of its keyed state.
    pub manifest: Option<PathBuf>,
    /// Of [`Part::InFlight`].
    pub in_flight: Vec<InFlight>,
}

impl SubtaskState {
    /// Takes in what another task has in the same checkpoint of the same operator: both ends of an exchange have parts.
    pub fn merge(&mut self, other: Self) {
        let Self { bytes, splits, committables, manifest, in_flight } = other;
        self.bytes = bytes.or(self.bytes.take());
        self.splits = splits.or(self.splits.take());
        self.manifest = manifest.or(self.manifest.take());
        self.committables.extend(committables);
        self.in_flight.extend(in_flight);
    }
}

/// What an operator has in a checkpoint, by subtask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorState {
    /// Its name, for messages.
    pub name: String,
    /// One entry per subtask that it had.
    pub subtasks: Vec<SubtaskState>,
}

impl OperatorState {
    /// The manifests of the keyed state of all subtasks.
    pub fn manifests(&self) -> Vec<PathBuf> {
        self.subtasks.iter().filter_map(|subtask| subtask.manifest.clone()).collect()
    }

    /// The bytes of all subtasks that have some.
    pub fn all_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.subtasks.iter().filter_map(|subtask| subtask.bytes.as_deref())
    }

    /// The splits that fall to one of `parallelism` subtasks: its own where the parallelism is what it was, else dealt out
    /// in turn. `None` when the checkpoint was taken without this operator being a source.
    pub fn splits(&self, subtask: usize, parallelism: usize) -> Option<Vec<&SplitPart>> {
        if self.subtasks.iter().all(|state| state.splits.is_none()) {
            return None;
        }
        let of = |state: &SubtaskState| state.splits.iter().flatten().count();
        if parallelism == self.subtasks.len() {
            let own = &self.subtasks[subtask];
            let mut splits = Vec::with_capacity(of(own));
            splits.extend(own.splits.iter().flatten());
            return Some(splits);
        }
        let all = self.subtasks.iter().flat_map(|state| state.splits.iter().flatten());
        Some(all.enumerate().filter(|(at, _)| at % parallelism == subtask).map(|(_, split)| split).collect())
    }
}

/// What a job goes on from, by the operators' stable ids.
pub type Restored = BTreeMap<String, OperatorState>;

/// What the tasks of a region are told about checkpoints.
#[derive(Clone, Default)]
pub struct CheckpointContext {
    /// Whether the end of the input waits for a last checkpoint, by which sinks commit.
    pub ends_with_checkpoint: bool,
    /// What to go on from; empty in a fresh start.
    pub restored: Arc<Restored>,
    /// A directory of these tasks only, where their stores keep their files; `None` where checkpoints are not kept.
    pub state_dir: Option<Arc<Path>>,
    /// Barriers up to that of this checkpoint were sent before these tasks were there: they are not for them.
    pub before: CheckpointId,
}

/// What the control plane says to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// The sources are to send this barrier.
    Trigger(Barrier),
    /// The sources are to end as if their input had.
    Drain,
    /// Nobody needs the snapshots of this checkpoint any more.
    Retire(CheckpointId),
    /// No checkpoint before this one will be gone on from; this one may be.
    Kept(CheckpointId),
    /// The tasks of this region are to be dropped, those that are there; answered by [`FromWorker::Dropped`].
    Drop(RegionIndex),
    /// The next [`Crew`](super::graph::Crew) is to be built.
    Build,
    /// All regions have come to their end.
    Leave,
}

/// What a worker says to the control plane.
#[derive(Debug)]
pub enum FromWorker {
    /// What the sinks of a task have prepared that has passed a barrier, and whose state is not durable yet: both become so at the
    /// same time. It is in [`Passed`](Self::Passed) once more.
    Prepared {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// By operator.
        committables: Vec<(OperatorIndex, Vec<Committable>)>,
    },
    /// A task has passed a barrier, and what its operators added is durable.
    Passed(Box<Passed>),
    /// A task's state could not be made durable. The job goes on; the checkpoint does not.
    Declined {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// The operator.
        operator: OperatorIndex,
        /// Its subtask.
        subtask: usize,
        /// Why.
        cause: BoxError,
    },
    /// A source task has read its whole input and waits for the final checkpoint.
    AtEnd(RegionIndex),
    /// A task of a region has failed, where regions fail apart. The worker has dropped all tasks of the region that it had; others
    /// have theirs.
    Failed(RegionIndex, Error),
    /// The worker has no task of the region any more, and nothing of those that it had comes behind this.
    Dropped(RegionIndex),
    /// All tasks of the region on the worker have come to their end, where regions fail apart.
    Done(RegionIndex),
}

/// What one task has in a checkpoint.
#[derive(Debug)]
pub struct Passed {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// The subtask.
    pub subtask: usize,
    /// By operator, in the order of the chain.
    pub operators: Vec<(OperatorIndex, SubtaskState)>,
    /// Bytes that were written for it.
    pub bytes_written: u64,
}
