//! Time to live: when a value, a list's element or a map's entry expires, and who removes it.
//!
//! A time stamp lies beside each ([`Stamped`]). What has expired is removed
//!
//! * when it is read;
//! * by an incremental cleanup: each call looks at a few keys more, from a cursor on, and so goes round and round; at more of them
//!   than have come since the last call, or it would run behind new keys for ever and never come back to the old ones;
//! * by a store that compacts, where it would have to copy the value ([`KeyedTable::expire_with`]), by the time of the
//!   state's last use. An element or entry is counted elsewhere and cannot just vanish: it is copied and noted, and the
//!   next uses of the state remove what was noted, a few each.
//!
//! The time is that which the caller gives, in milliseconds: the wall clock's, as in Flink, or event time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use rkyv::Archived;

use crate::{
    Record,
    record::Record as IsRecord,
    state::{KeyView, KeyedTable},
};

/// What renews a time stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TtlUpdate {
    /// Creation and every write.
    #[default]
    OnCreateAndWrite,
    /// Every read, too.
    OnReadAndWrite,
}

/// Whether what has expired is shown as long as it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TtlVisibility {
    /// Never.
    #[default]
    NeverReturnExpired,
    /// Until it is removed: the read that finds it returns it for the last time.
    ReturnExpiredIfNotCleanedUp,
}

/// When state expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlConfig {
    ttl_ms: i64,
    update: TtlUpdate,
    visibility: TtlVisibility,
}

impl TtlConfig {
    /// Expires `ttl_ms` milliseconds after creation or the last write, and is not shown from then on.
    ///
    /// # Panics
    /// When `ttl_ms` is 0.
    pub fn new(ttl_ms: u64) -> Self {
        assert!(ttl_ms > 0, "state with a time to live of 0 ms would never be seen");
        let ttl_ms = i64::try_from(ttl_ms).unwrap_or(i64::MAX);
        Self { ttl_ms, update: TtlUpdate::default(), visibility: TtlVisibility::default() }
    }

    /// Says what renews the time stamp.
    #[must_use]
    pub fn update(self, update: TtlUpdate) -> Self {
        Self { update, ..self }
    }

    /// Says whether what has expired is shown as long as it is there.
    #[must_use]
    pub fn visibility(self, visibility: TtlVisibility) -> Self {
        Self { visibility, ..self }
    }

    /// Whether what was stamped at `stamp` has expired at `now`.
    #[inline]
    pub fn is_expired(&self, stamp: i64, now: i64) -> bool {
        now.saturating_sub(stamp) >= self.ttl_ms
    }

    /// Whether a read renews the stamp.
    #[inline]
    pub fn renews_on_read(&self) -> bool {
        self.update == TtlUpdate::OnReadAndWrite
    }

    /// Whether what has expired is shown.
    #[inline]
    pub fn shows_expired(&self) -> bool {
        self.visibility == TtlVisibility::ReturnExpiredIfNotCleanedUp
    }
}

/// When something was last written, or read if that counts, in milliseconds. Stored.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[record(crate = crate)]
pub struct TtlStamp {
    /// Milliseconds, by the clock of whoever writes the state.
    pub at: i64,
}

/// What is stored of a value with a time to live.
pub type Stamped<V> = (V, TtlStamp);

/// Where an incremental cleanup goes on, and what it has found.
#[derive(Debug, Default)]
pub(super) struct Cleanup {
    cursor: usize,
    found: Vec<Found>,
    quota: Quota,
}

/// How much a cleanup looks at: a table is scanned in the order in which keys came, so it has to be faster than they come.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// Length of the table when the last call ended; `None` before the first.
    len: Option<usize>,
}

impl Quota {
    /// At how many of `len` keys a call looks that is to look at `keys_max`: so many, or twice as many as have come.
    pub(super) fn of(&self, keys_max: usize, len: usize) -> usize {
        let come = self.len.map_or(0, |before| len.saturating_sub(before));
        keys_max.max(2 * come)
    }

    /// Ends a call that leaves `len` keys.
    pub(super) fn ends_at(&mut self, len: usize) {
        self.len = Some(len);
    }
}

/// A key to be looked at again.
#[derive(Debug)]
pub(super) struct Found {
    hash: u64,
    bytes: Box<[u8]>,
}

impl Found {
    pub(super) fn new(key: KeyView<'_>) -> Self {
        Self { hash: key.hash, bytes: key.bytes.into() }
    }

    pub(super) fn key(&self) -> KeyView<'_> {
        KeyView { hash: self.hash, bytes: &self.bytes }
    }
}

/// What compaction has noted, to be removed by the uses that follow.
pub(super) struct Noted {
    /// The time of the last use, by which compaction judges.
    now: Rc<Cell<i64>>,
    found: Rc<RefCell<Vec<Found>>>,
}

/// The side of [`Noted`] that compaction has.
pub(super) struct Notes {
    now: Rc<Cell<i64>>,
    found: Rc<RefCell<Vec<Found>>>,
}

/// Noted keys at most; what is found beyond that is found again.
const NOTED_MAX: usize = 1024;
/// Noted keys that one use removes.
const NOTED_PER_USE: usize = 2;

impl Noted {
    pub(super) fn new() -> Self {
        Self { now: Rc::new(Cell::new(i64::MIN)), found: Rc::default() }
    }

    /// For compaction.
    pub(super) fn notes(&self) -> Notes {
        Notes { now: Rc::clone(&self.now), found: Rc::clone(&self.found) }
    }

    /// Begins a use at a time; `remove` gets keys that were noted, and has to see for itself whether they have expired.
    #[inline]
    pub(super) fn at(&self, now: i64, mut remove: impl FnMut(KeyView<'_>)) {
        self.now.set(now);
        for _ in 0..NOTED_PER_USE {
            let Some(found) = self.found.borrow_mut().pop() else { return };
            remove(found.key());
        }
    }
}

impl Notes {
    /// The time of the state's last use.
    pub(super) fn now(&self) -> i64 {
        self.now.get()
    }

    /// Notes a key.
    pub(super) fn note(&self, key: KeyView<'_>) {
        let mut found = self.found.borrow_mut();
        if found.len() < NOTED_MAX {
            found.push(Found::new(key));
        }
    }
}

impl Cleanup {
    /// Looks at `keys_max` keys more, or at twice as many as have come since the last call, by `scan` from a cursor on, and gives
    /// those to `remove` that `is_found` says. Returns how many.
    ///
    /// The table changes between the calls, so that a cursor may stand anywhere when it is used again: keys may be
    /// passed over or seen twice in one round, and no round depends on the one before.
    pub(super) fn step<T, V: ?Sized>(
        &mut self,
        table: &mut T,
        keys_max: usize,
        len: impl Fn(&T) -> usize,
        scan: impl FnOnce(&mut T, usize, &mut dyn FnMut(KeyView<'_>, &V) -> bool) -> Option<usize>,
        is_found: impl Fn(&V) -> bool,
        mut remove: impl FnMut(&mut T, KeyView<'_>),
    ) -> usize {
        if keys_max == 0 {
            return 0;
        }
        let mut left = self.quota.of(keys_max, len(table));
        let found = &mut self.found;
        let next = scan(table, self.cursor, &mut |key, value| {
            if is_found(value) {
                found.push(Found::new(key));
            }
            left -= 1;
            left > 0
        });
        self.cursor = next.unwrap_or(0);
        let removed = self.found.len();
        for found in self.found.drain(..) {
            remove(table, found.key());
        }
        self.quota.ends_at(len(table));
        removed
    }
}

/// As [`Cleanup::step`], for a table of stamped values.
pub(super) fn clean_table<K: crate::key::Key, V: IsRecord, T: KeyedTable<K, Stamped<V>>>(
    cleanup: &mut Cleanup,
    table: &mut T,
    ttl: TtlConfig,
    now: i64,
    keys_max: usize,
) -> usize {
    cleanup.step::<T, Archived<Stamped<V>>>(
        table,
        keys_max,
        |table| table.len(),
        |table, cursor, visit| table.scan(cursor, visit),
        |value| ttl.is_expired(value.1.at.to_native(), now),
        |table, key| {
            table.remove(key);
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_expires_at_its_time_and_never_by_overflow() {
        let ttl = TtlConfig::new(10);
        assert!(!ttl.is_expired(5, 14));
        assert!(ttl.is_expired(5, 15));
        assert!(!TtlConfig::new(u64::MAX).is_expired(5, i64::MAX - 1));
        assert!(!ttl.is_expired(i64::MAX, i64::MAX), "what was just written has not expired");
        assert!(ttl.is_expired(i64::MIN, i64::MAX));
        assert!(!ttl.is_expired(20, 10), "time that runs back expires nothing");
    }
}
