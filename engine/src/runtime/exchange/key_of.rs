//! How the key of a record is found: by a function that gives it, by one that borrows it from the record, or in a
//! value that knows it.

use std::marker::PhantomData;

use tidemill_storage::{
    key::{Key, KeyRef, hash_bytes},
    record::Record,
};

use super::batch::RecordKey;
use crate::model::item::Keyed;

/// Finds the keys of records seen as `V`. One instance per subtask.
pub trait KeyOf<V: ?Sized>: Clone + Send + 'static {
    /// The type of the keys.
    type Key: Key;
    /// Whether keys are wide: what [`key_of`](Self::key_of) gives is [`RecordKey::Wide`] then, else [`RecordKey::Narrow`].
    const WIDE: bool = !Self::Key::WIDTH.is_narrow();

    /// The key of one record.
    fn key_of<'a>(&'a mut self, view: &'a V) -> RecordKey<'a>;
}

/// The key that a function gives.
pub struct Extracted<K, F> {
    extract: F,
    scratch: Vec<u8>,
    key: PhantomData<fn() -> K>,
}

impl<K, F> Extracted<K, F> {
    /// With this function.
    pub fn new(extract: F) -> Self {
        Self { extract, scratch: Vec::new(), key: PhantomData }
    }
}

impl<K, F: Clone> Clone for Extracted<K, F> {
    fn clone(&self) -> Self {
        Self::new(self.extract.clone())
    }
}

impl<V: ?Sized, K: Key, F: FnMut(&V) -> K + Clone + Send + 'static> KeyOf<V> for Extracted<K, F> {
    type Key = K;

    #[inline(always)]
    fn key_of<'a>(&'a mut self, view: &'a V) -> RecordKey<'a> {
        let key = (self.extract)(view);
        if K::WIDTH.is_narrow() {
            return RecordKey::Narrow(key.key_hash(&mut self.scratch));
        }
        self.scratch.clear();
        key.encode(&mut self.scratch);
        RecordKey::Wide(hash_bytes(&self.scratch), &self.scratch)
    }
}

/// The key that a function borrows from the record: no allocation per record.
pub struct Borrowed<Q: ?Sized, F> {
    extract: F,
    scratch: Vec<u8>,
    key: PhantomData<fn(&Q)>,
}

impl<Q: ?Sized, F> Borrowed<Q, F> {
    /// With this function.
    pub fn new(extract: F) -> Self {
        Self { extract, scratch: Vec::new(), key: PhantomData }
    }
}

impl<Q: ?Sized, F: Clone> Clone for Borrowed<Q, F> {
    fn clone(&self) -> Self {
        Self::new(self.extract.clone())
    }
}

impl<V, Q, F> KeyOf<V> for Borrowed<Q, F>
where
    V: ?Sized,
    Q: KeyRef + ?Sized + 'static,
    F: FnMut(&V) -> &Q + Clone + Send + 'static,
{
    type Key = Q::Owned;

    #[inline(always)]
    fn key_of<'a>(&'a mut self, view: &'a V) -> RecordKey<'a> {
        let key = (self.extract)(view);
        if <Q::Owned as Key>::WIDTH.is_narrow() {
            return RecordKey::Narrow(key.key_hash_ref(&mut self.scratch));
        }
        self.scratch.clear();
        key.encode_ref(&mut self.scratch);
        RecordKey::Wide(hash_bytes(&self.scratch), &self.scratch)
    }
}

/// The key `K` that a [`Keyed`] value knows.
pub struct Known<K>(PhantomData<fn() -> K>);

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<K> Clone for Known<K> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<K: Key, T: Record> KeyOf<Keyed<T>> for Known<K> {
    type Key = K;

    #[inline(always)]
    fn key_of<'a>(&'a mut self, view: &'a Keyed<T>) -> RecordKey<'a> {
        if K::WIDTH.is_narrow() {
            return RecordKey::Narrow(view.hash);
        }
        RecordKey::Wide(view.hash, &view.key)
    }
}
