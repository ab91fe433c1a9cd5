//! The reading end of a write-ahead channel.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use tidemill_engine::{
    model::{
        checkpoint::CheckpointId,
        source::{BoxError, Flow, Output, Polled, Reader},
    },
    platform::Nanos,
};
use tidemill_storage::{
    record::{Record, RecordError, access, from_archived, last_root},
    wal::Chunk,
};

use super::{JobEnd, WriteAheadSplit, error::WriteAheadError};

/// After this a reader that is to end tries again to have the end written.
const CLOSE_RETRY_NS: Nanos = 100_000_000;

/// Reads a write-ahead channel in one subtask; in the others it reads nothing.
pub struct WriteAheadReader<T> {
    job: Arc<JobEnd>,
    /// The share of a subtask that has one.
    share: Option<Share>,
    records: PhantomData<fn() -> T>,
}

/// What is being read.
struct Share {
    /// By what the desk knows this reader.
    epoch: u64,
    chunk: Option<Chunk>,
    /// Number of the next record.
    next: u64,
    has_ended: bool,
    /// When the channel is to be closed, because the job is to end.
    close_at: Option<Nanos>,
    /// Where it stood at the checkpoints that may be gone on from.
    notes: BTreeMap<CheckpointId, u64>,
}

impl<T: Record> WriteAheadReader<T> {
    /// Reads from this record on, or nothing.
    pub(super) fn new(job: Arc<JobEnd>, from: Option<u64>) -> Result<Self, WriteAheadError> {
        let share = |next| {
            let epoch = job.keeper.desk.attach(next)?;
            Ok::<_, WriteAheadError>(Share {
                epoch,
                chunk: None,
                next,
                has_ended: false,
                close_at: None,
                notes: BTreeMap::new(),
            })
        };
        let share = from.map(share).transpose()?;
        Ok(Self { job, share, records: PhantomData })
    }
}

/// Reads one record.
fn decode<T: Record>(bytes: &[u8]) -> Result<T, RecordError> {
    // Too few bytes are refused by the check, wherever the root is said to be.
    let root = last_root::<T>(bytes.len()).unwrap_or(0);
    access::<T>(bytes, root).and_then(from_archived::<T>)
}

impl<T: Record> Reader for WriteAheadReader<T> {
    type Item = T;
    type Split = WriteAheadSplit;

    fn splits(&self) -> usize {
        usize::from(self.share.is_some())
    }

    fn position(&self, _split: usize) -> WriteAheadSplit {
        let record = self.share.as_ref().map_or(0, |share| share.next);
        WriteAheadSplit { log: self.job.keeper.desk.number(), record }
    }

    fn checkpoint(&mut self, checkpoint: CheckpointId) {
        if let Some(share) = &mut self.share {
            share.notes.insert(checkpoint, share.next);
        }
    }

    fn kept(&mut self, oldest: CheckpointId) {
        let Some(share) = &mut self.share else { return };
        // One of an earlier start may need anything that is still there.
        let Some(needed) = share.notes.get(&oldest).copied() else { return };
        share.notes = share.notes.split_off(&oldest);
        self.job.keeper.desk.trim(needed);
    }

    fn drain(&mut self) -> bool {
        // What was acknowledged is still to be read, and no more of it is to come.
        if let Some(share) = &mut self.share {
            share.close_at.get_or_insert(0);
        }
        self.share.is_none()
    }

    #[inline]
    fn poll<O: Output<T>>(&mut self, output: &mut O, now: Nanos) -> Result<Polled, BoxError> {
        let Some(share) = &mut self.share else { return Ok(Polled::End) };
        let desk = &self.job.keeper.desk;
        if let Some(at) = share.close_at
            && at <= now
        {
            // If the mark of the end cannot be written it is tried again: others were not told of it.
            let _acknowledgement = desk.close()?;
            share.close_at = Some(now + CLOSE_RETRY_NS);
        }
        loop {
            if let Some(chunk) = &mut share.chunk {
                while let Some(bytes) = chunk.take() {
                    let record = decode(bytes).map_err(|cause| WriteAheadError::Undecodable {
                        directory: desk.directory().to_owned(),
                        record: share.next,
                        cause: Arc::new(cause),
                    })?;
                    share.next += 1;
                    if output.emit(0, record) == Flow::Yield {
                        return Ok(Polled::More);
                    }
                }
                if chunk.is_end() {
                    share.has_ended = true;
                    output.finish_split(0);
                }
                share.chunk = None;
            }
            if share.has_ended {
                return Ok(Polled::End);
            }
            match desk.next_chunk(share.epoch)? {
                Some(chunk) => {
                    output.bytes_read(chunk.bytes() as u64);
                    share.chunk = Some(chunk);
                }
                None => return Ok(Polled::Pending(share.close_at)),
            }
        }
    }
}

impl<T> Drop for WriteAheadReader<T> {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            self.job.keeper.desk.detach(share.epoch);
        }
    }
}
