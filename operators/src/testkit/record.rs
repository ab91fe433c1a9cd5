//! A sink that keeps every record with its timestamp.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_engine::model::{
    sink::{Sink, SinkWriter},
    source::{BoxError, SubtaskContext},
    time::Timestamp,
};

/// A record as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived<T> {
    /// The subtask that took it.
    pub subtask: usize,
    /// Its event time, or `NO_TIMESTAMP`.
    pub timestamp: Timestamp,
    /// The record.
    pub record: T,
}

/// Keeps what arrives, for [`Recorded`] to look at. A record is seen at once, before it is flushed.
pub struct RecordSink<T>(Arc<Mutex<Vec<Arrived<T>>>>);

/// What a [`RecordSink`] has kept.
pub struct Recorded<T>(Arc<Mutex<Vec<Arrived<T>>>>);

impl<T> RecordSink<T> {
    /// A sink and the view of what it keeps.
    pub fn new() -> (Self, Recorded<T>) {
        let kept = Arc::default();
        (Self(Arc::clone(&kept)), Recorded(kept))
    }
}

impl<T> Recorded<T> {
    /// All arrivals so far, in their order per subtask.
    pub fn take(&self) -> Vec<Arrived<T>> {
        std::mem::take(&mut lock(&self.0))
    }

    /// All records so far, in their order per subtask.
    pub fn take_records(&self) -> Vec<T> {
        self.take().into_iter().map(|arrived| arrived.record).collect()
    }

    /// Number of records so far.
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn lock<T>(kept: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> Sink<T> for RecordSink<T> {
    type Writer = RecordWriter<T>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, context: &SubtaskContext) -> Result<RecordWriter<T>, BoxError> {
        Ok(RecordWriter { kept: Arc::clone(&self.0), subtask: context.subtask })
    }
}

/// Keeps the records of one subtask of a [`RecordSink`].
pub struct RecordWriter<T> {
    kept: Arc<Mutex<Vec<Arrived<T>>>>,
    subtask: usize,
}

impl<T: Send + 'static> SinkWriter<T> for RecordWriter<T> {
    fn write(&mut self, record: T, timestamp: Timestamp) -> Result<(), BoxError> {
        lock(&self.kept).push(Arrived { subtask: self.subtask, timestamp, record });
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}
