//! Threads that are no worker's: for what may block, and is off the data cores.

use std::{io, thread};

use tidemill_storage::background::stand_back;

/// A thread that was started; see [`start`].
pub struct Thread<T>(thread::JoinHandle<T>);

/// Starts a thread.
///
/// # Errors
/// Of the system.
pub fn start<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Thread<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map(Thread)
}

/// Starts a thread that does not interrupt workers: for what can wait for its turn, some milliseconds where no core is idle.
///
/// # Errors
/// Of the system.
pub fn start_behind_workers<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Thread<T>> {
    start(name, move || {
        stand_back();
        run()
    })
}

impl<T> Thread<T> {
    /// Whether it is the calling thread.
    pub fn is_current(&self) -> bool {
        self.0.thread().id() == thread::current().id()
    }

    /// Waits for its end; `None` if it panicked.
    pub fn join(self) -> Option<T> {
        self.0.join().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_gives_nothing() {
        assert_eq!(start("fine", || 7).unwrap().join(), Some(7));
        assert!(!start("other", || ()).unwrap().is_current());
        assert_eq!(start("not", || panic!("expected by the test")).unwrap().join(), None::<()>);
    }
}
