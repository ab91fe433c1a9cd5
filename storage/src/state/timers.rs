//! Timers per key, ordered by time. A key has at most one timer for a given time, as in Flink.

use std::collections::BTreeSet;

use super::KeyView;

/// The timers of one subtask and one kind of time, in memory. Times are milliseconds.
#[derive(Clone, Debug, Default)]
pub struct TimerQueue {
    timers: BTreeSet<Timer>,
}

/// One timer: ordered by time, then by key, so that they fire in an order that does not depend on their insertion.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// When it fires, in milliseconds.
    pub at: i64,
    /// Hash of its key.
    pub hash: u64,
    /// Bytes of its key, if that is wide.
    pub bytes: Box<[u8]>,
}

impl Timer {
    /// Its key.
    pub fn key(&self) -> KeyView<'_> {
        KeyView { hash: self.hash, bytes: &self.bytes }
    }
}

impl TimerQueue {
    /// Registers a timer; a second one for the same key and time changes nothing.
    pub fn register(&mut self, at: i64, key: KeyView<'_>) {
        self.timers.insert(Timer { at, hash: key.hash, bytes: key.bytes.into() });
    }

    /// Deletes a timer, if there is one for this key and time.
    pub fn delete(&mut self, at: i64, key: KeyView<'_>) {
        self.timers.remove(&Timer { at, hash: key.hash, bytes: key.bytes.into() });
    }

    /// When the first timer fires.
    pub fn next(&self) -> Option<i64> {
        self.timers.first().map(|timer| timer.at)
    }

    /// Takes the first timer that fires at or before `until`.
    pub fn pop_until(&mut self, until: i64) -> Option<Timer> {
        if self.next()? <= until { self.timers.pop_first() } else { None }
    }

    /// Number of timers.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether there is no timer.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_once_per_key_and_time() {
        let key = |hash| KeyView { hash, bytes: &[] };
        let mut timers = TimerQueue::default();
        for (at, hash) in [(30, 1), (10, 2), (10, 2), (10, 1), (20, 9)] {
            timers.register(at, key(hash));
        }
        timers.delete(20, key(9));
        assert_eq!((timers.len(), timers.next()), (3, Some(10)));
        let fired: Vec<(i64, u64)> =
            std::iter::from_fn(|| timers.pop_until(25)).map(|timer| (timer.at, timer.hash)).collect();
        assert_eq!(fired, [(10, 1), (10, 2)]);
        assert_eq!(timers.next(), Some(30));
    }
}
