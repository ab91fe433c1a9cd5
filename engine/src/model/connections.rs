//! What a connector tells of its connections to the other side: whether they hold, and how often they were tried again. And what
//! it is told: that nobody waits for them any more, because the job was cancelled, or has had its time to stop.
//!
//! Shared by everything that holds a connection of one operator, in all attempts of a job, and read from any thread at any time:
//! also while no worker runs, as between two attempts. Touched when a connection breaks or is back, never for a record.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The connections of one operator.
#[derive(Debug, Default)]
pub struct Connections {
    down: AtomicU64,
    retries: AtomicU64,
    last_failure: Mutex<Option<String>>,
    unwanted: AtomicBool,
    /// How many wait for the job to stop that have waited for long enough.
    hurrying: AtomicU64,
}

/// The connections of one operator at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Connections that are broken and are tried to be made again.
    pub down: u64,
    /// Tries that failed, of all connections since the job was started.
    pub retries: u64,
    /// Why the last of them did.
    pub last_failure: Option<String>,
}

impl Connections {
    /// A connection that works, as far as is known.
    pub fn open(self: &Arc<Self>) -> Connection {
        Connection { all: Arc::clone(self), is_down: false }
    }

    /// Nobody waits for them any more: one that is down is not tried again.
    pub fn give_up(&self) {
        self.unwanted.store(true, Ordering::Release);
    }

    /// One that is down is not tried again until what is returned is dropped.
    pub fn hurry(self: &Arc<Self>) -> Hurry {
        self.hurrying.fetch_add(1, Ordering::AcqRel);
        Hurry(Arc::clone(self))
    }

    /// Whether nobody waits for them any more, for now or for good.
    pub fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Acquire) || self.hurrying.load(Ordering::Acquire) > 0
    }

    /// How they are now.
    pub fn stats(&self) -> ConnectionStats {
        ConnectionStats {
            down: self.down.load(Ordering::Acquire),
            retries: self.retries.load(Ordering::Acquire),
            last_failure: self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// Somebody has waited for long enough.
#[derive(Debug)]
pub struct Hurry(Arc<Connections>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.hurrying.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One connection, as its holder sees it. Counts as up again when it is dropped.
#[derive(Debug)]
pub struct Connection {
    all: Arc<Connections>,
    is_down: bool,
}

impl Connection {
    /// It broke, or could not be made, and will be tried again. Whether it was up until now.
    pub fn failed(&mut self, cause: &str) -> bool {
        *self.all.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause.to_owned());
        let was_up = !self.is_down;
        if was_up {
            self.is_down = true;
            self.all.down.fetch_add(1, Ordering::AcqRel);
        }
        self.all.retries.fetch_add(1, Ordering::AcqRel);
        was_up
    }

    /// Whether nobody waits for it any more, for now or for good.
    pub fn is_unwanted(&self) -> bool {
        self.all.is_unwanted()
    }

    /// It works. Whether it was down until now.
    pub fn works(&mut self) -> bool {
        let was_down = std::mem::take(&mut self.is_down);
        if was_down {
            self.all.down.fetch_sub(1, Ordering::AcqRel);
        }
        was_down
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.works();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_down_from_its_first_failure_until_it_works_or_is_given_up() {
        let all = Arc::<Connections>::default();
        let (mut one, mut other) = (all.open(), all.open());
        assert!(one.failed("refused") && !one.failed("reset") && other.failed("gone"));
        let stats = ConnectionStats { down: 2, retries: 3, last_failure: Some("gone".to_owned()) };
        assert_eq!(all.stats(), stats);
        assert!(one.works() && !one.works());
        assert_eq!(all.stats(), ConnectionStats { down: 1, ..stats.clone() });
        drop(other);
        assert_eq!(all.stats(), ConnectionStats { down: 0, ..stats });
        let hurry = all.hurry();
        assert!(one.is_unwanted());
        drop(hurry);
        assert!(!one.is_unwanted());
        all.give_up();
        assert!(one.is_unwanted());
    }
}
