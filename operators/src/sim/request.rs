//! What somebody asks of a simulated job while it runs: to stop, as `SIGTERM` does, or for a savepoint.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
};

use tidemill_engine::{
    control::handle::JobMonitor,
    model::{error::Error, savepoint::SavepointPlace},
};

use super::outside::Act;

/// Something that is asked at a turn.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The turn, over all attempts of a life.
    pub(super) turn: u64,
    /// Where a savepoint is to be written, if it is one.
    pub(super) savepoint: Option<PathBuf>,
    /// Whether the job is to stop behind it.
    pub(super) stops: bool,
    /// Whether it is to be drained before.
    pub(super) drains: bool,
}

type Answered = Receiver<Result<PathBuf, Error>>;
/// Where the monitor of a job comes to that has started; nowhere any more when its life is over.
type Started = Mutex<Option<Receiver<JobMonitor>>>;

/// A request that is asked when its turn has come.
pub(super) struct Asked {
    monitor: Option<Sender<JobMonitor>>,
    started: Arc<Started>,
    answered: Arc<Mutex<Option<Answered>>>,
}

impl Asked {
    /// The request, and what has to be called before each turn.
    pub(super) fn new(request: Request) -> (Self, Act) {
        let (monitor, started) = mpsc::channel::<JobMonitor>();
        let answered = Arc::new(Mutex::new(None));
        let (turns, started) = (AtomicU64::new(0), Arc::new(Mutex::new(Some(started))));
        let (from, into) = (Arc::clone(&started), Arc::clone(&answered));
        let ask = move || {
            if turns.fetch_add(1, Ordering::Relaxed) != request.turn {
                return;
            }
            // The turn waits until the job has a handle, however long its thread takes: else what happens would not follow from the seed.
            let started = from.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(Ok(monitor)) = started.as_ref().map(Receiver::recv) else { return };
            let place = request.savepoint.as_deref().map(SavepointPlace::from);
            let asked = monitor.request(place.as_ref(), request.stops, request.drains);
            *into.lock().unwrap_or_else(PoisonError::into_inner) = asked.ok();
        };
        (Self { monitor: Some(monitor), started, answered }, Arc::new(ask))
    }

    /// The job has started: it can be asked.
    pub(super) fn has_started(&self, monitor: JobMonitor) {
        // Its turn may never come.
        self.monitor.iter().for_each(|started| drop(started.send(monitor.clone())));
    }

    /// The job has not started, and nothing can be asked of it.
    pub(super) fn has_not_started(&mut self) {
        self.monitor = None;
    }

    /// The life is over; whether it was done. A monitor that nobody took would keep the platform, which has what asks, and that the monitor.
    pub(super) fn end(self) -> bool {
        drop(self.started.lock().unwrap_or_else(PoisonError::into_inner).take());
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.as_ref().is_some_and(|answered| matches!(answered.try_recv(), Ok(Ok(_))))
    }
}
