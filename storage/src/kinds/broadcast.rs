//! [`BroadcastState`]: a map that is the same on every subtask, because all get the same records and each keeps its own copy.
//!
//! Not keyed: it is small, in memory, and becomes one blob of a snapshot per subtask, any of which serves after a
//! restore. In the order of the map keys' bytes, so that the same contents are the same bytes everywhere.

use std::{collections::BTreeMap, marker::PhantomData};

use crate::{
    key::Key,
    record::{Record, RecordError},
    state::{StateError, StateName},
};

use super::blob::{self, BlobTypes};

const KIND: &str = "broadcast";

/// A map that is the same on every subtask.
///
/// ```
/// use tidemill_storage::{kinds::broadcast::BroadcastState, state::StateName};
///
/// let mut limits = BroadcastState::<String, u64>::default();
/// limits.put(&"withdrawal".to_owned(), 500);
/// let view = limits.read_only();
/// assert_eq!(view.get(&"withdrawal".to_owned()), Some(&500));
///
/// let name = StateName::new("fraud", "limits");
/// let restored = BroadcastState::<String, u64>::from_bytes(&name, &limits.to_bytes()?)?;
/// assert_eq!(restored.len(), 1);
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BroadcastState<M, V> {
    /// By the map keys' canonical bytes.
    entries: BTreeMap<Vec<u8>, V>,
    keys: PhantomData<fn() -> M>,
}

impl<M, V> Default for BroadcastState<M, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), keys: PhantomData }
    }
}

impl<M: Key, V: Record> BroadcastState<M, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a map key.
    pub fn get(&self, map_key: &M) -> Option<&V> {
        self.entries.get(map_key.key_bytes(&mut Vec::new()))
    }

    /// Whether a map key has a value.
    pub fn contains(&self, map_key: &M) -> bool {
        self.get(map_key).is_some()
    }

    /// Sets the value of a map key and returns the one before.
    pub fn put(&mut self, map_key: &M, value: V) -> Option<V> {
        let mut bytes = Vec::new();
        map_key.encode(&mut bytes);
        self.entries.insert(bytes, value)
    }

    /// Removes a map key and returns its value.
    pub fn remove(&mut self, map_key: &M) -> Option<V> {
        self.entries.remove(map_key.key_bytes(&mut Vec::new()))
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// All entries, in the order of the map keys' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (M, &V)> {
        // Only bytes of map keys get in: by `put`, or checked by `from_bytes`.
        self.entries.iter().filter_map(|(bytes, value)| Some((M::decode(bytes).ok()?, value)))
    }

    /// What the keyed side may do with it.
    pub fn read_only(&self) -> ReadOnlyBroadcast<'_, M, V> {
        ReadOnlyBroadcast(self)
    }

    /// The blob of a snapshot.
    ///
    /// # Errors
    /// When a value cannot be archived or is too long.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        let keys = M::stored_name();
        let entries = self.entries.iter().map(|(key, value)| (&**key, value));
        blob::write(BlobTypes { kind: KIND, keys: &keys }, entries)
    }

    /// What [`to_bytes`](Self::to_bytes) has written, on this or any other subtask.
    ///
    /// # Errors
    /// When it was written with other types, or is damaged or of a newer version.
    pub fn from_bytes(name: &StateName, bytes: &[u8]) -> Result<Self, StateError> {
        let keys = M::stored_name();
        let entries = blob::read::<V>(name, BlobTypes { kind: KIND, keys: &keys }, bytes)?;
        for (key, _) in &entries {
            M::decode(key).map_err(|error| RecordError::Invalid {
                record: format!("key of state `{}` of operator `{}`", name.state, name.operator).into(),
                source: rkyv::rancor::Source::new(error),
            })?;
        }
        Ok(Self { entries: entries.into_iter().collect(), keys: PhantomData })
    }
}

/// Broadcast state as the keyed side sees it: only what all subtasks get alike may change it.
#[derive(Clone, Copy, Debug)]
pub struct ReadOnlyBroadcast<'a, M, V>(&'a BroadcastState<M, V>);

impl<'a, M: Key, V: Record> ReadOnlyBroadcast<'a, M, V> {
    /// The value of a map key.
    pub fn get(&self, map_key: &M) -> Option<&'a V> {
        self.0.get(map_key)
    }

    /// Whether a map key has a value.
    pub fn contains(&self, map_key: &M) -> bool {
        self.0.contains(map_key)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All entries, in the order of the map keys' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (M, &'a V)> + use<'a, M, V> {
        self.0.iter()
    }
}

/// Which of the blobs of the subtasks before serves `subtask` now. All are the same; this way they are read evenly.
///
/// # Panics
/// When there was no subtask before.
pub fn blob_for(subtask: u32, blobs: usize) -> usize {
    assert!(blobs > 0, "broadcast state is restored from at least one subtask");
    subtask as usize % blobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_state_is_a_map_and_comes_back() {
        let mut state = BroadcastState::<String, (u32, String)>::default();
        let key = |text: &str| text.to_owned();
        assert_eq!(state.put(&key("b"), (1, "one".into())), None);
        assert_eq!(state.put(&key("a"), (2, "two".into())), None);
        assert_eq!(state.put(&key("b"), (3, "three".into())), Some((1, "one".into())));
        assert_eq!(state.remove(&key("c")), None);
        let name = StateName::new("op", "state");
        let restored = BroadcastState::from_bytes(&name, &state.to_bytes().unwrap()).unwrap();
        let entries: Vec<(String, &(u32, String))> = restored.read_only().iter().collect();
        assert_eq!(entries, [(key("a"), &(2, "two".into())), (key("b"), &(3, "three".into()))]);
        let other = BroadcastState::<String, u64>::from_bytes(&name, &state.to_bytes().unwrap());
        assert!(other.unwrap_err().to_string().contains("`(u32, String)`"));
        state.clear();
        assert!(state.is_empty() && !restored.is_empty() && restored.contains(&key("a")));
    }

    #[test]
    fn bytes_that_are_no_map_keys_are_refused() {
        let types = BlobTypes { kind: KIND, keys: "u32" };
        let entries: [(&[u8], &u8); 1] = [(b"abc", &1)];
        let bytes = blob::write(types, entries.into_iter()).unwrap();
        assert!(BroadcastState::<u32, u8>::from_bytes(&StateName::new("op", "state"), &bytes).is_err());
    }

    #[test]
    fn every_subtask_finds_a_blob() {
        assert_eq!((0..5).map(|subtask| blob_for(subtask, 2)).collect::<Vec<_>>(), [0, 1, 0, 1, 0]);
    }
}
