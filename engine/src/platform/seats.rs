//! Threads with an executor each, kept for the next job.
//!
//! glommio 0.9 never frees an executor's event descriptor once a task has run (task headers hold a reference that nothing
//! drops), so a process that made executors for every job, or at every restart of one, would run out of
//! descriptors. A seat is made when there is no free one for its core and returns to the pool after its job: there are never
//! more seats for a core than once worked at the same time. A start also costs microseconds instead of milliseconds.

use super::PlatformError;
use super::os::{patiently, sleep_exactly};
use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement};
use std::any::Any;
use std::panic::catch_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// How work ended: the error is what a panic said. A closed channel means that the executor itself broke.
type Outcome = Result<(), String>;

/// What a seat does next: something with its executor, to the end.
type Work = Box<dyn FnOnce(&LocalExecutor) -> Outcome + Send>;

struct Order {
    work: Work,
    outcome: mpsc::Sender<Outcome>,
    /// Travels with the work, so that the thread can give it back.
    seat: Seat,
}

/// A thread that waits for work, tied to `core` if there is one. Dropped, its thread ends.
pub(super) struct Seat {
    core: Option<usize>,
    orders: mpsc::Sender<Order>,
}

static FREE: Mutex<Vec<Seat>> = Mutex::new(Vec::new());

fn free() -> MutexGuard<'static, Vec<Seat>> {
    // A push or a removal leaves the list whole even if it panics.
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seat {
    /// A free seat on `core`, or a new one.
    ///
    /// # Errors
    /// When a thread or an executor cannot be made.
    pub(super) fn take(core: Option<usize>) -> Result<Self, PlatformError> {
        let found = {
            let mut free = free();
            free.iter().position(|seat| seat.core == core).map(|at| free.swap_remove(at))
        };
        found.map_or_else(|| Self::make(core), Ok)
    }

    /// Gives a seat back that did not work.
    pub(super) fn give_back(self) {
        free().push(self);
    }

    /// Starts the work and returns at once.
    pub(super) fn work(self, work: Work) -> mpsc::Receiver<Outcome> {
        let (outcome, told) = mpsc::channel();
        let orders = self.orders.clone();
        // If the thread is gone the order is dropped, and the receiver finds its channel closed.
        let _ = orders.send(Order { work, outcome, seat: self });
        told
    }

    fn make(core: Option<usize>) -> Result<Self, PlatformError> {
        let name = core.map_or_else(|| "tidemill".to_owned(), |core| format!("tidemill-{core}"));
        let (orders, inbox) = mpsc::channel();
        let (report, made) = mpsc::channel();
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let executor = match make_executor() {
                    Ok(executor) => executor,
                    Err(error) => return drop(report.send(Err(error))),
                };
                settle(core);
                let _ = report.send(Ok(()));
                serve(&executor, &inbox);
            })
            .map_err(|error| PlatformError::Unfit {
                what: "starting a worker's thread".into(),
                why: error.to_string(),
                fix: "Ask for fewer cores, or raise the limit on processes (`ulimit -u`).".into(),
            })?;
        let why = match made.recv() {
            Ok(Ok(())) => return Ok(Self { core, orders }),
            Ok(Err(why)) => why,
            Err(_) => "its thread ended".into(),
        };
        Err(PlatformError::Unfit {
            what: "starting a worker's io_uring executor".into(),
            why,
            fix: "Run `tidemill doctor` to see what the machine lacks; locked memory (`ulimit -l`) is counted over all \
                  processes of a user."
                .into(),
        })
    }
}

/// Works until the seat is dropped.
fn serve(executor: &LocalExecutor, inbox: &mpsc::Receiver<Order>) {
    while let Ok(Order { work, outcome, seat }) = inbox.recv() {
        let result = work(executor);
        // Free before the job is seen to have ended, so that the next job finds it.
        seat.give_back();
        let _ = outcome.send(result);
    }
}

/// Makes the calling thread a worker's. After the executor is made: its helper threads must not share the worker's core.
fn settle(core: Option<usize>) {
    sleep_exactly();
    if let Some(id) = core {
        // Refused only if the mask shrank meanwhile: the worker floats then.
        if !core_affinity::set_for_current(core_affinity::CoreId { id }) {
            tracing::warn!(core = id, "cannot tie a worker to its core");
        }
    }
}

/// glommio arms this timer, looks whether it has run out, and if so goes to sleep with tasks that could run, for ever: when the kernel
/// takes the core away for that long between the two, as it may where more runs than there are cores. Its default is 100 ms.
/// Workers are the only tasks here, and park by themselves, so nobody needs to be preempted.
const PREEMPT_TIMER: Duration = Duration::from_secs(24 * 60 * 60);

fn make_executor() -> Result<LocalExecutor, String> {
    // Workers do no direct I/O through the executor, so the smallest buffer pool and short rings do. Both are charged to
    // the locked-memory limit: the probe's figure per executor is derived from these.
    let make = || {
        let builder = LocalExecutorBuilder::new(Placement::Unbound).name("tidemill");
        builder.io_memory(64 << 10).ring_depth(32).preempt_timer(PREEMPT_TIMER).make()
    };
    let short_of_memory = |made: &Result<_, _>| matches!(made, Err(GlommioError::<()>::IoError(error)) if error.raw_os_error() == Some(libc::ENOMEM));
    match catch_unwind(|| patiently(make, short_of_memory)) {
        Ok(made) => made.map_err(|error| error.to_string()),
        Err(panic) => Err(cause_of(&*panic)),
    }
}

/// What a panic said.
pub(super) fn cause_of(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_used_again_after_its_work() {
        // A core that no other test has: pinning is refused, and the seat floats.
        let core = Some(1_022);
        let thread_of_the_next_work = || {
            let (tell, told) = mpsc::channel();
            let outcome = Seat::take(core).unwrap().work(Box::new(move |_| {
                tell.send(std::thread::current().id()).map_err(|error| error.to_string())
            }));
            assert_eq!(outcome.recv(), Ok(Ok(())));
            told.recv().unwrap()
        };
        let first = thread_of_the_next_work();
        assert_eq!(thread_of_the_next_work(), first);
        let taken = Seat::take(core).unwrap();
        assert_ne!(thread_of_the_next_work(), first, "the first one is taken");
        taken.give_back();
    }

    #[test]
    fn an_executor_that_breaks_closes_the_channel_and_its_seat_is_gone() {
        let core = Some(1_023);
        let outcome = Seat::take(core).unwrap().work(Box::new(|_| panic!("the reactor is broken")));
        assert_eq!(outcome.recv(), Err(mpsc::RecvError));
        assert!(free().iter().all(|seat| seat.core != core));
    }
}
