//! The seam to the machine: clock, randomness, cores, wake-up, files and sockets.
//!
//! Everything above this module is synchronous and deterministic: it is *driven* by a platform and asks
//! it for the time. `glommio` pins one executor per core; `sim` runs all
//! workers on one thread in a seeded order and in virtual time. No other module calls the operating system.

mod bell;
mod cgroup;
mod clock;
pub mod control_socket;
mod cores;
pub mod files;
mod glommio;
mod memory;
mod os;
mod park;
pub mod probe;
mod pump;
mod random;
pub mod remote;
mod seats;
pub mod signals;
mod sim;
pub mod soak;
pub mod sockets;
pub mod threads;
#[cfg(test)]
pub(crate) mod wakes;

pub use cores::Cores;
pub use glommio::GlommioPlatform;
pub use random::{Random, unique};
pub use sim::{SIM_EPOCH_MILLIS, SimFaults, SimPlatform, SimTrace};

use std::sync::Arc;

use remote::{RemoteConfig, RemoteError, RemoteStore};
use tidemill_storage::{snapshot::disk::Disk, store::files::WriterKind};

/// Nanoseconds on the platform's monotonic clock, from an arbitrary start.
pub type Nanos = u64;

/// What a platform drives: one worker, on the thread that it lives on.
pub trait Drive {
    /// One turn of the loop: polls inputs, steps ready tasks within their budget, flushes. Never blocks. `now` may be some idle
    /// turns old.
    fn turn(&mut self, now: Nanos) -> Turn;
}

/// What a worker says after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Work was done; there may be more.
    Busy {
        /// When it ended, so that the next turn begins without another look at the clock; the turn's own `now` where nobody has
        /// looked.
        until: Nanos,
    },
    /// Nothing to do until another thread wakes this worker, or until `wake_at`.
    Idle {
        /// The earliest timer, if there is one.
        wake_at: Option<Nanos>,
    },
    /// The worker is finished and is never turned again.
    Done,
}

/// Makes a worker on the thread that will drive it; what it returns need not be `Send`.
pub type DriveFactory = Box<dyn FnOnce() -> Box<dyn Drive> + Send>;

/// Tells the time. The only place in the engine where time comes from.
pub trait Clock: Send + Sync {
    /// Monotonic time.
    fn now(&self) -> Nanos;
    /// Wall-clock time in milliseconds since the Unix epoch (processing time).
    fn wall_millis(&self) -> i64;
}

/// Has tasks fail when a simulation wants them to.
pub trait Mishaps: Send + Sync {
    /// What befalls the task that is about to be stepped, or was just built.
    fn next(&self) -> Option<Mishap>;
}

/// How a task fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It panics instead of a step.
    Panic,
    /// It says so behind a step, of which nothing counts.
    Error,
}

/// Wakes one worker from any thread. Cheap when the worker is awake: one load after a fence.
pub trait Wake: Send + Sync {
    /// After this call the worker's next turn starts without waiting for a timer.
    fn wake(&self);
}

/// A machine on which workers can run.
pub trait Platform: Send + Sync {
    /// The platform's clock.
    fn clock(&self) -> Arc<dyn Clock>;
    /// Whether blocking reads have to happen on the workers' own thread, because there is no other.
    fn inline_io(&self) -> bool {
        false
    }
    /// Bytes of memory that the process may use; `None` when there is no telling.
    fn memory_bytes(&self) -> Option<u64> {
        None
    }
    /// Where state and checkpoints are kept.
    fn disk(&self) -> Arc<dyn Disk>;
    /// Who makes state durable.
    fn state_writer(&self) -> WriterKind {
        WriterKind::Thread
    }
    /// Opens a store on another machine, where checkpoints are kept too.
    ///
    /// # Errors
    /// When the settings cannot be used.
    fn remote(&self, config: &RemoteConfig) -> Result<Arc<dyn RemoteStore>, RemoteError> {
        remote::open(config)
    }
    /// Whether there is a world outside: other processes that ask for savepoints, signals.
    fn has_outside(&self) -> bool {
        false
    }
    /// What has tasks fail that are sound, under simulation.
    fn mishaps(&self) -> Option<Arc<dyn Mishaps>> {
        None
    }
    /// Is told what happens to a job as a whole, for those who want to follow it.
    fn note(&self, event: &dyn Fn() -> String) {
        let _ = event;
    }
    /// A number that no other process has drawn, with all likelihood, on this machine or another. Under simulation it follows from the seed.
    fn unique(&self) -> u64 {
        unique()
    }
    /// Waits this long, or until `enough` says so; for the thread that supervises a job, between two of its attempts.
    fn pause(&self, wait: Nanos, enough: &dyn Fn() -> bool);
    /// Checks that `workers` can run here and makes their wake handles, without starting anything.
    ///
    /// # Errors
    /// Says what the machine lacks (io_uring, locked memory, cores) and how to mend it.
    fn prepare(&self, workers: usize) -> Result<Box<dyn Fleet>, PlatformError>;
}

/// Workers that are about to run: their wake handles exist, their threads do not yet.
pub trait Fleet: Send {
    /// One wake handle per worker, in worker order.
    fn wakers(&self) -> Vec<Arc<dyn Wake>>;
    /// Wakes what `control` makes.
    fn control_waker(&self) -> Arc<dyn Wake>;
    /// Starts one driven worker per factory; `factories.len()` is the number given to `prepare`. `control` makes one more,
    /// which is no worker: it is driven off the workers' cores, by [`Running::join`] if nowhere else, and may block.
    ///
    /// # Errors
    /// When a thread or an executor cannot be made; then nothing runs.
    fn start(
        self: Box<Self>,
        factories: Vec<DriveFactory>,
        control: Option<DriveFactory>,
    ) -> Result<Box<dyn Running>, PlatformError>;
}

/// Workers that run.
pub trait Running: Send {
    /// Waits until every worker is done. A worker whose thread panicked outside its tasks is an error.
    ///
    /// # Errors
    /// When a worker's thread ended other than by [`Turn::Done`].
    fn join(self: Box<Self>) -> Result<(), PlatformError>;
}

/// Why a platform cannot run a job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// The machine lacks something; `fix` says what to do.
    #[error("{what}: {why}. {fix}")]
    Unfit {
        /// What was attempted or checked.
        what: String,
        /// What was found instead.
        why: String,
        /// What to do about it.
        fix: String,
    },
    /// A worker's thread ended other than by finishing its work.
    #[error("worker {worker} stopped unexpectedly: {cause}")]
    WorkerLost {
        /// Index of the worker.
        worker: usize,
        /// What its thread said.
        cause: String,
    },
    /// Under simulation: the process was killed, as the faults say.
    #[error("the simulated process was killed at turn {turn}")]
    Killed {
        /// The turn.
        turn: u64,
    },
    /// Under simulation: every worker is idle, nothing can wake one, and the job is not finished.
    #[error("all workers are idle for ever with work left (deadlock), seed {seed}")]
    Stalled {
        /// The seed that replays the run.
        seed: u64,
    },
}

/// The error of a job without workers.
fn no_workers() -> PlatformError {
    PlatformError::Unfit {
        what: "starting a job".into(),
        why: "it has no workers".into(),
        fix: "Ask for at least one core.".into(),
    }
}
