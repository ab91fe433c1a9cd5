//! What can go wrong in a sink, and what to do about it.

use std::path::PathBuf;

use tidemill_engine::platform::files::FileError;

/// Why a sink cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The file or directory cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// One file, several writers.
    #[error("cannot write {} from {parallelism} subtasks: one file has one writer. Put `.global()` before the sink, or use its `directory` form", .path.display())]
    OneFileManyWriters {
        /// The file.
        path: PathBuf,
        /// Number of subtasks.
        parallelism: usize,
    },
    /// A directory with part files of an earlier run that this run would not replace.
    #[error("cannot write into {}: {} is left from a run with more subtasks and would look like a part of this result. Remove it, or name an empty directory", .directory.display(), .part.display())]
    LeftoverPart {
        /// The directory.
        directory: PathBuf,
        /// The first such file.
        part: PathBuf,
    },
    /// A job that begins from nothing has committed files there, of an earlier run.
    #[error(
        "cannot begin anew in {}: {files} committed files of an earlier run are there, such as {}, and this run has no checkpoint or savepoint to \
         go on from, so that it would write their rows again. If there is to be one, bring it back (is the disk of the checkpoints mounted?); \
         else move the files away; or, if these are to be added to, say so with `FileSink::append`",
        .directory.display(), .part.display()
    )]
    EarlierRun {
        /// The directory.
        directory: PathBuf,
        /// One of the files.
        part: PathBuf,
        /// How many there are.
        files: usize,
    },
    /// The directory cannot be made, since the one above it is missing.
    #[error("cannot make the directory {}: {} is not there. If it is on a disk of its own, mount that; else make it (mkdir -p {})", .directory.display(), .parent.display(), .parent.display())]
    NoParent {
        /// The directory.
        directory: PathBuf,
        /// The one above it.
        parent: PathBuf,
    },
    /// A record has no form in the file's format.
    #[error("cannot write a record to {}: {reason}. Change the record's type, or map it to one of plain fields first", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        reason: String,
    },
    /// A checkpoint has something else than this sink wrote.
    #[error(
        "the checkpoint holds what another sink has prepared: {reason}. Give a sink that was replaced another id with `.uid(…)`, and set allow_non_restored_state to drop what the former has there; or start without the checkpoint"
    )]
    OtherCommittable {
        /// What is wrong with it.
        reason: String,
    },
    /// A file that a checkpoint has is not there.
    #[error("cannot commit {}: neither it nor {} is there, so the rows of a complete checkpoint are gone, or were taken away before the next checkpoint. Put the file back, or go on from a savepoint", .path.display(), .hidden.display())]
    FileLost {
        /// Where it would be.
        path: PathBuf,
        /// Where it was.
        hidden: PathBuf,
    },
    /// A file that a checkpoint has is another one.
    #[error("cannot commit {}: it has {found} bytes, and {expected} were written. Find out who else writes in that directory, and move the file away", .path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// The length that it should have.
        expected: u64,
        /// The length that it has.
        found: u64,
    },
    /// A file that rows were written to as they came is not what a checkpoint knows.
    #[error("cannot go on with {}: the checkpoint knows {bytes} bytes of it, and {how}. Put it back as it was, and mount its disk if it has one of its own; or make it an empty file, to have rows from here on in it", .path.display())]
    NotAsItWas {
        /// Where it is looked for.
        path: PathBuf,
        /// The length that the checkpoint knows.
        bytes: u64,
        /// What is there instead.
        how: String,
    },
    /// A job goes on from a checkpoint or savepoint that knows nothing of a file, which has rows.
    #[error("cannot go on with {}: it has {bytes} bytes, and the checkpoint or savepoint knows nothing of them, so that they would be overwritten. Give the sink the id that it had (`.uid(…)`); else move the file away, or make it empty", .path.display())]
    UnknownRows {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// No thread.
    #[error(
        "cannot start the thread that starts I/O threads: {cause}. Check the limit on threads (`ulimit -u`)"
    )]
    Threads {
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Whoever read standard output has gone.
    #[error("standard output was closed by its reader; the job stops, since nobody sees its output")]
    StdoutClosed,
    /// Standard output cannot be written.
    #[error("writing to standard output failed: {cause}. Check where it is redirected to")]
    Stdout {
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
}
