//! Why a record was not taken, not kept, or not read.

use std::{path::PathBuf, sync::Arc};

use tidemill_storage::{record::RecordError, wal::LogError};

/// Why something could not be done with a write-ahead channel.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteAheadError {
    /// There is no room for now: the job, its checkpoints or the disk do not keep up. Nothing was sent.
    #[error(
        "the write-ahead channel is full: the job or its checkpoints do not keep up; send again later, or by a form that waits"
    )]
    Full,
    /// The channel was closed, in this life of the process or in an earlier one. Nothing was sent.
    #[error(
        "the write-ahead channel was closed for good: feed another job by a channel with another directory"
    )]
    Closed,
    /// The job has ended or failed. Nothing was sent; what was acknowledged before waits in the log for the job to be
    /// started again.
    #[error(
        "the job that reads the write-ahead channel has ended: its handle tells why. What was acknowledged is kept for the \
         job to be started again"
    )]
    JobEnded,
    /// More than one send can have. Nothing was sent.
    #[error(
        "{bytes} bytes are to be sent at once, and {bytes_max} is the most. Send less at a time, or raise `log_bytes_max`"
    )]
    TooLong {
        /// Bytes in the log.
        bytes: usize,
        /// The most that one send may have.
        bytes_max: usize,
    },
    /// A record could not be archived. Nothing was sent.
    #[error(transparent)]
    Record(Arc<RecordError>),
    /// The log could not be opened or written. Of what was being sent it is known only that it is not durable yet: it may be
    /// delivered all the same if the process dies before anything else is sent.
    #[error(transparent)]
    Log(Arc<LogError>),
    /// The thread that serves the log could not be started.
    #[error(
        "cannot start the thread of the write-ahead log: {cause}. Check the limit on threads (`ulimit -u`)"
    )]
    Thread {
        /// What the system said.
        cause: Arc<std::io::Error>,
    },
    /// A record of the log is intact and no record of its type.
    #[error(
        "record {record} of the write-ahead log in {directory} cannot be read: {cause}. Was the type changed without a new \
         schema version? Read the log with the type that it was written with",
        directory = directory.display()
    )]
    Undecodable {
        /// The log's directory.
        directory: PathBuf,
        /// Number of the record.
        record: u64,
        /// What is wrong with it.
        cause: Arc<RecordError>,
    },
    /// The checkpoint has more than one place to read on from, which no write-ahead channel has.
    #[error(
        "the checkpoint has {splits} places in write-ahead logs for one source. Give a source that was replaced another id \
         with `.uid(…)`, or start without the checkpoint"
    )]
    Splits {
        /// Their number.
        splits: usize,
    },
}

impl From<LogError> for WriteAheadError {
    fn from(error: LogError) -> Self {
        Self::Log(Arc::new(error))
    }
}

impl From<Arc<LogError>> for WriteAheadError {
    fn from(error: Arc<LogError>) -> Self {
        Self::Log(error)
    }
}
