//! What can go wrong with a write-ahead log, and what to do about it.

use std::{io, path::PathBuf};

use crate::state::StateError;

/// Why a log could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process, or another channel of this one, has the log.
    #[error("the write-ahead log in {directory} cannot be taken: {source}", directory = directory.display())]
    Taken {
        /// The log's directory.
        directory: PathBuf,
        /// Who has it.
        source: Box<StateError>,
    },
    /// What the log's directory is to be in is missing.
    #[error(
        "there is no {parent} for the write-ahead log {directory}. Make it, or mount the disk that it is on: a log in its place \
         would have nothing of what was acknowledged",
        parent = parent.display(), directory = directory.display()
    )]
    NoParent {
        /// The log's directory.
        directory: PathBuf,
        /// The one that is missing.
        parent: PathBuf,
    },
    /// The operating system refused. What was being written is not acknowledged; what was acknowledged before is safe.
    #[error(
        "cannot {doing} {file} of the write-ahead log: {source}. {fix}",
        file = file.display(), fix = fix(source)
    )]
    Io {
        /// What was being done: `read`, `write`, `create`, …
        doing: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something in the middle of the log is not what was written there. It is never skipped.
    #[error(
        "{file}: at byte {offset}: {what}. The write-ahead log is damaged there: put the file back from a copy, or move the \
         log's directory away and begin with an empty one, without the records that are in it",
        file = file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The log was written by a newer release.
    #[error(
        "{file} is a write-ahead log of format version {found}, and this release reads up to {known}. Use a newer release",
        file = file.display()
    )]
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// Version of the file.
        found: u32,
        /// The newest version that is known.
        known: u32,
    },
    /// The log has records of another type.
    #[error(
        "the write-ahead log in {directory} has records of the type `{stored}`, and `{wanted}` is to be sent. Send the type \
         that it has until its records are read, or name another directory",
        directory = directory.display()
    )]
    Schema {
        /// The log's directory.
        directory: PathBuf,
        /// Name and version of the type that it has.
        stored: String,
        /// Name and version of the type that was asked for.
        wanted: String,
    },
    /// A checkpoint goes on with records that are not in the log.
    #[error(
        "the checkpoint goes on with record {wanted} of the write-ahead log in {directory}, which has the records {first} to \
         {end} (not included). Give the job the log that it was fed by, or a newer checkpoint; else start without the checkpoint",
        directory = directory.display()
    )]
    Elsewhere {
        /// The log's directory.
        directory: PathBuf,
        /// The record to go on with.
        wanted: u64,
        /// The first that is there.
        first: u64,
        /// The one behind the last that is there.
        end: u64,
    },
    /// A checkpoint was taken of a job that another log fed.
    #[error(
        "the checkpoint was taken of the write-ahead log {wanted:016x}, and the one in {directory} is {found:016x}. Name the \
         directory that the job had, or start without the checkpoint",
        directory = directory.display()
    )]
    OtherLog {
        /// The log's directory.
        directory: PathBuf,
        /// Number of the log that the checkpoint knows.
        wanted: u64,
        /// Number of the log that is there.
        found: u64,
    },
    /// The log is to be read from its beginning, which it does not have any more.
    #[error(
        "the write-ahead log in {directory} begins with record {first}: what was before it is in checkpoints of the job, and the job \
         begins without any. Bring back the directory of its checkpoints, or name a savepoint; else, to begin without these records, \
         say so once with `WriteAheadChannel::allow_trimmed_log`, or name an empty directory for the log",
        directory = directory.display()
    )]
    Trimmed {
        /// The log's directory.
        directory: PathBuf,
        /// The first record that is there.
        first: u64,
    },
    /// What serves the log has panicked.
    #[error(
        "the thread of the write-ahead log in {directory} is gone: it panicked, which is a bug of Tidemill. What was \
         acknowledged is safe; start the process again",
        directory = directory.display()
    )]
    Abandoned {
        /// The log's directory.
        directory: PathBuf,
    },
}

/// What to do about an error of the system.
fn fix(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "Make room on its filesystem; then records can be sent again"
        }
        io::ErrorKind::ReadOnlyFilesystem => "Mount its filesystem for writing, or name another directory",
        io::ErrorKind::PermissionDenied => "Let this user write there, or name another directory",
        _ => "Look after the disk; then send again what was not acknowledged",
    }
}
