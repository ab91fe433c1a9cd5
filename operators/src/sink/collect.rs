//! Results in memory: for tests, notebooks and small results.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_engine::model::{
    sink::{Sink, SinkWriter},
    source::{BoxError, SubtaskContext},
    time::Timestamp,
};

/// Records per subtask.
type Parts<T> = Vec<Vec<T>>;

/// Keeps all records in memory, for [`Collected`] to take. There is no bound: for small results.
///
/// ```
/// use tidemill_operators::sink::CollectSink;
///
/// let (sink, collected) = CollectSink::<u64>::new();
/// // … run a job that ends in `sink`, then:
/// # drop(sink);
/// assert!(collected.take().is_empty());
/// ```
pub struct CollectSink<T> {
    parts: Arc<Mutex<Parts<T>>>,
}

/// Takes what a [`CollectSink`] collected. Clones take from the same.
pub struct Collected<T> {
    parts: Arc<Mutex<Parts<T>>>,
}

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone() }
    }
}

impl<T> CollectSink<T> {
    /// A sink, and the handle to what it collects.
    pub fn new() -> (Self, Collected<T>) {
        let parts = Arc::default();
        (Self { parts: Arc::clone(&parts) }, Collected { parts })
    }
}

impl<T> Collected<T> {
    /// Takes what was flushed so far: all records once the job has ended. They are in the order of the
    /// subtasks, and within one in the order of arrival.
    pub fn take(&self) -> Vec<T> {
        self.take_by_subtask().into_iter().flatten().collect()
    }

    /// Takes what was flushed so far, one vector per subtask.
    pub fn take_by_subtask(&self) -> Vec<Vec<T>> {
        lock(&self.parts).iter_mut().map(std::mem::take).collect()
    }
}

fn lock<T>(parts: &Mutex<Parts<T>>) -> MutexGuard<'_, Parts<T>> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> Sink<T> for CollectSink<T> {
    type Writer = CollectWriter<T>;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        lock(&self.parts).resize_with(parallelism, Vec::new);
        Ok(())
    }

    fn open(&self, context: &SubtaskContext) -> Result<CollectWriter<T>, BoxError> {
        Ok(CollectWriter { parts: self.parts.clone(), subtask: context.subtask, pending: Vec::new() })
    }
}

/// Collects one subtask's records of a [`CollectSink`].
pub struct CollectWriter<T> {
    parts: Arc<Mutex<Parts<T>>>,
    subtask: usize,
    pending: Vec<T>,
}

impl<T: Send + 'static> SinkWriter<T> for CollectWriter<T> {
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        self.pending.push(record);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        if !self.pending.is_empty() {
            lock(&self.parts)[self.subtask].append(&mut self.pending);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        self.flush()
    }
}
