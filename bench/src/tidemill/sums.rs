//! A sink that sums up rows in each subtask and adds the sums at the end: as cheap as a blackhole, but what went in is
//! known.

use std::sync::{Arc, Mutex, PoisonError};

use ::tidemill::{
    model::{
        sink::{Sink, SinkWriter},
        source::SubtaskContext,
    },
    prelude::*,
};

use crate::nexmark::Checksum;

/// Sums up the rows that `row` makes of records.
pub(super) struct ChecksumSink<F> {
    row: F,
    total: Total,
}

/// The sum, complete when the job has ended.
#[derive(Clone, Default)]
pub(super) struct Total(Arc<Mutex<Checksum>>);

impl Total {
    pub(super) fn get(&self) -> Checksum {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> ChecksumSink<F> {
    pub(super) fn new(row: F) -> (Self, Total) {
        let total = Total::default();
        (Self { row, total: total.clone() }, total)
    }
}

impl<T: 'static, F: Fn(&T) -> u64 + Clone + Send + Sync + 'static> Sink<T> for ChecksumSink<F> {
    type Writer = ChecksumWriter<F>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, _context: &SubtaskContext) -> Result<ChecksumWriter<F>, BoxError> {
        Ok(ChecksumWriter { row: self.row.clone(), sum: Checksum::default(), total: self.total.clone() })
    }
}

pub(super) struct ChecksumWriter<F> {
    row: F,
    sum: Checksum,
    total: Total,
}

impl<T: 'static, F: Fn(&T) -> u64 + 'static> SinkWriter<T> for ChecksumWriter<F> {
    #[inline(always)]
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        self.sum.add((self.row)(&record));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        self.total.0.lock().unwrap_or_else(PoisonError::into_inner).merge(self.sum);
        Ok(())
    }
}
