//! [`TtlValueState`]: one value per key, which expires.

use std::{cell::Cell, rc::Rc};

use rkyv::Archived;

use crate::{
    key::Key,
    log::seal::Sealed,
    record::{Record, restore},
    state::{KeyView, KeyedTable, Migration, StateBackend, StateError, StateName, WHOLE},
};

use super::ttl::{Cleanup, Stamped, TtlConfig, TtlStamp, clean_table};

/// One value per key, with a time to live. Times are milliseconds.
///
/// ```
/// use tidemill_storage::{
///     key::Key,
///     kinds::{ttl::TtlConfig, ttl_value::TtlValueState},
///     state::{KeyView, StateName, memory::MemoryBackend},
/// };
///
/// let mut backend = MemoryBackend::default();
/// let name = StateName::new("login", "token");
/// let ttl = TtlConfig::new(60_000);
/// let mut tokens = TtlValueState::<u32, u64, _>::open(&mut backend, name, Vec::new(), ttl)?;
/// let user = KeyView { hash: 7_u32.key_hash(&mut Vec::new()), bytes: &[] };
/// tokens.set(user, 1_000, 42);
/// assert_eq!(tokens.get(user, 60_999), Some(42));
/// assert_eq!(tokens.get(user, 61_000), None);
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
pub struct TtlValueState<K: Key, V: Record, B: StateBackend> {
    table: B::Table<K, Stamped<V>>,
    ttl: TtlConfig,
    cleanup: Cleanup,
    /// The time of the last use, by which compaction forgets. It does so within a use only, and must not forget
    /// what that use has just found alive: so it is the use's own time, even if time runs back.
    now: Rc<Cell<i64>>,
}

impl<K: Key, V: Record, B: StateBackend> TtlValueState<K, V, B> {
    /// Opens the state, with what was restored under its name.
    ///
    /// # Errors
    /// As [`StateBackend::open`]; a state that was stored without a time to live is another type.
    pub fn open(
        backend: &mut B,
        name: StateName,
        migrations: Vec<Migration<Stamped<V>>>,
        ttl: TtlConfig,
    ) -> Result<Self, StateError> {
        let state = backend.open::<K, Stamped<V>>(name, migrations)?;
        let mut table = backend.table::<K, Stamped<V>>(state, WHOLE);
        let now = Rc::new(Cell::new(i64::MIN));
        let clock = Rc::clone(&now);
        table.expire_with(Box::new(move |_, value| ttl.is_expired(value.1.at.to_native(), clock.get())));
        Ok(Self { table, ttl, cleanup: Cleanup::default(), now })
    }

    /// Number of keys that have a value, expired ones that are still there included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no key has a value, not even an expired one.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Lends the value of a key, archived and in place.
    pub fn read<R>(&mut self, key: KeyView<'_>, now: i64, lend: impl FnOnce(&Archived<V>) -> R) -> Option<R> {
        self.now.set(now);
        let ttl = self.ttl;
        let (result, stamp) = self.table.read(key, |value| {
            let stamp = value.1.at.to_native();
            let shown = ttl.shows_expired() || !ttl.is_expired(stamp, now);
            (shown.then(|| lend(&value.0)), stamp)
        })?;
        if ttl.is_expired(stamp, now) {
            self.table.remove(key);
        } else if ttl.renews_on_read() && stamp != now {
            let create = || unreachable!("a value that was just read is there");
            self.table.update(key, create, |value| value.1.at = now);
        }
        result
    }

    /// The value of a key, copied.
    pub fn get(&mut self, key: KeyView<'_>, now: i64) -> Option<V> {
        self.read(key, now, |value| restore::<V>(value))
    }

    /// Whether a key has a value that is shown. Counts as a read.
    pub fn contains(&mut self, key: KeyView<'_>, now: i64) -> bool {
        self.read(key, now, |_| ()).is_some()
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: KeyView<'_>, now: i64, value: V) {
        self.now.set(now);
        self.table.put(key, &(value, TtlStamp { at: now }));
    }

    /// Updates the value of a key, in place if its size is fixed, after `create` where there is none or one that has
    /// expired and is not shown.
    pub fn update<R>(
        &mut self,
        key: KeyView<'_>,
        now: i64,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        self.now.set(now);
        let ttl = self.ttl;
        let create = Once::new(create);
        self.table.update(
            key,
            || (create.call(), TtlStamp { at: now }),
            |value| update(renew(value, ttl, now, &create)),
        )
    }

    /// Removes the value of a key; whether there was one, be it expired.
    pub fn clear(&mut self, key: KeyView<'_>) -> bool {
        self.table.remove(key)
    }

    /// Looks at `keys_max` keys more, or at twice as many as have come since the last call, and removes those that have expired;
    /// returns how many. Takes time by that.
    pub fn clean_up(&mut self, now: i64, keys_max: usize) -> usize {
        self.now.set(now);
        clean_table::<K, V, _>(&mut self.cleanup, &mut self.table, self.ttl, now, keys_max)
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`].
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.table.seal(sealed);
    }

    /// The table, for [scanning](KeyedTable::scan) and [relief](KeyedTable::relieve).
    pub fn table(&mut self) -> &mut B::Table<K, Stamped<V>> {
        &mut self.table
    }
}

/// A function that is called at most once, from one of two places.
pub(super) struct Once<F>(Cell<Option<F>>);

impl<V, F: FnOnce() -> V> Once<F> {
    pub(super) fn new(function: F) -> Self {
        Self(Cell::new(Some(function)))
    }

    pub(super) fn call(&self) -> V {
        match self.0.take() {
            Some(function) => function(),
            None => unreachable!("what was just created has not expired"),
        }
    }
}

/// Stamps a value for a write, after creating it anew if it has expired and is not shown.
#[inline]
pub(super) fn renew<'v, V>(
    value: &'v mut Stamped<V>,
    ttl: TtlConfig,
    now: i64,
    create: &Once<impl FnOnce() -> V>,
) -> &'v mut V {
    if !ttl.shows_expired() && ttl.is_expired(value.1.at, now) {
        value.0 = create.call();
    }
    value.1.at = now;
    &mut value.0
}
