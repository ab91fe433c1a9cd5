//! Drives a [carrier](Carrier): on a thread of its own, so that a slow store holds nobody up; under simulation step by step in virtual time.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    time::Duration,
};

use super::carrier::{Carrier, Step};
use crate::{
    model::checkpoint_error::CheckpointError,
    platform::{
        Nanos, PlatformError, Wake,
        remote::RemoteError,
        threads::{self, Thread},
    },
};

/// What became of what was to be brought there.
pub(in crate::control) type Copied = Result<(), CheckpointError>;

/// What the carrier's thread is told, and where it is.
struct Wishes<L> {
    state: Mutex<State<L>>,
    changed: Condvar,
}

struct State<L> {
    next: Option<L>,
    /// What is under way is to be given up.
    cancelled: bool,
    closed: bool,
    busy: bool,
    /// The store may hold something of which nobody here knows that it is complete.
    unsure: bool,
}

impl<L> Wishes<L> {
    fn new() -> Self {
        let state = State { next: None, cancelled: false, closed: false, busy: true, unsure: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<L>> {
        // Nothing that could panic happens under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State<L>)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }
}

enum Mode<C: Carrier> {
    Thread { wishes: Arc<Wishes<C::Load>>, outcomes: Receiver<Copied>, thread: Option<Thread<()>> },
    Here { carrier: Box<C>, cancelled: bool, ready_at: Nanos, outcome: Option<Copied> },
}

/// Has a carrier bring what it is told to a remote store, one after the other. Dropped, it gives up what is under way and waits
/// for the request that is being made, and those that [`Carrier::end`] makes.
pub(in crate::control) struct Copier<C: Carrier>(Mode<C>);

impl<C: Carrier> Copier<C> {
    /// On a thread of its own, that calls `wake` when there is news.
    ///
    /// # Errors
    /// When there is no thread.
    pub(in crate::control) fn start(carrier: C, wake: Arc<dyn Wake>) -> Result<Self, PlatformError> {
        let wishes = Arc::new(Wishes::new());
        let (tell, outcomes) = channel();
        let heard = Arc::clone(&wishes);
        let thread =
            threads::start_behind_workers("tidemill-copier", move || run(carrier, &heard, tell, &*wake));
        let thread = thread.map_err(|error| PlatformError::Unfit {
            what: "starting the thread that copies checkpoints".into(),
            why: error.to_string(),
            fix: "Raise the limit on processes (`ulimit -u`).".into(),
        })?;
        Ok(Self(Mode::Thread { wishes, outcomes, thread: Some(thread) }))
    }

    /// On the thread of whoever polls it.
    pub(in crate::control) fn here(carrier: C) -> Self {
        Self(Mode::Here { carrier: Box::new(carrier), cancelled: false, ready_at: 0, outcome: None })
    }

    /// Begins to bring something. Nothing may be under way.
    pub(in crate::control) fn begin(&mut self, load: C::Load) {
        match &mut self.0 {
            Mode::Thread { wishes, .. } => wishes.change(|state| {
                (state.next, state.cancelled, state.busy) = (Some(load), false, true);
            }),
            Mode::Here { carrier, cancelled, .. } => {
                *cancelled = false;
                carrier.begin(load);
            }
        }
    }

    /// Gives up what is under way; what became of it is told as ever.
    pub(in crate::control) fn cancel(&mut self) {
        match &mut self.0 {
            Mode::Thread { wishes, .. } => wishes.change(|state| state.cancelled = true),
            Mode::Here { cancelled, ready_at, .. } => (*cancelled, *ready_at) = (true, 0),
        }
    }

    /// Whether something is being brought there or taken away.
    pub(in crate::control) fn is_busy(&self) -> bool {
        match &self.0 {
            Mode::Thread { wishes, .. } => wishes.lock().busy,
            Mode::Here { carrier, outcome, .. } => carrier.is_busy() || outcome.is_some(),
        }
    }

    /// Whether the store may hold a checkpoint that failed as far as is known here. The next one that is there settles it, or another
    /// claim.
    pub(in crate::control) fn is_unsure(&self) -> bool {
        match &self.0 {
            Mode::Thread { wishes, .. } => wishes.lock().unsure,
            Mode::Here { carrier, .. } => carrier.is_unsure(),
        }
    }

    /// Gets on where nobody else does; when it wants to be polled again at the latest.
    pub(in crate::control) fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        let Mode::Here { carrier, cancelled, ready_at, outcome } = &mut self.0 else { return None };
        if now >= *ready_at && outcome.is_none() {
            match carrier.step(*cancelled) {
                Step::Again => *ready_at = now + 1 + carrier.took(),
                Step::Wait(wait) => *ready_at = now + wait,
                Step::Done(done) => {
                    *ready_at = now + 1 + carrier.took();
                    *outcome = Some(done);
                }
                Step::Idle => return None,
            }
        }
        Some(*ready_at)
    }

    /// What became of it, once that is known.
    pub(in crate::control) fn outcome(&mut self) -> Option<Copied> {
        match &mut self.0 {
            Mode::Thread { outcomes, .. } => match outcomes.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Err(ended())),
            },
            Mode::Here { outcome, .. } => outcome.take(),
        }
    }
}

fn ended() -> CheckpointError {
    let why = "the thread that copies checkpoints has ended; see its panic message".to_owned();
    let place = "the remote store".to_owned();
    CheckpointError::Remote { doing: "keep a checkpoint", place, source: RemoteError::Failed { why } }
}

/// Tells that the carrier's thread has ended, also by a panic: nobody is to wait for it.
struct Farewell<'a, L> {
    tell: Option<Sender<Copied>>,
    wishes: &'a Wishes<L>,
    wake: &'a dyn Wake,
}

impl<L> Drop for Farewell<'_, L> {
    fn drop(&mut self) {
        // First, so that whoever is woken sees it.
        self.tell = None;
        // It may have ended between any two requests.
        self.wishes.change(|state| (state.busy, state.unsure) = (false, true));
        self.wake.wake();
    }
}

/// The carrier's thread.
fn run<C: Carrier>(mut carrier: C, wishes: &Wishes<C::Load>, tell: Sender<Copied>, wake: &dyn Wake) {
    let farewell = Farewell { tell: Some(tell), wishes, wake };
    loop {
        let mut state = wishes.lock();
        if state.closed {
            drop(state);
            return carrier.end();
        }
        let cancelled = state.cancelled;
        // What is under way comes first: one after the other.
        if let Some(load) = state.next.take() {
            carrier.begin(load);
        }
        drop(state);
        match carrier.step(cancelled) {
            Step::Again => {}
            Step::Done(outcome) => {
                wishes.change(|state| state.unsure = carrier.is_unsure());
                // Whoever has asked may not listen any more.
                let _ = farewell.tell.as_ref().map(|tell| tell.send(outcome));
                wake.wake();
            }
            Step::Wait(wait) => {
                let stays = |state: &mut State<C::Load>| !state.closed && state.cancelled == cancelled;
                let wait = Duration::from_nanos(wait);
                drop(wishes.changed.wait_timeout_while(wishes.lock(), wait, stays));
            }
            Step::Idle => {
                let mut state = wishes.lock();
                state.busy = state.next.is_some();
                drop(state);
                wake.wake();
                let stays = |state: &mut State<C::Load>| !state.closed && state.next.is_none();
                drop(wishes.changed.wait_while(wishes.lock(), stays));
            }
        }
    }
}

impl<C: Carrier> Drop for Copier<C> {
    fn drop(&mut self) {
        match &mut self.0 {
            Mode::Thread { wishes, thread, .. } => {
                wishes.change(|state| state.closed = true);
                // A panic of it was printed, and what it has put is what it is.
                let _ended = thread.take().and_then(Thread::join);
            }
            Mode::Here { carrier, .. } => carrier.end(),
        }
    }
}
