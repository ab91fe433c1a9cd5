//! [`ReducingState`]: one value per key, into which each value that is added is combined.

use std::{cell::Cell, ops::Range};

use rkyv::Archived;

use crate::{
    key::Key,
    log::seal::Sealed,
    record::Record,
    state::{KeyColumn, KeyView, KeyedTable, Migration, StateBackend, StateError, StateName},
};

use super::value::ValueState;

/// One value per key: all that were added, combined two by two by a function, in the order in which they came.
///
/// ```
/// use tidemill_storage::{
///     key::Key,
///     kinds::reducing::ReducingState,
///     state::{KeyView, StateName, memory::MemoryBackend},
/// };
///
/// let mut backend = MemoryBackend::default();
/// let name = StateName::new("bids", "highest");
/// let highest = |a: &u64, b: &u64| *a.max(b);
/// let mut bids = ReducingState::<u32, u64, _, _>::open(&mut backend, name, Vec::new(), highest)?;
/// let auction = KeyView { hash: 7_u32.key_hash(&mut Vec::new()), bytes: &[] };
/// for price in [3, 9, 4] {
///     bids.add(auction, price);
/// }
/// assert_eq!(bids.get(auction), Some(9));
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
pub struct ReducingState<K: Key, V: Record, B: StateBackend, F> {
    values: ValueState<K, V, B>,
    reduce: F,
}

impl<K: Key, V: Record, B: StateBackend, F: Fn(&V, &V) -> V> ReducingState<K, V, B, F> {
    /// Opens the state, with what was restored under its name. `reduce` gets the value so far and the one added.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open(
        backend: &mut B,
        name: StateName,
        migrations: Vec<Migration<V>>,
        reduce: F,
    ) -> Result<Self, StateError> {
        Ok(Self { values: ValueState::open(backend, name, migrations)?, reduce })
    }

    /// Adds a value to that of a key.
    #[inline]
    pub fn add(&mut self, key: KeyView<'_>, value: V) {
        // Where the key is new the value itself is its first; else there is one to combine it with.
        let value = Cell::new(Some(value));
        let reduce = &self.reduce;
        let first = || match value.take() {
            Some(value) => value,
            None => unreachable!("a value is created before it is updated"),
        };
        self.values.update(key, first, |so_far| {
            if let Some(value) = value.take() {
                *so_far = reduce(so_far, &value);
            }
        });
    }

    /// Adds a value for each record in `range`, in this order: what `value` makes of the record's index.
    pub fn add_batch<C: KeyColumn>(&mut self, keys: &C, range: Range<usize>, value: impl Fn(usize) -> V) {
        let created = Cell::new(false);
        let reduce = &self.reduce;
        self.values.update_batch(
            keys,
            range,
            |i| {
                created.set(true);
                value(i)
            },
            |i, so_far| {
                if !created.replace(false) {
                    *so_far = reduce(so_far, &value(i));
                }
            },
        );
    }

    /// The value of a key, copied.
    pub fn get(&mut self, key: KeyView<'_>) -> Option<V> {
        self.values.get(key)
    }

    /// Lends the value of a key, archived and in place.
    pub fn read<R>(&mut self, key: KeyView<'_>, lend: impl FnOnce(&Archived<V>) -> R) -> Option<R> {
        self.values.read(key, lend)
    }

    /// Removes the value of a key; whether there was one.
    pub fn clear(&mut self, key: KeyView<'_>) -> bool {
        self.values.clear(key)
    }

    /// Number of keys that have a value.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`].
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.values.seal(sealed);
    }

    /// Gives memory back if the backend's budget is used up, as [`KeyedTable::relieve`].
    pub fn relieve(&mut self) {
        self.values.table().relieve();
    }
}
