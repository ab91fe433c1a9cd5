//! The handle of a running job: wait, cancel, look, ask for savepoints.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use super::{
    board::Board,
    remote::{Remote, stop_on_signal},
    savepoint::{Stores, Target},
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
/// Dropping the handle stops the job at once, as [`cancel`](Self::cancel) does, and waits until its workers have left; nothing of a job
/// outlives it but its checkpoints, which stay in any case.
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
    /// How long a checkpoint may take, and so what the job is stopped behind.
    stops_within: Duration,
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
            stops_within: supervisor.stops_within(),
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
    /// [stopped](JobMonitor::stop); when it is asked again, without its last checkpoint. Whatever becomes of that, its checkpoints stay.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); when the last checkpoint of a job that was asked to stop fails, that. [`Error::Cancelled`] when it was asked
    /// twice.
    pub fn wait_or_suspend(self) -> Result<JobMetrics, Error> {
        let _signals = if self.has_checkpoints {
            let listening = stop_on_signal(self.monitor());
            listening.inspect_err(|error| tracing::warn!(%error, "signals to stop kill the job")).ok()
        } else {
            None
        };
        self.wait()
    }

    /// Stops the job: records under way are dropped. [`wait`](Self::wait) then returns [`Error::Cancelled`],
    /// unless the job had already failed. Its checkpoints go, unless
    /// [`retain_on_cancel`](crate::model::checkpoint_config::CheckpointConfig::retain_on_cancel) says otherwise.
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
        self.give_up_connections();
    }

    /// Stops the job at once, to go on another time from its newest checkpoint: [`wait`](JobHandle::wait) returns `why`.
    pub(super) fn leave(&self, why: Error) {
        self.board.leave(why);
        self.give_up_connections();
    }

    /// Behind what brings the job down: what gives up now must not pass for a failure of its own.
    fn give_up_connections(&self) {
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

    /// Takes a checkpoint now and waits until it is complete; returns its manifest. While operators are down, which are to be started again,
    /// that waits for them, `timeout_ms` at the most.
    ///
    /// # Errors
    /// When it fails, the job has ended, or checkpoints are off. When operators are down for longer than that, which is said at once if it is
    /// known: [`CheckpointError::Down`](crate::model::checkpoint_error::CheckpointError::Down) says which, for how long and why.
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
    /// As [`checkpoint`](Self::checkpoint), when there is a savepoint already, when nothing can be written there, and when the job ends
    /// meanwhile. One that has failed is not there.
    pub fn savepoint(&self, place: impl Into<SavepointPlace>) -> Result<SavepointPlace, Error> {
        self.save(place.into(), false, false)
    }

    /// Writes a savepoint and stops the job behind it: nothing is emitted after it. With `drain` all windows fire and all
    /// timers of event time run before, as at the end of the input. A job that begins with such a savepoint reads on where this one has
    /// stopped; a window that has fired fires again for what comes into it then, with that alone.
    ///
    /// # Errors
    /// As [`savepoint`](Self::savepoint). When the savepoint cannot be written behind the last barrier, the job goes on from the checkpoint
    /// that it was to be of; a drained one has come to its end. A drain that had begun when operators went down goes on when they are up,
    /// whatever was answered: the job ends with its last checkpoint, and without the savepoint.
    pub fn stop_with_savepoint(
        &self,
        place: impl Into<SavepointPlace>,
        drain: bool,
    ) -> Result<SavepointPlace, Error> {
        self.save(place.into(), true, drain)
    }

    /// As [`savepoint`](Self::savepoint) or [`stop_with_savepoint`](Self::stop_with_savepoint), or as [`checkpoint`](Self::checkpoint) or
    /// [`suspend`](Self::suspend) where no place is named, but does not wait: what became of it is received later. For whoever is in the way of
    /// the job while it waits, such as a simulation, which runs in the same thread.
    ///
    /// # Errors
    /// When the job has ended, or the place cannot be used.
    pub fn request(
        &self,
        place: Option<&SavepointPlace>,
        stops: bool,
        drains: bool,
    ) -> Result<mpsc::Receiver<Result<PathBuf, Error>>, Error> {
        let enough = || self.board.is_over() || self.board.is_cancelled();
        let target = place.map(|place| self.stores.target(place, &enough)).transpose()?;
        self.board.post(target, stops, drains)
    }

    fn save(&self, place: SavepointPlace, stops: bool, drains: bool) -> Result<SavepointPlace, Error> {
        if self.board.is_over() {
            return Err(Error::Over);
        }
        let enough = || self.board.is_over() || self.board.is_ending();
        let target = self.stores.target(&place, &enough)?;
        if stops && !drains {
            self.ask_to_stop(Some(target))?;
        } else {
            self.board.ask(Some(target), stops, drains)?;
        }
        Ok(place)
    }

    /// Asks for a checkpoint behind which the job stops. What it commits to may be away, and be tried for longer than a checkpoint may take:
    /// then it is tried no more. What was prepared is in a checkpoint, or comes again.
    fn ask_to_stop(&self, target: Option<Target>) -> Result<PathBuf, Error> {
        let answered = self.board.post(target, true, false)?;
        let answer = answered.recv_timeout(self.stops_within).or_else(|error| match error {
            mpsc::RecvTimeoutError::Disconnected => Err(error),
            mpsc::RecvTimeoutError::Timeout => {
                let _hurried: Vec<_> = self.connections.iter().map(Connections::hurry).collect();
                answered.recv().map_err(Into::into)
            }
        });
        answer.unwrap_or(Err(Error::Over))
    }

    /// Takes a checkpoint and stops the job behind it; started again with the same directory, it goes on from there.
    /// [`wait`](JobHandle::wait) then returns without an error. A job that is being stopped in another way is waited for.
    ///
    /// A job, or a region of it, that waits to be started again is not waited for, nor one that fails meanwhile: it is stopped without
    /// another checkpoint, since the newest complete one is what it would go on from. That is returned then; the job's directory, if there
    /// is none yet.
    ///
    /// # Errors
    /// When the job has ended, or checkpoints are off. When the checkpoint fails or is not complete after `timeout_ms`, which counts from now
    /// where a sink tries to reach what it commits to: then the job has failed with that, and goes on from the checkpoint before as its restart
    /// strategy says.
    pub fn suspend(&self) -> Result<PathBuf, Error> {
        self.ask_to_stop(None)
    }

    /// As [`suspend`](Self::suspend), but the job ends in any case: when it cannot be suspended, [`wait`](JobHandle::wait) returns why, and
    /// its checkpoints stay as they are, so that it goes on from the newest when it is started again. That is what a service does when it
    /// is asked to leave; [`wait_or_suspend`](JobHandle::wait_or_suspend) does it by itself.
    ///
    /// # Errors
    /// Why there is no last checkpoint. A job that has come to its end meanwhile is none.
    pub fn stop(&self) -> Result<(), Error> {
        match self.suspend() {
            Ok(_) | Err(Error::Over) => Ok(()),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the job is stopped without a last checkpoint; started again, it goes on from the newest that it has"
                );
                self.leave(error.clone());
                Err(error)
            }
        }
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // An error elsewhere may have come in between: that the job is not wanted any more, nobody has said.
            self.monitor.leave(Error::Cancelled);
            // The outcome of a job that nobody waits for is nobody's business.
            let _outcome = self.join();
        }
    }
}
