//! What becomes of records that were sent: told once, to all that wait for it.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tidemill_storage::wal::LogError;

use super::error::WriteAheadError;

type Settled = Result<(), Arc<LogError>>;

/// What became of a group of records.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Settled>,
    wakers: Vec<Waker>,
}

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all that wait, once.
    fn settle(&self, result: Settled) {
        let mut state = self.lock();
        state.result.get_or_insert(result);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.settled.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// An outcome that is about to be known. Dropped, it says that nobody will ever know.
pub(super) struct Unsettled {
    outcome: Arc<Outcome>,
    directory: Arc<Path>,
}

impl Unsettled {
    pub(super) fn new(directory: Arc<Path>) -> Self {
        Self { outcome: Arc::default(), directory }
    }

    pub(super) fn settle(self, result: Settled) {
        self.outcome.settle(result);
    }

    pub(super) fn ticket(&self) -> Acknowledgement {
        Acknowledgement { outcome: Some(Arc::clone(&self.outcome)) }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.outcome.settle(Err(Arc::new(LogError::Abandoned { directory: self.directory.to_path_buf() })));
    }
}

/// Says when what was sent is durable: by [`wait`](Self::wait), or as a future on any executor. Dropped, it changes nothing:
/// what was sent is kept all the same.
#[derive(Debug)]
#[must_use = "what was sent is acknowledged when this says so"]
pub struct Acknowledgement {
    /// `None` where nothing was sent.
    outcome: Option<Arc<Outcome>>,
}

impl Acknowledgement {
    /// That of nothing.
    pub(super) fn of_nothing() -> Self {
        Self { outcome: None }
    }

    /// Waits on this thread until what was sent is durable. Not for threads that run asynchronous tasks: await it there.
    ///
    /// # Errors
    /// Of the log: then it is not acknowledged.
    pub fn wait(self) -> Result<(), WriteAheadError> {
        let Some(outcome) = self.outcome else { return Ok(()) };
        let waited = outcome.settled.wait_while(outcome.lock(), |state| state.result.is_none());
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        Ok(state.result.clone().unwrap_or(Ok(()))?)
    }
}

impl Future for Acknowledgement {
    type Output = Result<(), WriteAheadError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(outcome) = &self.outcome else { return Poll::Ready(Ok(())) };
        let mut state = outcome.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone().map_err(WriteAheadError::from));
        }
        let waker = context.waker();
        if !state.wakers.iter().any(|known| known.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
        Poll::Pending
    }
}
