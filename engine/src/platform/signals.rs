//! The wish to stop that a service manager or a terminal sends to a process.

use std::{io, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::{Handle, Signals},
};

/// Listens for signals, until it is dropped.
pub struct StopSignals {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
}

impl StopSignals {
    /// Calls `stop` with the number of times that the process was asked to stop (`SIGTERM`, `SIGINT`), on a thread of its own.
    ///
    /// # Errors
    /// Of the system.
    pub fn listen(stop: impl Fn(u32) + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let handle = signals.handle();
        let run = move || {
            for (times, _signal) in (1..).zip(signals.forever()) {
                stop(times);
            }
        };
        let thread = thread::Builder::new().name("tidemill-signals".into()).spawn(run)?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        self.handle.close();
        self.thread.take().map(thread::JoinHandle::join);
    }
}
