//! The writer on a thread of its own, off the data core.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvError, SyncSender, TryRecvError, TrySendError, channel, sync_channel},
    },
    thread::{self, JoinHandle},
};

use super::{
    disk::{Disk, failed},
    writer::{Command, Event, StoreSettings, WriterCore},
};
use crate::{background::stand_far_back, state::StateError};

/// Commands that may wait.
const COMMANDS_MAX: usize = 16;

/// The data core's end of the writer's thread. Dropped, it lets the thread finish what it was given, and waits for it.
#[derive(Debug)]
pub struct Writer {
    commands: Option<SyncSender<Command>>,
    /// Every command has two events at most, so there are few as long as they are polled.
    events: Receiver<Event>,
    thread: Option<JoinHandle<()>>,
    directory: PathBuf,
}

impl Writer {
    /// Takes the directory and starts the thread; `wake` is called on it after each event.
    ///
    /// # Errors
    /// As [`WriterCore::open`], and when no thread can be started.
    pub fn start(
        disk: Arc<dyn Disk>,
        settings: StoreSettings,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Self, StateError> {
        Self::run(WriterCore::open(disk, settings)?, wake)
    }

    /// Starts the thread of a writer that has its directory; `wake` is called on it after each event.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn run(mut core: WriterCore, wake: impl Fn() + Send + 'static) -> Result<Self, StateError> {
        let directory = core.directory().to_owned();
        let (commands, inbox) = sync_channel(COMMANDS_MAX);
        let (outbox, events) = channel();
        let run = move || {
            stand_far_back();
            while let Some(command) = next(&inbox, &mut core) {
                for event in core.perform(command) {
                    // Nobody may listen any more; what was asked is done all the same.
                    let _ = outbox.send(event);
                    wake();
                }
            }
        };
        let thread = thread::Builder::new()
            .name("state-writer".into())
            .spawn(run)
            .map_err(failed("start a writer for", &directory))?;
        Ok(Self { commands: Some(commands), events, thread: Some(thread), directory })
    }

    /// Hands a command over without waiting. Gives it back when too many wait already, or when the thread has died,
    /// which [`poll`](Self::poll) says.
    #[must_use = "a command that comes back was not taken"]
    pub fn offer(&self, command: Command) -> Option<Command> {
        let Some(commands) = &self.commands else { return Some(command) };
        match commands.try_send(command) {
            Ok(()) => None,
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => Some(command),
        }
    }

    /// Hands a command over, and waits while too many wait already.
    ///
    /// # Errors
    /// When the thread has died.
    pub fn send(&self, command: Command) -> Result<(), StateError> {
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok());
        if sent { Ok(()) } else { Err(self.died()) }
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// When the thread has died.
    pub fn poll(&self) -> Result<Option<Event>, StateError> {
        match self.events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.died()),
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// When the thread has died.
    pub fn wait(&self) -> Result<Event, StateError> {
        self.events.recv().map_err(|RecvError| self.died())
    }

    /// Lets the thread finish what it was given; the events that are left.
    pub fn stop(mut self) -> Vec<Event> {
        self.finish();
        self.events.try_iter().collect()
    }

    fn finish(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic was a bug of the writer, and was printed; state on disk is what it was.
            let _ = thread.join();
        }
    }

    fn died(&self) -> StateError {
        let source = io::Error::other("the state writer's thread has ended; see its panic message");
        failed("write to", &self.directory)(source)
    }
}

/// The next command; `None` when there is none any more. As long as none waits, files that nothing needs are removed, and
/// some in any case.
fn next(inbox: &Receiver<Command>, core: &mut WriterCore) -> Option<Command> {
    core.remove_some();
    loop {
        match inbox.try_recv() {
            Ok(command) => return Some(command),
            Err(_) if core.has_garbage() => core.remove_one(),
            Err(TryRecvError::Empty) => return inbox.recv().ok(),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}
