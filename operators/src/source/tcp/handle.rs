//! What the owner of a running TCP source holds.

use std::{
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use tidemill_engine::platform::sockets::LineServer;

/// Tells the address of a [`TcpLinesSource`](super::TcpLinesSource), and stops it.
#[derive(Clone)]
pub struct TcpLinesHandle {
    pub(super) shared: Arc<Shared>,
}

/// What handles and the source share.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Planned,
    Listening(SocketAddr, Weak<LineServer>),
    Failed,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, state: State) {
        *self.state() = state;
        self.changed.notify_all();
    }

    /// The source is gone: it will not listen any more if it does not yet.
    pub(super) fn give_up(&self) {
        let mut state = self.state();
        if matches!(*state, State::Planned) {
            *state = State::Failed;
        }
        self.changed.notify_all();
    }
}

impl TcpLinesHandle {
    /// The address that is listened on, with the real port; `None` before the job has started.
    pub fn address(&self) -> Option<SocketAddr> {
        match &*self.shared.state() {
            State::Listening(address, _) => Some(*address),
            State::Planned | State::Failed => None,
        }
    }

    /// Blocks until the source listens, and tells its address; `None` when it never will.
    pub fn wait_for_address(&self) -> Option<SocketAddr> {
        let mut state = self.shared.state();
        while matches!(*state, State::Planned) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.address()
    }

    /// Stops listening and closes the connections; the input ends when what was received is read. Does
    /// nothing before the source listens.
    pub fn stop(&self) {
        let server = match &*self.shared.state() {
            State::Listening(_, server) => server.upgrade(),
            State::Planned | State::Failed => None,
        };
        if let Some(server) = server {
            server.stop();
        }
    }
}
