//! The sending end of a write-ahead channel.

use std::{fmt, future::Future, marker::PhantomData, slice, sync::Arc};

use tidemill_storage::{
    record::{Record, to_bytes},
    wal::Group,
};

use super::{Keeper, error::WriteAheadError, stats::WriteAheadStats, ticket::Acknowledgement};

/// Feeds records to a job from any thread, and says that one was taken only when it is durable. Clones feed the same job. See
/// [`WriteAheadChannel`](super::WriteAheadChannel).
///
/// All forms of sending take the records by reference: what was not taken the caller still has. What an error leaves
/// open stands at [`WriteAheadError`]; whoever sends again after a [`WriteAheadError::Log`] may send something twice.
pub struct WriteAheadFeeder<T> {
    keeper: Arc<Keeper>,
    records: PhantomData<fn(T)>,
}

impl<T> Clone for WriteAheadFeeder<T> {
    fn clone(&self) -> Self {
        Self { keeper: Arc::clone(&self.keeper), records: PhantomData }
    }
}

impl<T> fmt::Debug for WriteAheadFeeder<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("WriteAheadFeeder").field(&self.keeper.desk.directory()).finish()
    }
}

impl<T: Record> WriteAheadFeeder<T> {
    pub(super) fn new(keeper: Arc<Keeper>) -> Self {
        Self { keeper, records: PhantomData }
    }

    /// Sends a record; returns when it is durable. Waits on this thread, also while there is no room. Not for threads
    /// that run asynchronous tasks: use [`send_async`](Self::send_async) there.
    ///
    /// # Errors
    /// When the channel is closed, the job has ended, the record is too long, or the log cannot be written. Under simulation,
    /// where nobody makes room while somebody waits, also when there is none.
    pub fn send(&self, record: &T) -> Result<(), WriteAheadError> {
        self.send_all(slice::from_ref(record))
    }

    /// Sends records together: they follow one another, and a crash leaves all of them or none. As [`send`](Self::send) else.
    ///
    /// # Errors
    /// As [`send`](Self::send); then none of them was sent.
    pub fn send_all(&self, records: &[T]) -> Result<(), WriteAheadError> {
        let Some(batch) = self.encode(records)? else { return Ok(()) };
        self.keeper.desk.put(&batch)?.wait()
    }

    /// As [`send`](Self::send), without holding the thread: the future is ready when the record is durable. Works with any
    /// executor. The record is read at once and sent when the future is polled; dropped after that, it may have been sent.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_async(
        &self,
        record: &T,
    ) -> impl Future<Output = Result<(), WriteAheadError>> + Send + 'static + use<T> {
        self.send_all_async(slice::from_ref(record))
    }

    /// As [`send_all`](Self::send_all), without holding the thread; see [`send_async`](Self::send_async).
    ///
    /// # Errors
    /// As [`send`](Self::send); then none of them was sent.
    pub fn send_all_async(
        &self,
        records: &[T],
    ) -> impl Future<Output = Result<(), WriteAheadError>> + Send + 'static + use<T> {
        let batch = self.encode(records);
        let keeper = Arc::clone(&self.keeper);
        async move {
            let Some(batch) = batch? else { return Ok(()) };
            std::future::poll_fn(|context| keeper.desk.poll_put(&batch, context)).await?.await
        }
    }

    /// Sends a record if there is room, without waiting until it is durable: what is returned says when it is. So one thread
    /// can have many records under way.
    ///
    /// # Errors
    /// [`WriteAheadError::Full`] when there is no room; else as [`send`](Self::send).
    pub fn try_send(&self, record: &T) -> Result<Acknowledgement, WriteAheadError> {
        self.try_send_all(slice::from_ref(record))
    }

    /// As [`try_send`](Self::try_send), for records that belong together; see [`send_all`](Self::send_all).
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send); then none of them was sent.
    pub fn try_send_all(&self, records: &[T]) -> Result<Acknowledgement, WriteAheadError> {
        match self.encode(records)? {
            Some(batch) => self.keeper.desk.offer(&batch),
            None => Ok(Acknowledgement::of_nothing()),
        }
    }

    /// Ends the input for good: for all clones, and for every later start of a job with this log. What was sent is still
    /// read. The end is durable when the returned [`Acknowledgement`] says so. Without this the input does not end,
    /// also when all feeders are dropped.
    ///
    /// # Errors
    /// When the log's thread is gone.
    pub fn close(&self) -> Result<Acknowledgement, WriteAheadError> {
        self.keeper.desk.close()
    }

    /// How the channel stands: what is durable, what the job has still to read, how full log and queue are. Cheap enough to be asked
    /// for every millisecond.
    pub fn stats(&self) -> WriteAheadStats {
        self.keeper.desk.stats()
    }

    /// The records as they are written; `None` if there are none.
    fn encode(&self, records: &[T]) -> Result<Option<Group>, WriteAheadError> {
        let bytes_max = self.keeper.desk.batch_bytes_max();
        let mut batch = Group::default();
        for record in records {
            let archived = to_bytes(record).map_err(|error| WriteAheadError::Record(Arc::new(error)))?;
            let bytes = batch.bytes() + archived.len();
            if bytes > bytes_max {
                return Err(WriteAheadError::TooLong { bytes, bytes_max });
            }
            batch.push(archived.bytes());
        }
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }
}
