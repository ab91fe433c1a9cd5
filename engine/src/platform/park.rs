//! Parking a worker's thread and waking it: the protocol by which no wake-up is ever lost.
//!
//! Both sides write one thing, fence, and read the other's (Dekker):
//!
//! ```text
//! waker:   publish the work   → fence → read `parked`   (true: take it and unpark)
//! parker:  `parked` := true   → fence → look for work   (none: sleep)
//! ```
//!
//! Sequentially consistent fences order the two: at least one side sees the other's write. Either the parker
//! finds the work in its last turn, or the waker finds it parked. The flag is taken by a swap, so that of
//! many concurrent wakers exactly one pays the system call.
//!
//! The thread sleeps by `std::thread::park_timeout` (a futex). A token that is left over from an earlier
//! wake-up ends one futex wait early and the parker sleeps again, because only the flag decides.
//! Why not in the executor's ring: docs/design/001-parking.md.

use super::{Clock, Nanos, Wake};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// The flag alone on its cache lines (two: the neighbour is prefetched with it), since wakers on other
/// cores read it for every batch.
#[repr(align(128))]
struct Flag(AtomicBool);

struct Shared {
    parked: Flag,
    /// Set by the worker's thread before it can park for the first time.
    thread: OnceLock<Thread>,
}

/// Wakes the one worker that holds the other end.
#[derive(Clone)]
pub(super) struct Waker(Arc<Shared>);

impl Wake for Waker {
    #[inline]
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.0.parked.0.load(Ordering::Relaxed) {
            self.unpark();
        }
    }
}

impl Waker {
    #[cold]
    fn unpark(&self) {
        if self.0.parked.0.swap(false, Ordering::AcqRel) {
            // The flag is only ever set by an attached parker.
            if let Some(thread) = self.0.thread.get() {
                thread.unpark();
            }
        }
    }
}

/// The worker's end: made before its thread exists, attached on it.
pub(super) struct Parker(Arc<Shared>);

/// Both ends for one worker.
pub(super) fn pair() -> (Parker, Waker) {
    let shared = Arc::new(Shared { parked: Flag(AtomicBool::new(false)), thread: OnceLock::new() });
    (Parker(Arc::clone(&shared)), Waker(shared))
}

impl Parker {
    /// Names the calling thread as the one that parks. Called once, before anything else.
    pub(super) fn attach(&self) {
        let newly = self.0.thread.set(std::thread::current()).is_ok();
        assert!(newly, "a parker belongs to one thread");
    }

    /// Announces that this thread is about to park. Then look for work once more, and then either
    /// [`retract`](Self::retract) or [`park`](Self::park).
    pub(super) fn announce(&self) {
        debug_assert!(self.0.thread.get().is_some_and(|t| t.id() == std::thread::current().id()));
        self.0.parked.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back: there was work after all.
    pub(super) fn retract(&self) {
        self.0.parked.0.store(false, Ordering::Relaxed);
    }

    /// Sleeps until a waker takes the announcement, or until `deadline`.
    pub(super) fn park(&self, clock: &dyn Clock, deadline: Nanos) {
        while self.0.parked.0.load(Ordering::Acquire) {
            let now = clock.now();
            if now >= deadline {
                self.retract();
                return;
            }
            std::thread::park_timeout(Duration::from_nanos(deadline - now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::MachineClock;
    use super::*;

    const NEVER: Nanos = Nanos::MAX;

    fn attached() -> (Parker, Waker, MachineClock) {
        let (parker, waker) = pair();
        parker.attach();
        (parker, waker, MachineClock::new())
    }

    #[test]
    fn a_wake_between_the_announcement_and_the_sleep_is_kept() {
        let (parker, waker, clock) = attached();
        for _ in 0..3 {
            parker.announce();
            waker.wake();
            parker.park(&clock, NEVER);
        }
    }

    #[test]
    fn a_wake_of_a_worker_that_is_awake_leaves_no_trace() {
        let (parker, waker, clock) = attached();
        waker.wake();
        parker.announce();
        let deadline = clock.now() + 1_000_000;
        parker.park(&clock, deadline);
        assert!(clock.now() >= deadline, "only the deadline ended the sleep");
    }

    #[test]
    fn a_token_left_by_a_retracted_announcement_does_not_end_the_next_sleep() {
        let (parker, waker, clock) = attached();
        parker.announce();
        waker.wake();
        parker.retract();
        parker.announce();
        let deadline = clock.now() + 1_000_000;
        parker.park(&clock, deadline);
        assert!(clock.now() >= deadline);
    }

    #[test]
    fn one_of_many_wakers_takes_the_announcement() {
        let (parker, waker, clock) = attached();
        parker.announce();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| waker.wake());
            }
            parker.park(&clock, NEVER);
        });
        assert!(!parker.0.parked.0.load(Ordering::Relaxed));
    }

    #[test]
    fn a_wake_before_the_thread_exists_is_harmless() {
        let (parker, waker) = pair();
        waker.wake();
        parker.attach();
    }
}
