//! [`KeyRef`]: keys read out of a record by reference, without making them one's own.

use super::{Key, hash_bytes, wide::encode_sized};

/// What a reference to may stand for a key: every [`Key`] for itself, `str` for `String`, `[u8]` for `Vec<u8>`.
///
/// Bits, bytes and hash equal those of the [`Owned`](Self::Owned) key, so both kinds of extractor partition alike.
/// A tuple's parts can be written one by one, all but the last by [`encode_part_ref`](Self::encode_part_ref) and the
/// last by [`encode_ref`](Self::encode_ref), to build a tuple key's bytes without owning its strings.
pub trait KeyRef {
    /// The key type that this stands for.
    type Owned: Key;

    /// As [`Key::to_bits`].
    ///
    /// # Panics
    /// When the key type is wide.
    #[inline]
    fn to_bits_ref(&self) -> u64 {
        unreachable!("a wide key has no bits")
    }

    /// As [`Key::encode`].
    fn encode_ref(&self, out: &mut Vec<u8>);

    /// As [`Key::encode_part`].
    fn encode_part_ref(&self, out: &mut Vec<u8>);

    /// As [`Key::key_bytes`].
    fn key_bytes_ref<'a>(&'a self, scratch: &'a mut Vec<u8>) -> &'a [u8];

    /// As [`Key::key_hash`].
    #[inline]
    fn key_hash_ref(&self, scratch: &mut Vec<u8>) -> u64 {
        hash_bytes(self.key_bytes_ref(scratch))
    }

    /// The key itself; the only method that may allocate for it.
    fn to_key(&self) -> Self::Owned;
}

impl<K: Key> KeyRef for K {
    type Owned = K;

    #[inline]
    fn to_bits_ref(&self) -> u64 {
        self.to_bits()
    }

    #[inline]
    fn encode_ref(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }

    #[inline]
    fn encode_part_ref(&self, out: &mut Vec<u8>) {
        self.encode_part(out);
    }

    #[inline]
    fn key_bytes_ref<'a>(&'a self, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self.key_bytes(scratch)
    }

    #[inline]
    fn key_hash_ref(&self, scratch: &mut Vec<u8>) -> u64 {
        self.key_hash(scratch)
    }

    #[inline]
    fn to_key(&self) -> K {
        self.clone()
    }
}

impl KeyRef for str {
    type Owned = String;

    #[inline]
    fn encode_ref(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    #[inline]
    fn encode_part_ref(&self, out: &mut Vec<u8>) {
        encode_sized(self.as_bytes(), out);
    }

    #[inline]
    fn key_bytes_ref<'a>(&'a self, _scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self.as_bytes()
    }

    #[inline]
    fn to_key(&self) -> String {
        self.to_owned()
    }
}

impl KeyRef for [u8] {
    type Owned = Vec<u8>;

    #[inline]
    fn encode_ref(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    #[inline]
    fn encode_part_ref(&self, out: &mut Vec<u8>) {
        encode_sized(self, out);
    }

    #[inline]
    fn key_bytes_ref<'a>(&'a self, _scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self
    }

    #[inline]
    fn to_key(&self) -> Vec<u8> {
        self.to_vec()
    }
}
