//! State in memory: a `hashbrown` table per state. The reference that every other backend is compared with.
//!
//! The stable hash of a key is also its hash here. The table places by the low bits and tags by the seven highest;
//! key groups come from the highest bits too, so that the keys of one subtask share a few of the tag's bits: with
//! eight subtasks four of seven remain, enough to make a false match one in sixteen.

use hashbrown::{HashTable, hash_table::Entry};

use super::{KeyView, KeyedTable, StateBackend};
use crate::record::Record;

/// The backend that keeps all state in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryBackend;

impl StateBackend for MemoryBackend {
    type Table<V: Record> = MemoryTable<V>;

    fn table<V: Record>(&mut self) -> MemoryTable<V> {
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

impl<V: 'static> KeyedTable<V> for MemoryTable<V> {
    fn len(&self) -> usize {
        self.narrow.len() + self.wide.len()
    }

    #[inline]
    fn get(&self, key: KeyView<'_>) -> Option<&V> {
        if is_narrow(key) {
            return self.narrow.find(key.hash, |entry| entry.0 == key.hash).map(|entry| &entry.1);
        }
        self.wide.find(key.hash, |entry| entry.is(key)).map(|entry| &entry.value)
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

    fn put(&mut self, key: KeyView<'_>, value: V) -> Option<V> {
        if is_narrow(key) {
            return match self.narrow_entry(key.hash) {
                Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().1, value)),
                Entry::Vacant(entry) => {
                    entry.insert((key.hash, value));
                    None
                }
            };
        }
        match self.wide_entry(key) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().value, value)),
            Entry::Vacant(entry) => {
                entry.insert(Wide::new(key, value));
                None
            }
        }
    }

    fn remove(&mut self, key: KeyView<'_>) -> Option<V> {
        if is_narrow(key) {
            return match self.narrow_entry(key.hash) {
                Entry::Occupied(entry) => Some(entry.remove().0.1),
                Entry::Vacant(_) => None,
            };
        }
        match self.wide_entry(key) {
            Entry::Occupied(entry) => Some(entry.remove().0.value),
            Entry::Vacant(_) => None,
        }
    }

    /// The cursor counts the buckets of both tables, the narrow one first.
    fn scan(&self, cursor: usize, mut visit: impl FnMut(KeyView<'_>, &V) -> bool) -> Option<usize> {
        let (narrow, wide) = (self.narrow.num_buckets(), self.wide.num_buckets());
        for bucket in cursor..narrow {
            if let Some((hash, value)) = self.narrow.get_bucket(bucket)
                && !visit(KeyView { hash: *hash, bytes: &[] }, value)
            {
                return Some(bucket + 1);
            }
        }
        for bucket in cursor.max(narrow)..narrow + wide {
            if let Some(entry) = self.wide.get_bucket(bucket - narrow)
                && !visit(KeyView { hash: entry.hash, bytes: &entry.bytes }, &entry.value)
            {
                return Some(bucket + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_keys_that_share_a_hash_are_kept_apart() {
        let key = |bytes| KeyView { hash: 42, bytes };
        let mut table = MemoryTable::default();
        assert_eq!(table.put(key(b"one"), 1), None);
        assert_eq!(table.put(key(b"two"), 2), None);
        assert_eq!(table.put(key(b"one"), 3), Some(1));
        assert_eq!(table.update(key(b"two"), || 0, |value| std::mem::replace(value, 5)), 2);
        assert_eq!((table.get(key(b"one")), table.get(key(b"two"))), (Some(&3), Some(&5)));
        assert_eq!(table.remove(key(b"one")), Some(3));
        assert_eq!((table.get(key(b"one")), table.len()), (None, 1));
    }

    #[test]
    fn a_scan_can_stop_anywhere_and_sees_every_key_once() {
        let mut table = MemoryTable::default();
        for hash in 0..50_u64 {
            table.put(KeyView { hash: crate::key::hash_bits(hash), bytes: &[] }, hash);
            table.put(KeyView { hash: crate::key::hash_bits(hash), bytes: b"wide" }, hash + 50);
        }
        let (mut seen, mut cursor) = (Vec::new(), Some(0));
        while let Some(from) = cursor {
            let mut left = 7;
            cursor = table.scan(from, |_, value| {
                seen.push(*value);
                left -= 1;
                left > 0
            });
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<u64>>());
    }
}
