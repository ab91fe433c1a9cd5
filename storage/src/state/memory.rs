//! State in memory: a `hashbrown` table per state. The reference that every other backend is compared with.
//!
//! The stable hash of a key is also its hash here. The table places by the low bits and tags by the seven highest;
//! key groups come from the highest bits too, so that the keys of one subtask share a few of the tag's bits: with
//! eight subtasks four of seven remain, enough to make a false match one in sixteen.

use hashbrown::{HashTable, hash_table::Entry};

use rkyv::Archived;

use super::{KeyView, KeyedTable, Migration, Slice, StateBackend, StateError, StateId, StateName, fault};
use crate::{
    key::Key,
    log::seal::Sealed,
    record::{Record, restore, with_archived},
};

/// The backend that keeps all state in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    open: Vec<StateName>,
}

impl StateBackend for MemoryBackend {
    type Table<K: Key, V: Record> = MemoryTable<V>;

    fn open<K: Key, V: Record>(
        &mut self,
        name: StateName,
        _migrations: Vec<Migration<V>>,
    ) -> Result<StateId, StateError> {
        if self.open.contains(&name) {
            return Err(StateError::OpenTwice { operator: name.operator, state: name.state });
        }
        self.open.push(name);
        Ok(StateId(self.open.len() as u32 - 1))
    }

    fn restored(&self, _state: StateId) -> Vec<Slice> {
        Vec::new()
    }

    fn table<K: Key, V: Record>(&mut self, _state: StateId, _slice: Slice) -> MemoryTable<V> {
        MemoryTable::default()
    }
}

/// A table in memory. Narrow keys are their hashes and take no more room; wide keys keep their bytes.
#[derive(Clone, Debug)]
pub struct MemoryTable<V> {
    narrow: HashTable<(u64, V)>,
    wide: HashTable<Wide<V>>,
}

#[derive(Clone, Debug)]
struct Wide<V> {
    hash: u64,
    bytes: Box<[u8]>,
    value: V,
}

impl<V> Wide<V> {
    fn new(key: KeyView<'_>, value: V) -> Self {
        Self { hash: key.hash, bytes: key.bytes.into(), value }
    }

    #[inline(always)]
    fn is(&self, key: KeyView<'_>) -> bool {
        self.hash == key.hash && *self.bytes == *key.bytes
    }
}

impl<V> Default for MemoryTable<V> {
    fn default() -> Self {
        Self { narrow: HashTable::new(), wide: HashTable::new() }
    }
}

impl<V> MemoryTable<V> {
    #[inline(always)]
    fn narrow_entry(&mut self, hash: u64) -> Entry<'_, (u64, V)> {
        self.narrow.entry(hash, |entry| entry.0 == hash, |entry| entry.0)
    }

    #[inline(always)]
    fn wide_entry(&mut self, key: KeyView<'_>) -> Entry<'_, Wide<V>> {
        self.wide.entry(key.hash, |entry| entry.is(key), |entry| entry.hash)
    }
}

/// Whether the hash alone is the key. An empty string passes for narrow, too: no other key of its type has its hash
/// and no bytes.
#[inline(always)]
fn is_narrow(key: KeyView<'_>) -> bool {
    key.bytes.is_empty()
}

impl<K: Key, V: Record> KeyedTable<K, V> for MemoryTable<V> {
    fn len(&self) -> usize {
        self.narrow.len() + self.wide.len()
    }

    #[inline]
    fn read<R>(&mut self, key: KeyView<'_>, lend: impl FnOnce(&Archived<V>) -> R) -> Option<R> {
        let value = if is_narrow(key) {
            self.narrow.find(key.hash, |entry| entry.0 == key.hash).map(|entry| &entry.1)
        } else {
            self.wide.find(key.hash, |entry| entry.is(key)).map(|entry| &entry.value)
        };
        value.map(|value| with_archived(value, lend))
    }

    #[inline(always)]
    fn update<R>(
        &mut self,
        key: KeyView<'_>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        if is_narrow(key) {
            let entry = self.narrow_entry(key.hash).or_insert_with(|| (key.hash, create()));
            return update(&mut entry.into_mut().1);
        }
        let entry = self.wide_entry(key).or_insert_with(|| Wide::new(key, create()));
        update(&mut entry.into_mut().value)
    }

    fn put(&mut self, key: KeyView<'_>, value: &V) {
        let value = with_archived(value, |archived| restore::<V>(archived));
        if is_narrow(key) {
            self.narrow_entry(key.hash).insert((key.hash, value));
        } else {
            self.wide_entry(key).insert(Wide::new(key, value));
        }
    }

    fn remove(&mut self, key: KeyView<'_>) -> bool {
        if is_narrow(key) {
            return match self.narrow_entry(key.hash) {
                Entry::Occupied(entry) => {
                    entry.remove();
                    true
                }
                Entry::Vacant(_) => false,
            };
        }
        match self.wide_entry(key) {
            Entry::Occupied(entry) => {
                entry.remove();
                true
            }
            Entry::Vacant(_) => false,
        }
    }

    /// The cursor counts the buckets of both tables, the narrow one first.
    fn scan(
        &mut self,
        cursor: usize,
        mut visit: impl FnMut(KeyView<'_>, &Archived<V>) -> bool,
    ) -> Option<usize> {
        let (narrow, wide) = (self.narrow.num_buckets(), self.wide.num_buckets());
        for bucket in cursor..narrow {
            if let Some((hash, value)) = self.narrow.get_bucket(bucket)
                && !with_archived(value, |value| visit(KeyView { hash: *hash, bytes: &[] }, value))
            {
                return Some(bucket + 1);
            }
        }
        for bucket in cursor.max(narrow)..narrow + wide {
            if let Some(entry) = self.wide.get_bucket(bucket - narrow)
                && !with_archived(&entry.value, |value| {
                    visit(KeyView { hash: entry.hash, bytes: &entry.bytes }, value)
                })
            {
                return Some(bucket + 1);
            }
        }
        None
    }

    fn seal(&mut self, _sealed: &mut Sealed) {
        fault(StateError::NoSnapshots);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of numbers by strings: the key type matters to the interface alone.
    fn table() -> impl KeyedTable<String, u64> {
        let mut backend = MemoryBackend::default();
        let state = backend.open::<String, u64>(StateName::new("op", "state"), Vec::new()).unwrap();
        backend.table::<String, u64>(state, crate::state::WHOLE)
    }

    #[test]
    fn wide_keys_that_share_a_hash_are_kept_apart() {
        let key = |bytes| KeyView { hash: 42, bytes };
        let mut table = table();
        table.put(key(b"one"), &1);
        table.put(key(b"two"), &2);
        table.put(key(b"one"), &3);
        assert_eq!(table.update(key(b"two"), || 0, |value| std::mem::replace(value, 5)), 2);
        assert_eq!((table.get(key(b"one")), table.get(key(b"two"))), (Some(3), Some(5)));
        assert!(table.remove(key(b"one")));
        assert!(!table.remove(key(b"one")));
        assert_eq!((table.get(key(b"one")), table.len()), (None, 1));
    }

    #[test]
    fn a_scan_can_stop_anywhere_and_sees_every_key_once() {
        let mut table = table();
        for hash in 0..50_u64 {
            table.put(KeyView { hash: crate::key::hash_bits(hash), bytes: &[] }, &hash);
            table.put(KeyView { hash: crate::key::hash_bits(hash), bytes: b"wide" }, &(hash + 50));
        }
        let (mut seen, mut cursor) = (Vec::new(), Some(0));
        while let Some(from) = cursor {
            let mut left = 7;
            cursor = table.scan(from, |_, value| {
                seen.push(value.to_native());
                left -= 1;
                left > 0
            });
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<u64>>());
    }
}
