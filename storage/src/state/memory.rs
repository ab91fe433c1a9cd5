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

/// A table in memory. A narrow key is its hash, so its bytes are empty and take no allocation.
#[derive(Clone, Debug)]
pub struct MemoryTable<V> {
    entries: HashTable<Slot<V>>,
}

#[derive(Clone, Debug)]
struct Slot<V> {
    hash: u64,
    bytes: Box<[u8]>,
    value: V,
}

impl<V> Slot<V> {
    #[inline(always)]
    fn is(&self, key: KeyView<'_>) -> bool {
        // Narrow keys with one hash are equal. They must not reach `memcmp`: comparing no bytes at the dangling
        // address of an empty slice costs 150 ns where it is done by a masked load that faults.
        self.hash == key.hash
            && self.bytes.len() == key.bytes.len()
            && (key.bytes.is_empty() || *self.bytes == *key.bytes)
    }
}

impl<V> Default for MemoryTable<V> {
    fn default() -> Self {
        Self { entries: HashTable::new() }
    }
}

impl<V> MemoryTable<V> {
    #[inline(always)]
    fn entry(&mut self, key: KeyView<'_>) -> Entry<'_, Slot<V>> {
        self.entries.entry(key.hash, |slot| slot.is(key), |slot| slot.hash)
    }
}

impl<V: 'static> KeyedTable<V> for MemoryTable<V> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    fn get(&self, key: KeyView<'_>) -> Option<&V> {
        self.entries.find(key.hash, |slot| slot.is(key)).map(|slot| &slot.value)
    }

    #[inline(always)]
    fn update<R>(
        &mut self,
        key: KeyView<'_>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        let slot = self.entry(key).or_insert_with(|| Slot {
            hash: key.hash,
            bytes: key.bytes.into(),
            value: create(),
        });
        update(&mut slot.into_mut().value)
    }

    fn put(&mut self, key: KeyView<'_>, value: V) -> Option<V> {
        match self.entry(key) {
            Entry::Occupied(mut slot) => Some(std::mem::replace(&mut slot.get_mut().value, value)),
            Entry::Vacant(slot) => {
                slot.insert(Slot { hash: key.hash, bytes: key.bytes.into(), value });
                None
            }
        }
    }

    fn remove(&mut self, key: KeyView<'_>) -> Option<V> {
        match self.entry(key) {
            Entry::Occupied(slot) => Some(slot.remove().0.value),
            Entry::Vacant(_) => None,
        }
    }

    fn scan(&self, cursor: usize, mut visit: impl FnMut(KeyView<'_>, &V) -> bool) -> Option<usize> {
        for bucket in cursor..self.entries.num_buckets() {
            if let Some(slot) = self.entries.get_bucket(bucket)
                && !visit(KeyView { hash: slot.hash, bytes: &slot.bytes }, &slot.value)
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
        for hash in 0..100_u64 {
            table.put(KeyView { hash: crate::key::hash_bits(hash), bytes: &[] }, hash);
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
