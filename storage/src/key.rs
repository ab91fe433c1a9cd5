//! Keys: what a stream is partitioned by, and how a key becomes bits, bytes and a hash.
//!
//! Everything in this module is **frozen**: hashes are stored beside records, decide which key group
//! owns a key, and so decide where state is found after a restore. Golden-value tests guard it.
//!
//! # Narrow and wide
//!
//! A key type is one of two kinds, known at compile time as [`Key::WIDTH`]:
//!
//! * **Narrow**: always encodes in the same number of bytes, at most 8. Its *bits* are a `u64`; its hash is
//!   a bijection of the bits ([`hash_bits`]). So two keys of a type are equal exactly when their
//!   hashes are, and a batch's hash column alone gives the keys back ([`bits_of_hash`]). No allocation, no
//!   comparison of keys, ever.
//! * **Wide**: everything else. Its hash is XXH3-64 with seed 0 over its canonical bytes
//!   ([`hash_bytes`]); different keys may share a hash, so whoever looks one up compares bytes too.
//!
//! # Canonical bytes
//!
//! | type | bytes |
//! |---|---|
//! | `u8`…`u128`, `usize` (as `u64`) | big-endian |
//! | `i8`…`i128`, `isize` (as `i64`) | big-endian, sign bit flipped |
//! | `bool`, `char` | 1 byte; the scalar value as `u32` |
//! | `[u8; N]` | as they are |
//! | `()` | none |
//! | `String`, `Vec<u8>`, [`BytesKey`] | as they are, nothing before or after |
//! | tuple | its parts one after another; before each string, byte vector or [`BytesKey`] that is not the tuple's last part, its length as a big-endian `u32` |
//! | tuple as a part of a tuple, not last | as above, and its own last part carries its length too |
//!
//! **The bits of a narrow key are its canonical bytes read as one big-endian number.** Keys of different
//! types may share bytes: the type is part of a state's identity, not of its keys.
//!
//! **Order.** Compared as bytes, keys sort as their values do, provided that no string, byte vector or
//! [`BytesKey`] stands before the last part of a tuple (its length would be compared first). The bits of
//! narrow keys sort as their values do without exception.
//!
//! # Keys of one's own
//!
//! A type that can be written as bytes implements [`BytesKey`] and thereby is a wide [`Key`]. One that fits
//! eight bytes implements [`Key`] with [`WIDTH`](Key::WIDTH), [`to_bits`](Key::to_bits) and
//! [`from_bits`](Key::from_bits), and the rest follows:
//!
//! ```
//! use tidemill_storage::key::{Key, Width};
//!
//! #[derive(Clone, PartialEq, Eq, Debug)]
//! struct SensorId(u32);
//!
//! impl Key for SensorId {
//!     const WIDTH: Width = u32::WIDTH;
//!     fn to_bits(&self) -> u64 { self.0.to_bits() }
//!     fn from_bits(bits: u64) -> Self { Self(u32::from_bits(bits)) }
//! }
//!
//! let hash = SensorId(7).key_hash(&mut Vec::new());
//! assert_eq!(SensorId::of_hash(hash), Some(SensorId(7)));
//! ```

mod borrowed;
mod group;
mod hash;
mod narrow;
mod tuple;
mod wide;

use std::borrow::Cow;

pub use borrowed::KeyRef;
pub use group::{MAX_PARALLELISM_MAX, key_group, key_group_range, subtask_of};
pub use hash::{bits_of_hash, hash_bits, hash_bytes};
pub use wide::BytesKey;

/// How many bytes a key type's canonical form takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Always exactly this many bytes, from 0 to 8.
    Narrow {
        /// Length of the canonical form.
        bytes: u32,
    },
    /// More than 8 bytes, or not always the same number.
    Wide,
}

impl Width {
    /// The width of a type that always takes `bytes` bytes.
    pub const fn of_fixed(bytes: usize) -> Self {
        if bytes <= 8 { Self::Narrow { bytes: bytes as u32 } } else { Self::Wide }
    }

    /// The width of this followed by `next`, as in a tuple.
    pub const fn then(self, next: Self) -> Self {
        match (self, next) {
            (Self::Narrow { bytes: a }, Self::Narrow { bytes: b }) => Self::of_fixed((a + b) as usize),
            _ => Self::Wide,
        }
    }

    /// Whether keys have bits.
    #[inline]
    pub const fn is_narrow(self) -> bool {
        matches!(self, Self::Narrow { .. })
    }

    /// Length of a narrow key's canonical form, 0 for wide keys.
    #[inline]
    pub const fn narrow_bytes(self) -> usize {
        match self {
            Self::Narrow { bytes } => bytes as usize,
            Self::Wide => 0,
        }
    }
}

/// Why bytes are no key of the expected type. It means that they were written by another key type or
/// are damaged: check that the key extractor did not change since the state was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes end within the key.
    #[error("key bytes end too early for `{key}`; was the key type changed since they were written?")]
    TooShort {
        /// The key type that was being read.
        key: &'static str,
    },
    /// Bytes are left over behind the key.
    #[error(
        "{extra} bytes are left over behind a `{key}` key; was the key type changed since they were written?"
    )]
    TooLong {
        /// The key type that was being read.
        key: &'static str,
        /// Number of bytes left over.
        extra: usize,
    },
    /// The bytes have the right length and are no value of the type.
    #[error("bytes are no valid `{key}` key; was the key type changed since they were written?")]
    Invalid {
        /// The key type that was being read.
        key: &'static str,
    },
}

/// What a key extractor returns: a value by which a stream is partitioned and state is found.
///
/// See the [module](self) for the two kinds of keys and their bytes. All methods are pure and none is
/// fallible except reading bytes back. Equal keys have equal bytes and different ones different
/// bytes; implementations of one's own must keep that.
pub trait Key: Clone + Eq + Send + 'static {
    /// Narrow or wide.
    const WIDTH: Width;

    /// Name of the type that state is stored with: opening the state with keys of another name is refused. By default
    /// the type's own name, so that moving the type to another module changes nothing and renaming it does; a
    /// type of one's own overrides it to keep its former name.
    fn stored_name() -> Cow<'static, str> {
        Cow::Owned(unqualified(name::<Self>()))
    }

    /// The bits of a narrow key: its canonical bytes as one big-endian number, the unused high bits zero.
    ///
    /// # Panics
    /// When the type is wide: ask [`WIDTH`](Self::WIDTH) first.
    #[inline]
    fn to_bits(&self) -> u64 {
        const { assert!(!Self::WIDTH.is_narrow(), "a narrow key type implements `to_bits`") };
        unreachable!("a wide key has no bits")
    }

    /// The narrow key with these bits, which [`to_bits`](Self::to_bits) has returned. For other
    /// bits the result is some key, never a panic.
    ///
    /// # Panics
    /// When the type is wide: ask [`WIDTH`](Self::WIDTH) first.
    #[inline]
    fn from_bits(_bits: u64) -> Self {
        const { assert!(!Self::WIDTH.is_narrow(), "a narrow key type implements `from_bits`") };
        unreachable!("a wide key has no bits")
    }

    /// Appends the canonical bytes.
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        self.encode_part(out);
    }

    /// Appends the canonical bytes in a form whose end can be found: as a tuple's part that is not its last.
    #[inline]
    fn encode_part(&self, out: &mut Vec<u8>) {
        const { assert!(Self::WIDTH.is_narrow(), "a wide key type implements `encode_part`") };
        out.extend_from_slice(&self.to_bits().to_be_bytes()[8 - Self::WIDTH.narrow_bytes()..]);
    }

    /// Reads what [`encode`](Self::encode) has written; `bytes` holds nothing else.
    ///
    /// # Errors
    /// When the bytes are not exactly one key of this type.
    #[inline]
    fn decode(mut bytes: &[u8]) -> Result<Self, KeyError> {
        let key = Self::decode_part(&mut bytes)?;
        if bytes.is_empty() {
            Ok(key)
        } else {
            Err(KeyError::TooLong { key: name::<Self>(), extra: bytes.len() })
        }
    }

    /// Reads what [`encode_part`](Self::encode_part) has written and moves `bytes` behind it.
    ///
    /// # Errors
    /// When the bytes do not begin with a key of this type; `bytes` is then anywhere.
    #[inline]
    fn decode_part(bytes: &mut &[u8]) -> Result<Self, KeyError> {
        const { assert!(Self::WIDTH.is_narrow(), "a wide key type implements `decode_part`") };
        let own = take::<Self>(bytes, Self::WIDTH.narrow_bytes())?;
        let mut eight = [0; 8];
        eight[8 - own.len()..].copy_from_slice(own);
        let bits = u64::from_be_bytes(eight);
        let key = Self::from_bits(bits);
        if key.to_bits() == bits { Ok(key) } else { Err(KeyError::Invalid { key: name::<Self>() }) }
    }

    /// The canonical bytes, borrowed from the key where it holds them as they are, else written to `scratch`
    /// (whose former contents are lost).
    #[inline]
    fn key_bytes<'a>(&'a self, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        scratch.clear();
        self.encode(scratch);
        scratch
    }

    /// The stable 64-bit hash. `scratch` is used by wide keys only, and may be overwritten.
    #[inline]
    fn key_hash(&self, scratch: &mut Vec<u8>) -> u64 {
        if Self::WIDTH.is_narrow() { hash_bits(self.to_bits()) } else { hash_bytes(self.key_bytes(scratch)) }
    }

    /// The key whose hash this is, or `None` if the type is wide. For a hash that no key of this type has, the
    /// result is some key.
    #[inline]
    fn of_hash(hash: u64) -> Option<Self> {
        if Self::WIDTH.is_narrow() { Some(Self::from_bits(bits_of_hash(hash))) } else { None }
    }
}

/// The name of a key type, for errors.
fn name<K>() -> &'static str {
    std::any::type_name::<K>()
}

/// A type's name without the paths of its modules, and of its parameters' either.
fn unqualified(path: &str) -> String {
    let mut short = String::with_capacity(path.len());
    let mut segment = 0;
    for (at, c) in path.char_indices() {
        if path[at..].starts_with("::") {
            short.truncate(segment);
        } else if c != ':' {
            short.push(c);
            if !c.is_alphanumeric() && c != '_' {
                segment = short.len();
            }
        }
    }
    short
}

/// Splits the next `len` bytes off `bytes`; `K` is named in the error.
#[inline]
fn take<'a, K>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], KeyError> {
    match bytes.split_at_checked(len) {
        Some((own, rest)) => {
            *bytes = rest;
            Ok(own)
        }
        None => Err(KeyError::TooShort { key: name::<K>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Eq)]
    struct Own(u32);

    impl Key for Own {
        const WIDTH: Width = u32::WIDTH;

        fn to_bits(&self) -> u64 {
            self.0.to_bits()
        }

        fn from_bits(bits: u64) -> Self {
            Self(u32::from_bits(bits))
        }
    }

    #[test]
    fn stored_names_are_frozen() {
        assert_eq!(u32::stored_name(), "u32");
        assert_eq!(isize::stored_name(), "isize");
        assert_eq!(i128::stored_name(), "i128");
        assert_eq!(<()>::stored_name(), "()");
        assert_eq!(bool::stored_name(), "bool");
        assert_eq!(char::stored_name(), "char");
        assert_eq!(<[u8; 3]>::stored_name(), "[u8; 3]");
        assert_eq!(String::stored_name(), "String");
        assert_eq!(Vec::<u8>::stored_name(), "Vec<u8>");
        assert_eq!(<(Own, (u8, String))>::stored_name(), "(Own, (u8, String))");
    }

    #[test]
    fn names_lose_their_paths() {
        assert_eq!(unqualified("a::b::C<d::E<f::G>, (h::I, [j::K; 3])>"), "C<E<G>, (I, [K; 3])>");
        assert_eq!(unqualified("a_b::c_d"), "c_d");
    }
}
