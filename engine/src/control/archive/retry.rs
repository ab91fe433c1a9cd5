//! How often a request is repeated, and after which time.

use crate::{
    model::checkpoint_error::CheckpointError,
    platform::{
        Nanos, Platform,
        remote::{RemoteError, RemoteStore},
    },
};

/// Tries of one request: some three seconds in all.
const TRIES_MAX: u32 = 6;
/// The first wait; each that follows is twice as long.
const WAIT_NS: Nanos = 100_000_000;

/// Why something does not get on.
pub(super) enum Stuck {
    /// It has failed.
    Now(CheckpointError),
    /// A request failed: what it was, and why.
    Remote(&'static str, RemoteError),
}

impl From<CheckpointError> for Stuck {
    fn from(error: CheckpointError) -> Self {
        Self::Now(error)
    }
}

/// The tries of one request.
#[derive(Default)]
pub(super) struct Retry {
    failures: u32,
}

impl Retry {
    /// Whether the request has failed already.
    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Takes note of a failure; how long to wait before the next try, unless there is to be none.
    pub(super) fn after(&mut self, error: &RemoteError) -> Option<Nanos> {
        self.failures += 1;
        let another = error.may_pass() && self.failures < TRIES_MAX;
        another.then(|| WAIT_NS << (self.failures - 1))
    }
}

/// Does a request until it goes well, as long as it is worth another try and not `enough`.
pub(super) fn patiently<T>(
    platform: &dyn Platform,
    enough: &dyn Fn() -> bool,
    mut request: impl FnMut() -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let mut retry = Retry::default();
    loop {
        let error = match request() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match retry.after(&error) {
            Some(wait) if !enough() => platform.pause(wait, enough),
            _ => return Err(error),
        }
    }
}

/// The error of a request that failed.
pub(super) fn failed(
    store: &dyn RemoteStore,
    doing: &'static str,
) -> impl FnOnce(RemoteError) -> CheckpointError + use<> {
    let place = store.place();
    move |source| CheckpointError::Remote { doing, place, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_bounded_and_what_is_refused_is_not_tried_again() {
        let passing = RemoteError::Failed { why: String::new() };
        let mut retry = Retry::default();
        let waits: Vec<_> = std::iter::from_fn(|| retry.after(&passing)).map(|wait| wait / WAIT_NS).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16]);
        let refused = RemoteError::Refused { why: String::new(), fix: String::new() };
        assert_eq!(Retry::default().after(&refused), None);
    }
}
