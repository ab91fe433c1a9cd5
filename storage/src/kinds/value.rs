//! [`ValueState`]: one value per key.

use std::ops::Range;

use rkyv::Archived;

use crate::{
    key::Key,
    log::seal::Sealed,
    record::Record,
    state::{KeyColumn, KeyView, KeyedTable, Migration, StateBackend, StateError, StateName, WHOLE},
};

/// One value per key.
///
/// ```
/// use tidemill_storage::{
///     key::Key,
///     kinds::value::ValueState,
///     state::{KeyView, StateName, memory::MemoryBackend},
/// };
///
/// let mut backend = MemoryBackend::default();
/// let name = StateName::new("sessions", "clicks");
/// let mut clicks = ValueState::<u32, u64, _>::open(&mut backend, name, Vec::new())?;
/// let user = KeyView { hash: 7_u32.key_hash(&mut Vec::new()), bytes: &[] };
/// clicks.update(user, || 0, |clicks| *clicks += 1);
/// assert_eq!(clicks.read(user, |clicks| clicks.to_native()), Some(1));
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
pub struct ValueState<K: Key, V: Record, B: StateBackend> {
    table: B::Table<K, V>,
}

impl<K: Key, V: Record, B: StateBackend> ValueState<K, V, B> {
    /// Opens the state, with what was restored under its name.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open(backend: &mut B, name: StateName, migrations: Vec<Migration<V>>) -> Result<Self, StateError> {
        let state = backend.open::<K, V>(name, migrations)?;
        Ok(Self { table: backend.table::<K, V>(state, WHOLE) })
    }

    /// Number of keys that have a value.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The value of a key, copied.
    #[inline]
    pub fn get(&mut self, key: KeyView<'_>) -> Option<V> {
        self.table.get(key)
    }

    /// Lends the value of a key, archived and in place.
    #[inline]
    pub fn read<R>(&mut self, key: KeyView<'_>, lend: impl FnOnce(&Archived<V>) -> R) -> Option<R> {
        self.table.read(key, lend)
    }

    /// Whether a key has a value.
    pub fn contains(&mut self, key: KeyView<'_>) -> bool {
        self.table.contains(key)
    }

    /// Sets the value of a key.
    #[inline]
    pub fn set(&mut self, key: KeyView<'_>, value: &V) {
        self.table.put(key, value);
    }

    /// Updates the value of a key, in place if its size is fixed, after `create` where there is none.
    #[inline(always)]
    pub fn update<R>(
        &mut self,
        key: KeyView<'_>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        self.table.update(key, create, update)
    }

    /// Updates the values of the keys of all records in `range`, in this order; both functions get the record's index.
    #[inline]
    pub fn update_batch<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        create: impl FnMut(usize) -> V,
        update: impl FnMut(usize, &mut V),
    ) {
        self.table.update_batch(keys, range, create, update);
    }

    /// Removes the value of a key; whether there was one.
    pub fn clear(&mut self, key: KeyView<'_>) -> bool {
        self.table.remove(key)
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`].
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.table.seal(sealed);
    }

    /// The table, for [scanning](KeyedTable::scan) and [relief](KeyedTable::relieve).
    pub fn table(&mut self) -> &mut B::Table<K, V> {
        &mut self.table
    }
}
