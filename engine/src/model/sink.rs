//! The contract of a sink that takes owned records; one writer is opened per subtask.

use std::sync::Arc;

use tidemill_storage::snapshot::disk::Disk;

use super::{
    checkpoint::{CheckpointId, Committable},
    connections::Connections,
    source::{BoxError, SubtaskContext},
    time::Timestamp,
};

/// A sink: says where records go.
pub trait Sink<T>: Send + Sync + 'static {
    /// What writes the records of one subtask.
    type Writer: SinkWriter<T>;

    /// Checks the destination. Called once, on the thread that starts the job, before any worker runs.
    ///
    /// # Errors
    /// Whatever makes the destination unusable.
    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError>;

    /// Opens the writer of one subtask, on its worker's thread.
    ///
    /// # Errors
    /// Whatever makes the destination unusable.
    fn open(&self, context: &SubtaskContext) -> Result<Self::Writer, BoxError>;

    /// What commits that which writers have prepared, for all subtasks together. Called once, behind `prepare` and before any
    /// writer is opened. `None`, the default, for a sink that
    /// hands everything on at once: after a crash it may get records a second time.
    ///
    /// # Errors
    /// Whatever makes the destination unusable.
    fn committer(&self, context: &CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> {
        let _ = context;
        Ok(None)
    }
}

/// What a sink's committer is made with.
#[derive(Clone, Debug)]
pub struct CommitContext {
    /// Name of the job.
    pub job: String,
    /// The sink's stable id.
    pub operator: String,
    /// The platform's disk.
    pub disk: Arc<dyn Disk>,
    /// Where a sink that reaches over a network tells how its connections are, writers' included.
    pub connections: Arc<Connections>,
}

/// The second half of a two-phase commit. Called by the control plane, off the data cores, so it may block.
///
/// Between a writer's [`pre_commit`](SinkWriter::pre_commit) and the end of [`commit`](Self::commit) the process may die at any
/// point. Then [`recover`](Self::recover) is called with what the newest complete checkpoint holds, whether or not it was
/// committed already.
pub trait Committer: Send + 'static {
    /// Makes sure that what these name will survive a crash. The checkpoint is complete only after this.
    ///
    /// # Errors
    /// An error fails the checkpoint.
    fn secure(&mut self, committables: &[Committable]) -> Result<(), BoxError>;

    /// Makes what these name visible to readers. Idempotent: what is visible already is left as it is.
    ///
    /// # Errors
    /// An error fails the job, which then starts again from this checkpoint.
    fn commit(&mut self, committables: &[Committable]) -> Result<(), BoxError>;

    /// Whether [`commit`](Self::commit) tries again by itself what may pass, for as long as its settings say. Of one that does not, what has
    /// failed is tried again at once, a few times.
    fn is_patient(&self) -> bool {
        false
    }

    /// Gives up what these name: their checkpoint will never be complete.
    ///
    /// # Errors
    /// An error is told and otherwise ignored; [`recover`](Self::recover) cleans up, too.
    fn abort(&mut self, committables: &[Committable]) -> Result<(), BoxError>;

    /// Those of `committables`, which are committed, that only say how far the sink has come, and owe nobody anything. They are in savepoints, too: a
    /// job that begins with one goes on from there.
    fn positions(&self, committables: &[Committable]) -> Vec<Committable> {
        let _ = committables;
        Vec::new()
    }

    /// Before [`recover`](Self::recover) without any committables, where the job, or the region of it that the sink is in, has no checkpoint and no
    /// savepoint to go on from: its sources read all of their input. May look, and changes nothing: when one sink of the job refuses, none
    /// of them has recovered.
    ///
    /// # Errors
    /// When what an earlier run has committed is there, and would be committed again.
    fn begin_anew(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Before the job, or the [region](crate::model::regions) of it that the sink is in, goes on from a checkpoint or begins afresh (without any):
    /// commits what these name, and gives up whatever else was prepared for this sink. Its writers are gone; those of other sinks of the job
    /// may be at work, and what they have prepared stays.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn recover(&mut self, committables: &[Committable]) -> Result<(), BoxError>;

    /// The job has ended before its time, by a failure or because it was told to, and this process does not go on with it: gives up whatever
    /// else was prepared for this sink than what these name, which the newest complete checkpoint holds; commits these, or leaves them to
    /// [`recover`](Self::recover). Its writers are gone. Does nothing unless what is left would be in somebody's way, and does not wait for
    /// long.
    ///
    /// # Errors
    /// An error is told and otherwise ignored; [`recover`](Self::recover) cleans up, too.
    fn leave(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        let _ = committables;
        Ok(())
    }
}

/// Writes the records of one subtask; called on one thread only.
pub trait SinkWriter<T>: 'static {
    /// Takes one record; may buffer it.
    ///
    /// # Errors
    /// An error stops the job; it should name the destination.
    fn write(&mut self, record: T, timestamp: Timestamp) -> Result<(), BoxError>;

    /// Whether it takes records for now: a sink that hands them to others and has handed over as many as it may says no, and
    /// wakes its worker when it can take more. Asked before records are pushed and after each of them.
    ///
    /// # Errors
    /// As [`write`](Self::write): also what went wrong since, elsewhere.
    #[inline(always)]
    fn ready(&mut self) -> Result<bool, BoxError> {
        Ok(true)
    }

    /// Makes what was written visible to readers. Called when the input has run dry for the moment.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn flush(&mut self) -> Result<(), BoxError>;

    /// Ends the transaction that all records since the last call are in, and says how to commit it: nothing, if there are
    /// none. Called at the barrier of a checkpoint; must not block for long.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn pre_commit(&mut self, checkpoint: CheckpointId) -> Result<Vec<Committable>, BoxError> {
        let _ = checkpoint;
        self.flush()?;
        Ok(Vec::new())
    }

    /// Flushes and closes: no record follows. Not called when the job fails.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn finish(&mut self) -> Result<(), BoxError>;
}
