//! [`MapState`]: values by map keys, per key.
//!
//! State: per (key, map key) the value and its position among the key's entries; per (key, position) the map key; per key
//! the number of entries. Positions are dense: a removed entry's is taken by the last one. So everything is O(1), and
//! iterating takes one look-up more per entry than reading it.

use rkyv::Archived;

use crate::{
    Record,
    key::Key,
    log::seal::Sealed,
    record::{Record as IsRecord, RecordError, restore},
    state::{KeyView, KeyedTable, Migration, StateBackend, StateError, StateName, WHOLE, fault},
};

use super::composite::{CompositeBuffer, Within, split};

/// Where an entry stands among those of its key. Stored.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[record(crate = crate)]
pub struct MapPosition {
    /// From 0, without gaps.
    pub position: u32,
}

/// What is stored per entry.
pub type MapEntry<V> = (V, MapPosition);

/// Values by map keys, per key.
///
/// ```
/// use tidemill_storage::{
///     key::Key,
///     kinds::map::MapState,
///     state::{KeyView, StateName, memory::MemoryBackend},
/// };
///
/// let mut backend = MemoryBackend::default();
/// let name = StateName::new("stock", "by-shelf");
/// let mut stock = MapState::<u32, String, i64, _>::open(&mut backend, name, Vec::new())?;
/// let item = KeyView { hash: 7_u32.key_hash(&mut Vec::new()), bytes: &[] };
/// stock.put(item, &"A4".to_owned(), 12);
/// stock.update(item, &"B1".to_owned(), || 0, |pieces| *pieces += 3);
/// let mut pieces = 0;
/// stock.for_each(item, |_shelf, on_shelf| pieces += on_shelf.to_native());
/// assert_eq!((pieces, stock.len(item)), (15, 2));
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
pub struct MapState<K: Key, M: Key, V: IsRecord, B: StateBackend> {
    entries: B::Table<Within<K, M>, MapEntry<V>>,
    members: B::Table<Within<K, u32>, Vec<u8>>,
    counts: B::Table<K, u32>,
    composite: CompositeBuffer,
    scratch: Vec<u8>,
}

impl<K: Key, M: Key, V: IsRecord, B: StateBackend> MapState<K, M, V, B> {
    /// Opens the state, with what was restored under its name.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open(
        backend: &mut B,
        name: StateName,
        migrations: Vec<Migration<MapEntry<V>>>,
    ) -> Result<Self, StateError> {
        let of = |what| StateName::new(name.operator.as_str(), format!("{}/{what}", name.state));
        let (members, counts) = (of("members"), of("counts"));
        let entries = backend.open::<Within<K, M>, MapEntry<V>>(name, migrations)?;
        let members = backend.open::<Within<K, u32>, Vec<u8>>(members, Vec::new())?;
        let counts = backend.open::<K, u32>(counts, Vec::new())?;
        Ok(Self {
            entries: backend.table(entries, WHOLE),
            members: backend.table(members, WHOLE),
            counts: backend.table(counts, WHOLE),
            composite: CompositeBuffer::default(),
            scratch: Vec::new(),
        })
    }

    /// Number of keys that have entries.
    pub fn keys(&self) -> usize {
        self.counts.len()
    }

    /// Number of entries of all keys.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Number of entries of a key.
    pub fn len(&mut self, key: KeyView<'_>) -> u32 {
        self.counts.read(key, |count| count.to_native()).unwrap_or(0)
    }

    /// Whether a key has no entry.
    pub fn is_empty(&mut self, key: KeyView<'_>) -> bool {
        !self.counts.contains(key)
    }

    /// Lends the value of a map key, archived and in place.
    pub fn read<R>(
        &mut self,
        key: KeyView<'_>,
        map_key: &M,
        lend: impl FnOnce(&Archived<V>) -> R,
    ) -> Option<R> {
        let at = self.composite.with(key, |out| map_key.encode(out));
        self.entries.read(at, |entry| lend(&entry.0))
    }

    /// As [`read`](Self::read), for the canonical bytes of a map key.
    pub(super) fn read_bytes<R>(
        &mut self,
        key: KeyView<'_>,
        map_key: &[u8],
        lend: impl FnOnce(&Archived<V>) -> R,
    ) -> Option<R> {
        let at = self.composite.with(key, |out| out.extend_from_slice(map_key));
        self.entries.read(at, |entry| lend(&entry.0))
    }

    /// The value of a map key, copied.
    pub fn get(&mut self, key: KeyView<'_>, map_key: &M) -> Option<V> {
        self.read(key, map_key, |value| restore::<V>(value))
    }

    /// Whether a map key has a value.
    pub fn contains(&mut self, key: KeyView<'_>, map_key: &M) -> bool {
        self.read(key, map_key, |_| ()).is_some()
    }

    /// Sets the value of a map key; whether it had one.
    pub fn put(&mut self, key: KeyView<'_>, map_key: &M, value: V) -> bool {
        let at = self.composite.with(key, |out| map_key.encode(out));
        let before = self.entries.read(at, |entry| entry.1.position.to_native());
        let position = before.unwrap_or_else(|| next_position(&mut self.counts, key));
        self.entries.put(at, &(value, MapPosition { position }));
        if before.is_none() {
            self.put_member(key, map_key, position);
        }
        before.is_some()
    }

    /// Updates the value of a map key, in place if its size is fixed, after `create` where there is none.
    pub fn update<R>(
        &mut self,
        key: KeyView<'_>,
        map_key: &M,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        let at = self.composite.with(key, |out| map_key.encode(out));
        let counts = &mut self.counts;
        let mut created = None;
        let create = || {
            let position = next_position(counts, key);
            created = Some(position);
            (create(), MapPosition { position })
        };
        let result = self.entries.update(at, create, |entry| update(&mut entry.0));
        if let Some(position) = created {
            self.put_member(key, map_key, position);
        }
        result
    }

    fn put_member(&mut self, key: KeyView<'_>, map_key: &M, position: u32) {
        self.scratch.clear();
        map_key.encode(&mut self.scratch);
        self.members.put(self.composite.with_number(key, position), &self.scratch);
    }

    /// Removes a map key; whether it had a value.
    pub fn remove(&mut self, key: KeyView<'_>, map_key: &M) -> bool {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        map_key.encode(&mut bytes);
        let removed = self.remove_bytes(key, &bytes);
        self.scratch = bytes;
        removed
    }

    /// Removes the map key of these canonical bytes, as [`scan`](Self::scan) shows them; whether it had a value.
    pub fn remove_bytes(&mut self, key: KeyView<'_>, map_key: &[u8]) -> bool {
        let at = self.composite.with(key, |out| out.extend_from_slice(map_key));
        let Some(position) = self.entries.read(at, |entry| entry.1.position.to_native()) else {
            return false;
        };
        self.entries.remove(at);
        let last = self.counts.update(
            key,
            || 1,
            |count| {
                *count = count.saturating_sub(1);
                *count
            },
        );
        if last == 0 {
            self.counts.remove(key);
        }
        if position != last {
            let moved = self.member(key, last);
            self.members.put(self.composite.with_number(key, position), &moved);
            let at = self.composite.with(key, |out| out.extend_from_slice(&moved));
            self.entries.update(at, || fault(broken::<M>(last).into()), |entry| entry.1.position = position);
        }
        self.members.remove(self.composite.with_number(key, last))
    }

    /// The map key's bytes at a position that is taken.
    fn member(&mut self, key: KeyView<'_>, position: u32) -> Vec<u8> {
        match self.members.get(self.composite.with_number(key, position)) {
            Some(member) => member,
            None => fault(broken::<M>(position).into()),
        }
    }

    /// Visits the entries of a key until `visit` returns false; whether it never did. Values are lent in place; the order is
    /// arbitrary, and the same as long as nothing is removed.
    pub fn visit(&mut self, key: KeyView<'_>, mut visit: impl FnMut(M, &Archived<V>) -> bool) -> bool {
        for position in 0..self.len(key) {
            let bytes = self.member(key, position);
            let map_key = match M::decode(&bytes) {
                Ok(map_key) => map_key,
                Err(error) => fault(invalid::<M>(error).into()),
            };
            let at = self.composite.with(key, |out| out.extend_from_slice(&bytes));
            match self.entries.read(at, |entry| visit(map_key, &entry.0)) {
                Some(true) => {}
                Some(false) => return false,
                None => fault(broken::<M>(position).into()),
            }
        }
        true
    }

    /// Visits all entries of a key, as [`visit`](Self::visit).
    pub fn for_each(&mut self, key: KeyView<'_>, mut visit: impl FnMut(M, &Archived<V>)) {
        self.visit(key, |map_key, value| {
            visit(map_key, value);
            true
        });
    }

    /// Removes all entries of a key; whether there were any. Takes time by their number.
    pub fn clear(&mut self, key: KeyView<'_>) -> bool {
        let len = self.len(key);
        for position in 0..len {
            let bytes = self.member(key, position);
            self.members.remove(self.composite.with_number(key, position));
            self.entries.remove(self.composite.with(key, |out| out.extend_from_slice(&bytes)));
        }
        self.counts.remove(key)
    }

    /// Visits the entries of all keys, as [`KeyedTable::scan`] does: `visit` gets the key, the map key's bytes and the
    /// value.
    pub fn scan(
        &mut self,
        cursor: usize,
        mut visit: impl FnMut(KeyView<'_>, &[u8], &Archived<V>) -> bool,
    ) -> Option<usize> {
        self.entries.scan(cursor, |composite, entry| match split(composite) {
            Some((key, map_key)) => visit(key, map_key, &entry.0),
            None => fault(broken::<M>(entry.1.position.to_native()).into()),
        })
    }

    /// Has the backend show entries that it would have to copy, under their composite keys. None may go by itself.
    pub(super) fn watch_copies(&mut self, seen: impl Fn(KeyView<'_>, &Archived<V>) + 'static) {
        self.entries.expire_with(Box::new(move |composite, entry| {
            seen(composite, &entry.0);
            false
        }));
    }

    /// Hands over what changed since the last seal, as [`KeyedTable::seal`].
    pub fn seal(&mut self, sealed: &mut Sealed) {
        self.entries.seal(sealed);
        self.members.seal(sealed);
        self.counts.seal(sealed);
    }

    /// Gives memory back if the backend's budget is used up, as [`KeyedTable::relieve`].
    pub fn relieve(&mut self) {
        self.entries.relieve();
        self.members.relieve();
        self.counts.relieve();
    }
}

/// Counts one entry more; where it is to stand.
fn next_position<K: Key>(counts: &mut impl KeyedTable<K, u32>, key: KeyView<'_>) -> u32 {
    counts.update(
        key,
        || 0,
        |count| {
            assert!(*count < u32::MAX, "a map has at most 2^32 - 1 entries per key");
            *count += 1;
            *count - 1
        },
    )
}

/// What to say of a map whose tables do not fit each other.
#[cold]
fn broken<M: Key>(position: u32) -> RecordError {
    #[derive(Debug, thiserror::Error)]
    #[error("entry {position} of the map is not there; restore from an older snapshot")]
    struct Broken {
        position: u32,
    }
    invalid::<M>(Broken { position })
}

#[cold]
fn invalid<M: Key>(error: impl std::error::Error + Send + Sync + 'static) -> RecordError {
    let record = format!("map entry by `{}`", M::stored_name()).into();
    RecordError::Invalid { record, source: rkyv::rancor::Source::new(error) }
}
