//! What brings something to a remote store or a directory, one request after the other: a [`Copier`](super::Copier) drives it.

use crate::{model::checkpoint_error::CheckpointError, platform::Nanos};

/// What a step has come to.
#[derive(Debug)]
pub(in crate::control) enum Step {
    /// There is more to do.
    Again,
    /// There is more to do, after this time.
    Wait(Nanos),
    /// What became of what was brought.
    Done(Result<(), CheckpointError>),
    /// There is nothing to do.
    Idle,
}

/// Brings loads to a remote store, one after the other. All calls come from one thread, which may wait for a request.
pub(in crate::control) trait Carrier: Send + 'static {
    /// What is brought.
    type Load: Send + 'static;

    /// Begins to bring a load. None may be under way.
    fn begin(&mut self, load: Self::Load);

    /// Makes the next request. With `cancelled`, what is under way is given up instead; what became of it is told as ever.
    fn step(&mut self, cancelled: bool) -> Step;

    /// How long the last request took in virtual time.
    fn took(&self) -> Nanos;

    /// Whether something is under way, or to be taken away.
    fn is_busy(&self) -> bool;

    /// Whether the store may hold a load that was told to have failed.
    fn is_unsure(&self) -> bool {
        false
    }

    /// No step follows: takes away what is of no use to anybody, with a few requests of which none is repeated.
    fn end(&mut self) {}
}

/// One of several carriers of the same loads.
impl<L: Send + 'static> Carrier for Box<dyn Carrier<Load = L>> {
    type Load = L;

    fn begin(&mut self, load: L) {
        (**self).begin(load);
    }

    fn step(&mut self, cancelled: bool) -> Step {
        (**self).step(cancelled)
    }

    fn took(&self) -> Nanos {
        (**self).took()
    }

    fn is_busy(&self) -> bool {
        (**self).is_busy()
    }

    fn is_unsure(&self) -> bool {
        (**self).is_unsure()
    }

    fn end(&mut self) {
        (**self).end();
    }
}
