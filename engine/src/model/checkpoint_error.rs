//! What can be wrong with checkpoints, and what to do about it.

use std::{io, path::PathBuf};

use tidemill_storage::state::StateError;

use crate::platform::remote::RemoteError;

/// Why a checkpoint cannot be written, read or gone on from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("cannot {doing} {file}: {source}. Checkpoints need a directory on a local disk that this user may write to, with room on it", file = file.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The directory is another job's.
    #[error(
        "{directory} holds checkpoints of the job `{found}`, and this job is `{job}`: give each job a directory of its own, \
         or this one its former name", directory = directory.display()
    )]
    OtherJob {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asks.
        job: String,
    },
    /// The directory is no job's, and holds a savepoint.
    #[error(
        "{directory} holds a savepoint, and checkpoints of the job `{job}` are to be kept there: to begin with it, name it as \
         `CheckpointConfig::savepoint`, and another directory for checkpoints", directory = directory.display()
    )]
    HoldsSavepoint {
        /// The directory.
        directory: PathBuf,
        /// Who asks.
        job: String,
    },
    /// A manifest, or what it names, cannot be read.
    #[error("{file} is no checkpoint that can be used: {what}", file = file.display())]
    Manifest {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A manifest has a format that this version does not know.
    #[error(
        "{file} has format version {found}, and this version of Tidemill reads {known}: run the version that wrote it, or a \
         newer one", file = file.display()
    )]
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is known.
        known: u32,
    },
    /// A manifest was written, could not be made durable, and could not be taken away again.
    #[error(
        "it is not known whether the checkpoint {file} is complete: {cause}. The job stops, so that nothing is done twice or never; \
         mend the disk and start it again, and it goes on from what is there", file = file.display()
    )]
    Unknown {
        /// The file.
        file: PathBuf,
        /// What went wrong first.
        cause: Box<CheckpointError>,
    },
    /// There are checkpoints, and none is whole.
    #[error(
        "none of the checkpoints in {directory} can be used:\n{reasons}\nBring back what is missing, name a savepoint to begin \
         with (another than the job began with before), or move the directory away to begin afresh (the state is lost then)",
        directory = directory.display()
    )]
    NoneWhole {
        /// The directory.
        directory: PathBuf,
        /// Why each cannot be used, one per line.
        reasons: String,
    },
    /// There were checkpoints, and their manifests are gone.
    #[error(
        "the job has completed checkpoint {checkpoint}, and there is no checkpoint in {directory}/checkpoints any more. Nothing was \
         changed: bring back what was there, name a savepoint to begin with (another than the job began with before), or remove all \
         that is in {directory} to begin afresh (the state is lost then)", directory = directory.display()
    )]
    Lost {
        /// The directory.
        directory: PathBuf,
        /// The newest of which it is known that it was complete.
        checkpoint: u64,
    },
    /// There are checkpoints, none can be used, and what the job began with cannot be read either.
    #[error(
        "{cause}\nWhat the job began with is not known any more: it may have been the savepoint {savepoint}, long ago. To begin with that \
         all the same, move the directory away, and name another remote store if there is one (what came since is lost then)"
    )]
    BeginningUnknown {
        /// The savepoint that is named.
        savepoint: String,
        /// What is wrong with the checkpoints.
        cause: Box<CheckpointError>,
    },
    /// The directory cannot be made, since the one above it is missing.
    #[error(
        "cannot make the directory of checkpoints {directory}: {parent} is not there. If it is on a disk of its own, mount that, or \
         the job would begin anew on another one; if this is the job's first start, make it (mkdir -p {parent})",
        directory = directory.display(), parent = parent.display()
    )]
    NoParent {
        /// The directory.
        directory: PathBuf,
        /// The one above it.
        parent: PathBuf,
    },
    /// The directory has checkpoints of a job that began with something else than what is named now.
    #[error(
        "the job is to begin with the savepoint {savepoint}, and {directory} has checkpoint {checkpoint} of the same job, which began \
         with {beginning}: to go on from there, name no savepoint; to begin with this one, name a directory without checkpoints",
        directory = directory.display()
    )]
    OtherBeginning {
        /// The directory.
        directory: PathBuf,
        /// The newest checkpoint in it.
        checkpoint: u64,
        /// The savepoint that is named.
        savepoint: String,
        /// What the job began with.
        beginning: String,
    },
    /// The checkpoint has another number of key groups.
    #[error(
        "the checkpoint {checkpoint} was written with max_parallelism {stored} and the job has {wanted}: the number of key \
         groups is fixed for the life of a job's state; set max_parallelism to {stored}, or leave it out to take over what is stored",
        checkpoint = checkpoint.display()
    )]
    MaxParallelism {
        /// The file.
        checkpoint: PathBuf,
        /// Of the checkpoint.
        stored: u32,
        /// Of the job.
        wanted: u32,
    },
    /// The job has more subtasks than the checkpoint has key groups.
    #[error(
        "the checkpoint {checkpoint} has {stored} key groups and the job's parallelism is {parallelism}: a subtask without a key \
         group would have nothing to do, and their number is fixed for the life of a job's state; set parallelism to {stored} or less",
        checkpoint = checkpoint.display()
    )]
    Parallelism {
        /// The file.
        checkpoint: PathBuf,
        /// Number of key groups of the checkpoint.
        stored: u32,
        /// Of the job.
        parallelism: usize,
    },
    /// The checkpoint has state that nobody would get.
    #[error(
        "the checkpoint {checkpoint} holds what no operator of this job takes up: {operators}. Give the operators \
         their former ids with `.uid(…)`, or set allow_non_restored_state to drop that state", checkpoint = checkpoint.display()
    )]
    NonRestored {
        /// The file.
        checkpoint: PathBuf,
        /// Ids and names, one after the other.
        operators: String,
    },
    /// The checkpoint has states of an operator that it does not open.
    #[error(
        "the checkpoint that the job goes on from holds states that the operator `{operator}` does not open: {states}. Give states \
         their former names and operators their former ids (`.uid(…)`), or set allow_non_restored_state to drop what is left"
    )]
    NonRestoredStates {
        /// Name of the operator.
        operator: String,
        /// Their names, one after the other.
        states: String,
    },
    /// A part of the state is damaged or missing.
    #[error(transparent)]
    State(#[from] StateError),
    /// The remote store did not do what was asked of it.
    #[error("cannot {doing} in {place}: {source}")]
    Remote {
        /// What was being done.
        doing: &'static str,
        /// The store.
        place: String,
        /// What it says.
        source: RemoteError,
    },
    /// A checkpoint did not get to the remote store in time.
    #[error(
        "checkpoint {checkpoint} was not in {place} when its time was up; if the state is large or the way slow, set a longer \
         timeout_ms and interval_ms"
    )]
    RemoteLate {
        /// Its number.
        checkpoint: u64,
        /// The store.
        place: String,
    },
    /// There is no savepoint where one should be.
    #[error("there is no savepoint in {place}: {what}")]
    NoSavepoint {
        /// The store.
        place: String,
        /// What is there instead, and what to do.
        what: String,
    },
    /// There is a savepoint where one was to be written.
    #[error("{place} holds a savepoint already: name another place for this one")]
    SavepointTaken {
        /// The store.
        place: String,
    },
    /// Another process has taken the remote store for the same job.
    #[error(
        "another process runs the job `{job}` with the checkpoints in {place}, and has taken them over. This one stops, so that \
         nothing is done twice: run the job once, or give each its own name and prefix"
    )]
    Overtaken {
        /// The store.
        place: String,
        /// The job.
        job: String,
    },
    /// A checkpoint that was asked for failed, and the job goes on.
    #[error("the checkpoint failed: {cause}. The job goes on; ask again when that is mended")]
    Failed {
        /// Why it did.
        cause: String,
    },
    /// Operators are down, and their state is not to be had before they are started again.
    #[error(
        "operators are down, and there is no checkpoint and no savepoint meanwhile: {outages}. Ask again when they are up, or stop the job \
         without one (`tidemill stop`, `JobMonitor::stop`): that waits for nothing, and the job goes on from its newest checkpoint another time"
    )]
    Down {
        /// Which, since when, why, and when they are started again.
        outages: String,
    },
    /// The last checkpoint of a job failed: it was being stopped, or has read its input.
    #[error(
        "the last checkpoint of the job failed: {cause}. The checkpoints before it are as they were: started again, the job goes on \
         from the newest"
    )]
    LastFailed {
        /// Why it did.
        cause: String,
    },
    /// Too many checkpoints in a row failed.
    #[error(
        "{failures} checkpoints in a row failed, and failures_max is {failures_max}; the last one: {cause}"
    )]
    TooManyFailures {
        /// How many.
        failures: u32,
        /// How many may.
        failures_max: u32,
        /// Why the last one did.
        cause: String,
    },
    /// A sink did not end what was prepared before, or what it has written is not what the checkpoint knows.
    #[error("the sink `{sink}` cannot go on: {cause}")]
    Recover {
        /// Name of the sink.
        sink: String,
        /// What it said.
        cause: String,
    },
    /// A sink's second phase failed.
    #[error("cannot commit what the sink `{sink}` has prepared: {cause}")]
    Commit {
        /// Name of the sink.
        sink: String,
        /// What it said.
        cause: String,
    },
}
