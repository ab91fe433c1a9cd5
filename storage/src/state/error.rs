//! What can go wrong with state: wrong types, damaged files, a disk that fails or is full.

use std::{io, path::PathBuf};

/// Why state could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A state was stored with another type.
    #[error(
        "state `{state}` of operator `{operator}` was stored with {what} `{stored}` and is opened with `{wanted}`; \
         open it with the stored type, register a migration from it, or give the new state another name"
    )]
    Schema {
        /// The operator's id.
        operator: String,
        /// The state's name.
        state: String,
        /// Which of its types differs: `keys`, `values` or `kind`.
        what: &'static str,
        /// The type it was stored with.
        stored: String,
        /// The type it is opened with.
        wanted: String,
    },
    /// What an operator has kept besides its keyed state is nothing that this one keeps.
    #[error(
        "what the checkpoint holds under this operator's id was kept by an operator of another kind or version: {source}. Give the \
         operator another id with `.uid(…)`, and set `allow_non_restored_state` if what the other one had may be dropped; or put the \
         other one back"
    )]
    OtherOperator {
        /// What it is not.
        source: crate::record::RecordError,
    },
    /// A state was opened twice.
    #[error("operator `{operator}` opens its state `{state}` twice; give each state its own name")]
    OpenTwice {
        /// The operator's id.
        operator: String,
        /// The state's name.
        state: String,
    },
    /// A key or value is longer than the store can hold.
    #[error("a {what} of {bytes} bytes is over the limit of {bytes_max} bytes per {what}; split it up")]
    TooLong {
        /// `key`, `value` or `table`.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A file is not what it should be: cut off, changed, of another store, or of a newer version.
    #[error("{file}: at byte {offset}: {what}", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {file}: {source}", file = file.display())]
    Io {
        /// What was being done: `read`, `write`, `create`, …
        doing: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A snapshot was written for another number of key groups.
    #[error(
        "the state was written with max_parallelism {stored} and the job has {wanted}: the number of key groups is \
         fixed for the life of a job's state; set max_parallelism to {stored}"
    )]
    MaxParallelism {
        /// The number of key groups of the state.
        stored: u32,
        /// That of the job.
        wanted: u32,
    },
    /// What a file holds is intact and still no records of the state.
    #[error(
        "the stored records of state `{state}` of operator `{operator}` cannot be read: {what}; restore from another \
         snapshot"
    )]
    NoRecords {
        /// The operator's id.
        operator: String,
        /// The state's name.
        state: String,
        /// What is wrong.
        what: String,
    },
    /// Something has to be written, and nobody has said where to.
    #[error("state has to be written to disk and no directory is set for it; set `state_dir`")]
    NoDirectory,
    /// State is to be in a snapshot, and its backend has none.
    #[error(
        "state in plain memory cannot be in a snapshot; choose the log as state backend, or no checkpoints"
    )]
    NoSnapshots,
    /// A record could not be written or read back.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
}
