//! The handle of a running job: wait, cancel, look, ask for savepoints.

use std::{path::PathBuf, sync::Arc};

use super::{
    board::Board,
    remote::{Remote, suspend_on_signal},
    savepoint::Stores,
    supervisor::{Attempt, Supervisor},
};
use crate::{
    model::{
        connections::Connections,
        error::Error,
        metrics::{CheckpointStats, JobMetrics, OperatorInfo},
        savepoint::SavepointPlace,
    },
    platform::{
        PlatformError,
        threads::{self, Thread},
    },
};

/// A running job.
///
/// Dropping the handle cancels the job and waits until its workers have left; nothing of a job outlives it.
pub struct JobHandle {
    thread: Option<Thread<Result<(), Error>>>,
    monitor: JobMonitor,
    /// Hears what other processes ask, as long as the job runs.
    remote: Option<Remote>,
    has_checkpoints: bool,
}

/// Watches or cancels a running job from any thread; clones watch the same job.
#[derive(Clone)]
pub struct JobMonitor {
    board: Arc<Board>,
    operators: Arc<[OperatorInfo]>,
    connections: Arc<[Arc<Connections>]>,
    stores: Arc<Stores>,
}

impl JobHandle {
    /// The handle of a job whose first attempt was just started.
    ///
    /// # Errors
    /// When there is no thread to supervise it.
    pub(crate) fn new(supervisor: Supervisor, first: Attempt) -> Result<Self, Error> {
        let monitor = JobMonitor {
            board: supervisor.board(),
            operators: supervisor.operators(),
            connections: supervisor.connections(),
            stores: supervisor.stores(),
        };
        let has_checkpoints = supervisor.listens_in().is_some();
        let remote = supervisor.listens_in().and_then(|directory| {
            let listening = Remote::listen(&directory, monitor.clone());
            // The job does not need to be spoken with from outside.
            listening
                .inspect_err(|error| tracing::warn!(%error, "no other process can ask for savepoints"))
                .ok()
        });
        let thread = threads::start("tidemill-job", move || supervisor.run(first));
        let thread = thread.map_err(|error| PlatformError::Unfit {
            what: "starting the thread that supervises the job".into(),
            why: error.to_string(),
            fix: "Raise the limit on processes (`ulimit -u`).".into(),
        })?;
        Ok(Self { thread: Some(thread), monitor, remote, has_checkpoints })
    }

    /// Waits for the end of the job and returns its last metrics.
    ///
    /// # Errors
    /// Why the job stopped before the end of its input.
    pub fn wait(mut self) -> Result<JobMetrics, Error> {
        self.join()?;
        Ok(self.metrics())
    }

    /// As [`wait`](Self::wait). If checkpoints are on, and the process is asked to stop (`SIGTERM`, `SIGINT`), the job is
    /// [suspended](JobMonitor::suspend); when it is asked again, cancelled.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_or_suspend(self) -> Result<JobMetrics, Error> {
        let _signals = if self.has_checkpoints {
            let listening = suspend_on_signal(self.monitor());
            listening.inspect_err(|error| tracing::warn!(%error, "signals to stop kill the job")).ok()
        } else {
            None
        };
        self.wait()
    }

    /// Stops the job: records under way are dropped. [`wait`](Self::wait) then returns [`Error::Cancelled`],
    /// unless the job had already failed.
    pub fn cancel(&self) {
        self.monitor.cancel();
    }

    /// The job's metrics now. Waits until every worker has answered, which takes one turn of its loop.
    pub fn metrics(&self) -> JobMetrics {
        self.monitor.metrics()
    }

    /// What watches the job from another thread while this handle waits.
    pub fn monitor(&self) -> JobMonitor {
        self.monitor.clone()
    }

    fn join(&mut self) -> Result<(), Error> {
        let joined = self.thread.take().map_or(Some(Ok(())), Thread::join);
        self.remote = None;
        joined.unwrap_or_else(|| {
            let cause = "the thread that supervises the job panicked".to_owned();
            Err(PlatformError::WorkerLost { worker: 0, cause }.into())
        })
    }
}

impl JobMonitor {
    /// As [`JobHandle::cancel`].
    pub fn cancel(&self) {
        self.board.cancel();
        // Behind that: what gives up now must not pass for a failure of its own.
        self.connections.iter().for_each(|connections| connections.give_up());
    }

    /// As [`JobHandle::metrics`]; after the end, the last metrics.
    pub fn metrics(&self) -> JobMetrics {
        let mut merged = JobMetrics::merge(&self.operators, self.board.collect_reports());
        for operator in &mut merged.operators {
            let index = self.operators.iter().position(|info| info.id == operator.info.id);
            operator.connections = index.map(|index| self.connections[index].stats()).unwrap_or_default();
        }
        let checkpoints = CheckpointStats { stalls: merged.checkpoints.stalls, ..self.board.stats() };
        JobMetrics { checkpoints, ..merged }
    }

    /// Takes a checkpoint now and waits until it is complete; returns its manifest.
    ///
    /// # Errors
    /// When it fails, the job has ended, or checkpoints are off.
    pub fn checkpoint(&self) -> Result<PathBuf, Error> {
        self.board.ask(None, false, false)
    }

    /// Writes a savepoint while the job goes on: whole, and the user's to keep. A directory is made if it does not exist; a URL names a
    /// prefix of a remote store that holds nothing else. Returns where it is. A job begins with it by
    /// [`CheckpointConfig::savepoint`](crate::model::checkpoint_config::CheckpointConfig).
    ///
    /// ```no_run
    /// # fn example(monitor: tidemill_engine::control::handle::JobMonitor) -> Result<(), tidemill_engine::model::error::Error> {
    /// monitor.savepoint("/var/lib/orders/before-the-change")?;
    /// monitor.savepoint("s3://savepoints/orders/before-the-change")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint), when there is a savepoint already, and when the remote store cannot be used. One that has failed
    /// is not there, unless its checkpoint has failed behind it.
    pub fn savepoint(&self, place: impl Into<SavepointPlace>) -> Result<SavepointPlace, Error> {
        self.save(place.into(), false, false)
    }

    /// Writes a savepoint and stops the job behind it: nothing is emitted after it. With `drain` all windows fire and all
    /// timers of event time run before, as at the end of the input; a job that begins with such a savepoint does not fire
    /// them again.
    ///
    /// # Errors
    /// As [`savepoint`](Self::savepoint). When the savepoint cannot be written behind the last barrier, the job fails with that.
    pub fn stop_with_savepoint(
        &self,
        place: impl Into<SavepointPlace>,
        drain: bool,
    ) -> Result<SavepointPlace, Error> {
        self.save(place.into(), true, drain)
    }

    fn save(&self, place: SavepointPlace, stops: bool, drains: bool) -> Result<SavepointPlace, Error> {
        if self.board.is_over() {
            return Err(Error::Over);
        }
        let enough = || self.board.is_over() || self.board.is_cancelled();
        let target = self.stores.target(&place, &enough)?;
        self.board.ask(Some(target), stops, drains)?;
        Ok(place)
    }

    /// Takes a checkpoint and stops the job behind it; started again with the same directory, it goes on from there.
    /// [`wait`](JobHandle::wait) then returns without an error. A job that fails meanwhile is started again as its restart
    /// strategy says, and suspended then.
    ///
    /// # Errors
    /// When the job has ended, or checkpoints are off.
    pub fn suspend(&self) -> Result<PathBuf, Error> {
        self.board.ask(None, true, false)
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.cancel();
            // The outcome of a job that nobody waits for is nobody's business.
            let _outcome = self.join();
        }
    }
}
