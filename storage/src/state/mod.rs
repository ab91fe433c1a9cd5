//! Keyed state: what operators keep per key, behind an interface that does not say how.
//!
//! A [`StateBackend`] makes tables; a [`KeyedTable`] holds one value per key. Operators work on *columns* of
//! keys ([`KeyColumn`]) so that a backend can look many keys up together. A window keeps one table per slice
//! and drops it whole. Everything here is used by one thread.
//!
//! [`memory`] is the reference implementation: short, obvious and the yardstick of every other.

pub mod memory;
pub mod timers;

use std::ops::Range;

use crate::record::Record;

/// A key as a table sees it: its hash, and its bytes if it is wide.
///
/// For a narrow key the hash is the key and `bytes` is empty; see [`key`](crate::key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyView<'a> {
    /// The key's stable hash.
    pub hash: u64,
    /// The canonical bytes of a wide key.
    pub bytes: &'a [u8],
}

/// The keys of consecutive records.
pub trait KeyColumn {
    /// The key of record `i`.
    fn key(&self, i: usize) -> KeyView<'_>;
}

/// Makes the tables of one subtask.
pub trait StateBackend: 'static {
    /// A table of values `V`.
    type Table<V: Record>: KeyedTable<V>;

    /// A new, empty table.
    fn table<V: Record>(&mut self) -> Self::Table<V>;
}

/// One value per key.
pub trait KeyedTable<V>: 'static {
    /// Number of keys.
    fn len(&self) -> usize;

    /// Whether there is no key.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key.
    fn get(&self, key: KeyView<'_>) -> Option<&V>;

    /// Updates the value of a key in place, first creating it where there is none.
    fn update<R>(
        &mut self,
        key: KeyView<'_>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R;

    /// Updates the values of the keys of all records in `range`, in this order; both functions get the record's index.
    fn update_batch<K: KeyColumn>(
        &mut self,
        keys: &K,
        range: Range<usize>,
        mut create: impl FnMut(usize) -> V,
        mut update: impl FnMut(usize, &mut V),
    ) {
        for i in range {
            self.update(keys.key(i), || create(i), |value| update(i, value));
        }
    }

    /// Sets the value of a key and returns the one before.
    fn put(&mut self, key: KeyView<'_>, value: V) -> Option<V>;

    /// Removes a key and returns its value.
    fn remove(&mut self, key: KeyView<'_>) -> Option<V>;

    /// Visits keys and values from `cursor` on (0 to begin) until `visit` returns false; returns the cursor to go on
    /// from, or `None` at the end. The table must not change between the calls. No order.
    fn scan(&self, cursor: usize, visit: impl FnMut(KeyView<'_>, &V) -> bool) -> Option<usize>;
}
