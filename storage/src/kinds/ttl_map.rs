//! [`TtlMapState`]: values by map keys, per key, each of which expires by itself.

use rkyv::Archived;

use crate::{
    key::Key,
    log::seal::Sealed,
    record::{Record, restore},
    state::{KeyView, Migration, StateBackend, StateError, StateName},
};

use super::{
    composite::split,
    map::{MapEntry, MapState},
    ttl::{Found, Noted, Quota, Stamped, TtlConfig, TtlStamp},
    ttl_value::{Once, renew},
};

/// Values by map keys, per key, with a time to live each. Times are milliseconds.
pub struct TtlMapState<K: Key, M: Key, V: Record, B: StateBackend> {
    map: MapState<K, M, Stamped<V>, B>,
    ttl: TtlConfig,
    cursor: usize,
    quota: Quota,
    noted: Noted,
}

impl<K: Key, M: Key, V: Record, B: StateBackend> TtlMapState<K, M, V, B> {
    /// Opens the state, with what was restored under its name.
    ///
    /// # Errors
    /// As [`StateBackend::open`]; a state that was stored without a time to live is another type.
    pub fn open(
        backend: &mut B,
        name: StateName,
        migrations: Vec<Migration<MapEntry<Stamped<V>>>>,
        ttl: TtlConfig,
    ) -> Result<Self, StateError> {
        let (mut map, noted) =
            (MapState::<K, M, Stamped<V>, B>::open(backend, name, migrations)?, Noted::new());
        let notes = noted.notes();
        map.watch_copies(move |composite, value| {
            if ttl.is_expired(value.1.at.to_native(), notes.now()) {
                notes.note(composite);
            }
        });
        Ok(Self { map, ttl, cursor: 0, quota: Quota::default(), noted })
    }

    /// Begins a use: removes some of what compaction has found expired.
    #[inline]
    fn begin(&mut self, now: i64) {
        let (map, ttl) = (&mut self.map, self.ttl);
        self.noted.at(now, |composite| {
            let Some((key, map_key)) = split(composite) else { return };
            let stamp = map.read_bytes(key, map_key, |value| value.1.at.to_native());
            if stamp.is_some_and(|stamp| ttl.is_expired(stamp, now)) {
                map.remove_bytes(key, map_key);
            }
        });
    }

    /// Number of keys that have entries, be they expired.
    pub fn keys(&self) -> usize {
        self.map.keys()
    }

    /// Number of entries of a key that are there, expired ones included.
    pub fn len(&mut self, key: KeyView<'_>) -> u32 {
        self.map.len(key)
    }

    /// Whether a key has no entry, not even an expired one.
    pub fn is_empty(&mut self, key: KeyView<'_>) -> bool {
        self.map.is_empty(key)
    }

    /// Lends the value of a map key, archived and in place.
    pub fn read<R>(
        &mut self,
        key: KeyView<'_>,
        map_key: &M,
        now: i64,
        lend: impl FnOnce(&Archived<V>) -> R,
    ) -> Option<R> {
        self.begin(now);
        let ttl = self.ttl;
        let (result, stamp) = self.map.read(key, map_key, |value| {
            let stamp = value.1.at.to_native();
            let shown = ttl.shows_expired() || !ttl.is_expired(stamp, now);
            (shown.then(|| lend(&value.0)), stamp)
        })?;
        self.after_read(key, map_key, stamp, now);
        result
    }

    /// Removes an entry that was found expired, renews another one if reading does.
    fn after_read(&mut self, key: KeyView<'_>, map_key: &M, stamp: i64, now: i64) {
        if self.ttl.is_expired(stamp, now) {
            self.map.remove(key, map_key);
        } else if self.ttl.renews_on_read() && stamp != now {
            let create = || unreachable!("an entry that was just read is there");
            self.map.update(key, map_key, create, |value| value.1.at = now);
        }
    }

    /// The value of a map key, copied.
    pub fn get(&mut self, key: KeyView<'_>, map_key: &M, now: i64) -> Option<V> {
        self.read(key, map_key, now, |value| restore::<V>(value))
    }

    /// Whether a map key has a value that is shown. Counts as a read.
    pub fn contains(&mut self, key: KeyView<'_>, map_key: &M, now: i64) -> bool {
        self.read(key, map_key, now, |_| ()).is_some()
    }

    /// Sets the value of a map key.
    pub fn put(&mut self, key: KeyView<'_>, map_key: &M, now: i64, value: V) {
        self.begin(now);
        self.map.put(key, map_key, (value, TtlStamp { at: now }));
    }

    /// Updates the value of a map key, in place if its size is fixed, after `create` where there is none or one that has
    /// expired and is not shown.
    pub fn update<R>(
        &mut self,
        key: KeyView<'_>,
        map_key: &M,
        now: i64,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        self.begin(now);
        let ttl = self.ttl;
        let create = Once::new(create);
        self.map.update(
            key,
            map_key,
            || (create.call(), TtlStamp { at: now }),
            |value| update(renew(value, ttl, now, &create)),
        )
    }

    /// Removes a map key; whether it had a value, be it expired.
    pub fn remove(&mut self, key: KeyView<'_>, map_key: &M) -> bool {
        self.map.remove(key, map_key)
    }

    /// Visits the entries of a key that are shown, in an arbitrary order. Values are lent in place.
    pub fn for_each(&mut self, key: KeyView<'_>, now: i64, mut visit: impl FnMut(M, &Archived<V>)) {
        self.begin(now);
        let ttl = self.ttl;
        let mut touched = Vec::new();
        self.map.for_each(key, |map_key, value| {
            let stamp = value.1.at.to_native();
            let expired = ttl.is_expired(stamp, now);
            if expired || (ttl.renews_on_read() && stamp != now) {
                touched.push((map_key.clone(), stamp));
            }
            if !expired || ttl.shows_expired() {
                visit(map_key, &value.0);
            }
        });
        for (map_key, stamp) in touched {
            self.after_read(key, &map_key, stamp, now);
        }
    }

    /// Removes all entries of a key; whether there were any, be they expired.
    pub fn clear(&mut self, key: KeyView<'_>) -> bool {
        self.map.clear(key)
    }

    /// Looks at `entries_max` entries more, or at twice as many as have come since the last call, and removes those that have expired;
    /// returns how many. Takes time by that.
    pub fn clean_up(&mut self, now: i64, entries_max: usize) -> usize {
        self.begin(now);
        if entries_max == 0 {
            return 0;
        }
        let ttl = self.ttl;
        let mut expired = Vec::<(Found, Box<[u8]>)>::new();
        let mut left = self.quota.of(entries_max, self.map.entries());
        let next = self.map.scan(self.cursor, |key, map_key, value| {
            if ttl.is_expired(value.1.at.to_native(), now) {
                expired.push((Found::new(key), map_key.into()));
            }
            left -= 1;
            left > 0
        });
        self.cursor = next.unwrap_or(0);
        for (key, map_key) in &expired {
            self.map.remove_bytes(key.key(), map_key);
        }
        self.quota.ends_at(self.map.entries());
        expired.len()
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`](crate::state::KeyedTable::seal).
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.map.seal(sealed);
    }

    /// Gives memory back if the backend's budget is used up.
    pub fn relieve(&mut self) {
        self.map.relieve();
    }
}
