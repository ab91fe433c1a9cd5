//! Waking a thread that is no worker's, and driving what is no worker.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::{Clock, Drive, Nanos, Turn, Wake};

/// The longest wait, so that a wish to stop that nobody rings for is seen.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// A bell that one thread waits for and others ring.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Waits until it is rung, or for so long.
    pub(super) fn wait(&self, wait: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(rung, wait, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

impl Wake for Bell {
    fn wake(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

/// Drives something on the calling thread until it is done.
pub(super) fn drive(mut drive: Box<dyn Drive>, clock: &dyn Clock, bell: &Bell) {
    loop {
        match drive.turn(clock.now()) {
            Turn::Busy { .. } => {}
            Turn::Idle { wake_at } => bell.wait(until(wake_at, clock.now()).min(WAIT_MAX)),
            Turn::Done => return,
        }
    }
}

fn until(wake_at: Option<Nanos>, now: Nanos) -> Duration {
    wake_at.map_or(WAIT_MAX, |at| Duration::from_nanos(at.saturating_sub(now)))
}

/// Waits on the calling thread.
pub(super) fn pause(wait: Nanos, clock: &dyn Clock, enough: &dyn Fn() -> bool) {
    let (bell, end) = (Arc::new(Bell::default()), clock.now().saturating_add(wait));
    while clock.now() < end && !enough() {
        bell.wait(until(Some(end), clock.now()).min(WAIT_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_that_was_rung_before_is_heard_once() {
        let bell = Bell::default();
        bell.wake();
        bell.wait(Duration::from_secs(3600));
        bell.wait(Duration::ZERO);
    }
}
