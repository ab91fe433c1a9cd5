//! A sink that drops everything and counts: for measuring what comes before it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tidemill_engine::model::{
    sink::{Sink, SinkWriter},
    source::{BoxError, SubtaskContext},
    time::Timestamp,
};

/// Drops every record, and counts them.
///
/// ```
/// let sink = tidemill_operators::sink::BlackholeSink::new();
/// let count = sink.count();
/// // … run a job that ends in `sink`, then:
/// assert_eq!(count.records(), 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct BlackholeSink {
    count: RecordCount,
}

/// How many records a [`BlackholeSink`] dropped.
#[derive(Clone, Debug, Default)]
pub struct RecordCount(Arc<AtomicU64>);

impl RecordCount {
    /// Records up to each subtask's last flush: all of them once the job has ended.
    pub fn records(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl BlackholeSink {
    /// A sink that has counted nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The count, to read after the job.
    pub fn count(&self) -> RecordCount {
        self.count.clone()
    }
}

impl<T: 'static> Sink<T> for BlackholeSink {
    type Writer = BlackholeWriter;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, _context: &SubtaskContext) -> Result<BlackholeWriter, BoxError> {
        Ok(BlackholeWriter { count: self.count.clone(), pending: 0 })
    }
}

/// Drops one subtask's records of a [`BlackholeSink`].
pub struct BlackholeWriter {
    count: RecordCount,
    pending: u64,
}

impl<T: 'static> SinkWriter<T> for BlackholeWriter {
    #[inline]
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        // The work of making the record must not be optimised away.
        drop(std::hint::black_box(record));
        self.pending += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        self.count.0.fetch_add(std::mem::take(&mut self.pending), Ordering::Relaxed);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        SinkWriter::<T>::flush(self)
    }
}
