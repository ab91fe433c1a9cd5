//! Starts threads for blocking input and output that do not inherit the pinning of a data core.

use std::{io, sync::mpsc, thread};

/// A thread to start: its name and its body.
type Request = (String, Box<dyn FnOnce() + Send>);

/// Starts I/O threads from any thread with the core mask of the thread that made this handle: a thread
/// inherits the mask of its parent, and a worker is pinned. Make it where the job is started.
#[derive(Clone, Debug)]
pub struct IoThreads {
    requests: mpsc::Sender<Request>,
}

impl IoThreads {
    /// Starts the helper, which ends when the last clone of this handle is dropped.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn new() -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::Builder::new().name("tidemill-io".into()).spawn(move || {
            for (name, body) in inbox {
                // When the system refuses, the body is dropped and with it its ends of the channels: the
                // reader notices that its thread is gone.
                drop(thread::Builder::new().name(name).spawn(body));
            }
        })?;
        Ok(Self { requests })
    }

    /// Starts `body` on a thread of its own. When that fails, `body` is dropped without being run.
    pub fn spawn(&self, name: String, body: impl FnOnce() + Send + 'static) {
        // The helper lives as long as this handle.
        drop(self.requests.send((name, Box::new(body))));
    }
}
