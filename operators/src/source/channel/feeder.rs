//! The sending end of a channel.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Lane, Queues};

/// Feeds records to a job from any thread; clones feed the same job. See [`channel`](super::channel).
pub struct Feeder<T> {
    queues: Arc<Queues<T>>,
    /// Closes the channel when the last clone is dropped.
    last: Arc<CloseOnDrop<T>>,
    /// The queue whose turn it is.
    turn: AtomicUsize,
}

struct CloseOnDrop<T>(Arc<Queues<T>>);

impl<T> Drop for CloseOnDrop<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Why a record was not taken.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The channel was closed by a feeder.
    #[error("the channel was closed: make a new one to feed a job again")]
    Closed(T),
    /// The job has ended or failed; records that it had not read yet are lost.
    #[error("the job that reads the channel has ended: its handle tells why")]
    JobEnded(T),
}

impl<T> SendError<T> {
    /// The record that was not taken.
    pub fn into_record(self) -> T {
        match self {
            Self::Closed(record) | Self::JobEnded(record) => record,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Closed(_) => "Closed(..)",
            Self::JobEnded(_) => "JobEnded(..)",
        })
    }
}

/// Why a record was not taken at once.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError<T> {
    /// All queues are full: the job does not keep up. Send again later, or by the waiting forms.
    #[error("the channel is full: the job does not keep up; send again later, or by a form that waits")]
    Full(T),
    /// It will never be taken.
    #[error(transparent)]
    Ended(#[from] SendError<T>),
}

impl<T> TrySendError<T> {
    /// The record that was not taken.
    pub fn into_record(self) -> T {
        match self {
            Self::Full(record) => record,
            Self::Ended(error) => error.into_record(),
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => formatter.write_str("Full(..)"),
            Self::Ended(error) => error.fmt(formatter),
        }
    }
}

impl<T> Clone for Feeder<T> {
    fn clone(&self) -> Self {
        Self { queues: self.queues.clone(), last: self.last.clone(), turn: AtomicUsize::new(0) }
    }
}

impl<T> Feeder<T> {
    pub(super) fn new(queues: Arc<Queues<T>>) -> Self {
        let last = Arc::new(CloseOnDrop(queues.clone()));
        Self { queues, last, turn: AtomicUsize::new(0) }
    }

    /// Sends a record; waits on this thread while the queues are full. Not for threads that run
    /// asynchronous tasks: use [`Self::send_async`] there.
    ///
    /// # Errors
    /// When the channel is closed or the job has ended; gives the record back.
    pub fn send(&self, record: T) -> Result<(), SendError<T>> {
        match self.try_send(record) {
            Ok(()) => Ok(()),
            Err(TrySendError::Ended(error)) => Err(error),
            Err(TrySendError::Full(record)) => {
                let lane = self.lane_in_turn();
                lane.sender.send_blocking(record).map_err(|error| self.ended(error.into_inner()))?;
                lane.waker.wake();
                Ok(())
            }
        }
    }

    /// Sends a record if a queue has room.
    ///
    /// # Errors
    /// When all queues are full, the channel is closed or the job has ended; gives the record back.
    pub fn try_send(&self, mut record: T) -> Result<(), TrySendError<T>> {
        for _ in self.queues.lanes() {
            let lane = self.lane_in_turn();
            match lane.sender.try_send(record) {
                Ok(()) => {
                    lane.waker.wake();
                    return Ok(());
                }
                Err(async_channel::TrySendError::Full(back)) => record = back,
                Err(async_channel::TrySendError::Closed(back)) => return Err(self.ended(back).into()),
            }
        }
        Err(TrySendError::Full(record))
    }

    /// Sends a record; waits while the queues are full without holding the thread. Works with any executor. A
    /// record is not sent when the future is dropped before it is ready.
    ///
    /// # Errors
    /// When the channel is closed or the job has ended; gives the record back.
    pub async fn send_async(&self, record: T) -> Result<(), SendError<T>> {
        match self.try_send(record) {
            Ok(()) => Ok(()),
            Err(TrySendError::Ended(error)) => Err(error),
            Err(TrySendError::Full(record)) => {
                let lane = self.lane_in_turn();
                lane.sender.send(record).await.map_err(|error| self.ended(error.into_inner()))?;
                lane.waker.wake();
                Ok(())
            }
        }
    }

    /// Ends the input for all clones of this feeder; what was sent is still read.
    pub fn close(&self) {
        self.queues.close();
    }

    /// The queue whose turn it is, which passes on.
    #[inline]
    fn lane_in_turn(&self) -> &Lane<T> {
        let lanes = self.queues.lanes();
        &lanes[self.turn.fetch_add(1, Ordering::Relaxed) % lanes.len()]
    }

    #[cold]
    fn ended(&self, record: T) -> SendError<T> {
        if self.queues.ended.load(Ordering::Acquire) {
            SendError::JobEnded(record)
        } else {
            SendError::Closed(record)
        }
    }
}
