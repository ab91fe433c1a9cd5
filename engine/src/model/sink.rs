//! The contract of a sink that takes owned records; one writer is opened per subtask.

use super::{
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
}

/// Writes the records of one subtask; called on one thread only.
pub trait SinkWriter<T>: 'static {
    /// Takes one record; may buffer it.
    ///
    /// # Errors
    /// An error stops the job; it should name the destination.
    fn write(&mut self, record: T, timestamp: Timestamp) -> Result<(), BoxError>;

    /// Makes what was written visible to readers. Called when the input has run dry for the moment.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn flush(&mut self) -> Result<(), BoxError>;

    /// Flushes and closes: no record follows. Not called when the job fails.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn finish(&mut self) -> Result<(), BoxError>;
}
