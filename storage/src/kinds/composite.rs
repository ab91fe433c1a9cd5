//! Composite keys: how entries of one key (a list's page, a map's entry, a timer) are keys of a table of their own.
//!
//! Both halves of this layout are stored and therefore **frozen**; golden tests guard it.
//!
//! **Bytes.** Self-delimiting, so that no two pairs of key and suffix share them:
//!
//! | bytes | |
//! |---|---|
//! | 2 | length `n` of the key's bytes, big-endian |
//! | `n`, or 8 if `n` is 0 | the key's bytes; a key without bytes is its hash, big-endian |
//! | rest | the suffix |
//!
//! **Hash.** The hash of the key, its lower 32 bits exclusive-or those of the suffix's [`hash_bytes`]. The upper half
//! decides the key group and stays, so that entries move with their key; the lower half spreads the entries
//! of one key over the index. The key's own hash is found again by the same exclusive-or.

use std::{borrow::Cow, marker::PhantomData, ops::Range};

use crate::{
    key::{Key, KeyError, Width, hash_bits, hash_bytes},
    state::{KeyColumn, KeyView, StateError, fault},
};

/// Longest key that can have entries of its own, in bytes.
pub const OWNER_BYTES_MAX: usize = u16::MAX as usize;

const LEN_BYTES: usize = size_of::<u16>();
const HASH_BYTES: usize = size_of::<u64>();

/// What the hash of a composite key differs from its key's by.
#[inline]
fn spread(suffix: &[u8]) -> u64 {
    hash_bytes(suffix) & u64::from(u32::MAX)
}

/// Appends the bytes of a composite key; `suffix` appends its own. Returns the hash.
///
/// # Panics
/// Unwinds with [`StateError::TooLong`] when the key has more than [`OWNER_BYTES_MAX`] bytes.
#[inline]
fn write(out: &mut Vec<u8>, key: KeyView<'_>, suffix: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let Ok(len) = u16::try_from(key.bytes.len()) else {
        fault(StateError::TooLong {
            what: "key",
            bytes: key.bytes.len() as u64,
            bytes_max: OWNER_BYTES_MAX as u64,
        })
    };
    out.extend_from_slice(&len.to_be_bytes());
    if len == 0 {
        out.extend_from_slice(&key.hash.to_be_bytes());
    } else {
        out.extend_from_slice(key.bytes);
    }
    let at = out.len();
    suffix(out);
    key.hash ^ spread(&out[at..])
}

/// Takes a composite key apart into the key and the suffix; `None` if it is none.
#[inline]
pub fn split(composite: KeyView<'_>) -> Option<(KeyView<'_>, &[u8])> {
    let (len, rest) = composite.bytes.split_first_chunk::<LEN_BYTES>()?;
    match usize::from(u16::from_be_bytes(*len)) {
        0 => {
            let (hash, suffix) = rest.split_first_chunk::<HASH_BYTES>()?;
            Some((KeyView { hash: u64::from_be_bytes(*hash), bytes: &[] }, suffix))
        }
        len => {
            let (bytes, suffix) = rest.split_at_checked(len)?;
            Some((KeyView { hash: composite.hash ^ spread(suffix), bytes }, suffix))
        }
    }
}

/// A buffer in which composite keys are made, one at a time.
#[derive(Clone, Debug, Default)]
pub struct CompositeBuffer {
    bytes: Vec<u8>,
}

impl CompositeBuffer {
    /// `key` with the suffix that `suffix` appends.
    ///
    /// # Panics
    /// Unwinds with [`StateError::TooLong`] when the key has more than [`OWNER_BYTES_MAX`] bytes.
    #[inline]
    pub fn with(&mut self, key: KeyView<'_>, suffix: impl FnOnce(&mut Vec<u8>)) -> KeyView<'_> {
        self.bytes.clear();
        let hash = write(&mut self.bytes, key, suffix);
        KeyView { hash, bytes: &self.bytes }
    }

    /// `key` with a number, big-endian.
    ///
    /// # Panics
    /// As [`with`](Self::with).
    #[inline]
    pub fn with_number(&mut self, key: KeyView<'_>, number: u32) -> KeyView<'_> {
        self.with(key, |out| out.extend_from_slice(&number.to_be_bytes()))
    }
}

/// The composite keys of consecutive records.
#[derive(Clone, Debug, Default)]
pub struct CompositeColumn {
    bytes: Vec<u8>,
    /// Hash and end of each key's bytes.
    keys: Vec<(u64, usize)>,
}

impl CompositeColumn {
    /// Forgets all keys.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
    }

    /// Appends `key` with a number, big-endian.
    ///
    /// # Panics
    /// As [`CompositeBuffer::with`].
    #[inline]
    pub fn push_number(&mut self, key: KeyView<'_>, number: u32) {
        let hash = write(&mut self.bytes, key, |out| out.extend_from_slice(&number.to_be_bytes()));
        self.keys.push((hash, self.bytes.len()));
    }

    /// The places of all keys.
    pub fn range(&self) -> Range<usize> {
        0..self.keys.len()
    }
}

impl KeyColumn for CompositeColumn {
    #[inline]
    fn key(&self, i: usize) -> KeyView<'_> {
        let from = if i == 0 { 0 } else { self.keys[i - 1].1 };
        let (hash, end) = self.keys[i];
        KeyView { hash, bytes: &self.bytes[from..end] }
    }

    #[inline]
    fn hash(&self, i: usize) -> u64 {
        self.keys[i].0
    }
}

/// The key type of a table of entries: a key `K` with a suffix `S`.
///
/// Tables are given [`KeyView`]s made by a [`CompositeBuffer`]; this type says to the backend what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Within<K, S> {
    bytes: Vec<u8>,
    types: PhantomData<fn() -> (K, S)>,
}

impl<K: Key, S: Key> Within<K, S> {
    /// `suffix` within `key`.
    ///
    /// # Panics
    /// As [`CompositeBuffer::with`].
    pub fn new(key: &K, suffix: &S) -> Self {
        let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
        let hash = key.key_hash(&mut scratch);
        let own = if K::WIDTH.is_narrow() { &[] } else { key.key_bytes(&mut scratch) };
        write(&mut bytes, KeyView { hash, bytes: own }, |out| suffix.encode(out));
        Self { bytes, types: PhantomData }
    }

    /// The key and the suffix.
    ///
    /// # Errors
    /// When the bytes were read back and are no such key.
    pub fn parts(&self) -> Result<(K, S), KeyError> {
        let invalid = KeyError::Invalid { key: std::any::type_name::<Self>() };
        let (key, suffix) = split(KeyView { hash: 0, bytes: &self.bytes }).ok_or(invalid)?;
        let key = match K::of_hash(key.hash) {
            Some(key) => key,
            None => K::decode(key.bytes)?,
        };
        Ok((key, S::decode(suffix)?))
    }
}

impl<K: Key, S: Key> Key for Within<K, S> {
    const WIDTH: Width = Width::Wide;

    fn stored_name() -> Cow<'static, str> {
        Cow::Owned(format!("{} / {}", K::stored_name(), S::stored_name()))
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        let len = self.bytes.len() as u32;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&self.bytes);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = Self { bytes: bytes.to_vec(), types: PhantomData };
        key.parts().map(|_| key)
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Self, KeyError> {
        let invalid = KeyError::Invalid { key: std::any::type_name::<Self>() };
        let own = Vec::<u8>::decode_part(bytes)?;
        let key = Self { bytes: own, types: PhantomData };
        if key.parts().is_ok() { Ok(key) } else { Err(invalid) }
    }

    fn key_hash(&self, scratch: &mut Vec<u8>) -> u64 {
        scratch.clear();
        match split(KeyView { hash: 0, bytes: &self.bytes }) {
            Some((key, suffix)) if key.bytes.is_empty() => key.hash ^ spread(suffix),
            Some((key, suffix)) => hash_bytes(key.bytes) ^ spread(suffix),
            // Not reached: such bytes are not decoded. Any hash is as good as another.
            None => hash_bits(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key_group;

    #[test]
    fn bytes_and_hashes_are_frozen() {
        let mut buffer = CompositeBuffer::default();
        let narrow = KeyView { hash: 0x0123_4567_89ab_cdef, bytes: &[] };
        let key = buffer.with_number(narrow, 7);
        assert_eq!(key.bytes, [0, 0, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0, 0, 0, 7]);
        assert_eq!(key.hash, 0x0123_4567_1228_d573);
        assert_eq!(split(key), Some((narrow, &[0, 0, 0, 7][..])));
        let wide = KeyView { hash: hash_bytes(b"JFK"), bytes: b"JFK" };
        let key = buffer.with(wide, |out| out.extend_from_slice(b"gate"));
        assert_eq!(key.bytes, b"\0\x03JFKgate");
        assert_eq!(key.hash, 0x285b_4886_eb7e_951c);
        assert_eq!(split(key), Some((wide, &b"gate"[..])));
    }

    #[test]
    fn entries_stay_in_the_key_group_of_their_key_and_have_hashes_of_their_own() {
        let mut buffer = CompositeBuffer::default();
        let owner = KeyView { hash: hash_bytes(b"owner"), bytes: b"owner" };
        let hashes: std::collections::HashSet<u64> =
            (0..1000).map(|number| buffer.with_number(owner, number).hash).collect();
        assert_eq!(hashes.len(), 1000);
        assert!(hashes.iter().all(|hash| key_group(*hash, 32_768) == key_group(owner.hash, 32_768)));
    }

    #[test]
    fn keys_that_share_bytes_across_the_border_are_different() {
        let mut buffer = CompositeBuffer::default();
        let key = |bytes| KeyView { hash: hash_bytes(bytes), bytes };
        let one = buffer.with(key(b"a"), |out| out.extend_from_slice(b"bc")).bytes.to_vec();
        let other = buffer.with(key(b"ab"), |out| out.extend_from_slice(b"c")).bytes.to_vec();
        assert_ne!(one, other);
    }

    #[test]
    fn the_type_agrees_with_what_is_written() {
        let mut buffer = CompositeBuffer::default();
        let mut scratch = Vec::new();
        let typed = Within::<u64, u32>::new(&5, &9);
        let hash = 5_u64.key_hash(&mut scratch);
        let written = buffer.with_number(KeyView { hash, bytes: &[] }, 9);
        assert_eq!(typed.key_hash(&mut scratch), written.hash);
        assert_eq!(Within::<u64, u32>::decode(written.bytes).unwrap().parts(), Ok((5, 9)));
        let typed = Within::<String, String>::new(&"key".into(), &"suffix".into());
        let mut bytes = Vec::new();
        typed.encode_part(&mut bytes);
        let read = Within::<String, String>::decode_part(&mut &bytes[..]).unwrap();
        assert_eq!(read.parts(), Ok(("key".to_owned(), "suffix".to_owned())));
        let owner = KeyView { hash: hash_bytes(b"key"), bytes: b"key" };
        let written = buffer.with(owner, |out| out.extend_from_slice(b"suffix"));
        assert_eq!(typed.key_hash(&mut scratch), written.hash);
        for cut in 0..written.bytes.len().min(5) {
            assert!(Within::<String, String>::decode(&written.bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_column_gives_every_key_back() {
        let mut column = CompositeColumn::default();
        let mut buffer = CompositeBuffer::default();
        for number in 0..5 {
            column.push_number(KeyView { hash: 77, bytes: &b"four"[..number as usize] }, number);
        }
        for number in column.range() {
            let key = KeyView { hash: 77, bytes: &b"four"[..number] };
            assert_eq!(column.key(number), buffer.with_number(key, number as u32));
        }
    }
}
