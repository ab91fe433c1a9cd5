//! Keys of more than eight bytes or of any length: strings, byte vectors, 128-bit integers, and types of
//! one's own that can be written as bytes.

use std::borrow::Cow;

use super::{Key, KeyError, Width, name, take, unqualified};

/// The length that is written before the bytes of a part whose length varies.
#[inline]
fn len_prefix(len: usize) -> [u8; 4] {
    // A key of 4 GiB is a mistake of the extractor; there is nothing sensible to continue with.
    assert!(len <= u32::MAX as usize, "a key part has {len} bytes; at most 2^32 - 1 are possible");
    (len as u32).to_be_bytes()
}

/// Appends bytes of varying length behind their length.
#[inline]
pub(super) fn encode_sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&len_prefix(bytes.len()));
    out.extend_from_slice(bytes);
}

/// Reads bytes of varying length behind their length; `K` is named in the error.
#[inline]
fn decode_sized<'a, K>(bytes: &mut &'a [u8]) -> Result<&'a [u8], KeyError> {
    let mut len = [0; 4];
    len.copy_from_slice(take::<K>(bytes, 4)?);
    take::<K>(bytes, u32::from_be_bytes(len) as usize)
}

/// A type that can be written as bytes and thereby is a (wide) [`Key`].
///
/// Two values are equal exactly when the bytes they write are, on every machine and in every version of the program:
/// the bytes decide where state is found. They need not show where they end.
///
/// ```
/// use tidemill_storage::key::{BytesKey, Key};
///
/// #[derive(Clone, PartialEq, Eq, Debug)]
/// struct Route { from: [u8; 3], to: String }
///
/// impl BytesKey for Route {
///     fn write_key(&self, out: &mut Vec<u8>) {
///         out.extend_from_slice(&self.from);
///         out.extend_from_slice(self.to.as_bytes());
///     }
///     fn read_key(bytes: &[u8]) -> Option<Self> {
///         let (from, to) = bytes.split_first_chunk()?;
///         Some(Self { from: *from, to: String::from_utf8(to.to_vec()).ok()? })
///     }
/// }
///
/// let mut bytes = Vec::new();
/// let key = (Route { from: *b"JFK", to: "LAX".into() }, 2013u16);
/// key.encode(&mut bytes);
/// assert_eq!(Key::decode(&bytes), Ok(key));
/// ```
pub trait BytesKey: Clone + Eq + Send + 'static {
    /// Appends the key's bytes.
    fn write_key(&self, out: &mut Vec<u8>);

    /// Reads what [`write_key`](Self::write_key) has appended; `None` if it cannot have been that.
    fn read_key(bytes: &[u8]) -> Option<Self>;

    /// As [`Key::stored_name`].
    fn stored_name() -> Cow<'static, str> {
        Cow::Owned(unqualified(name::<Self>()))
    }
}

impl<K: BytesKey> Key for K {
    const WIDTH: Width = Width::Wide;

    fn stored_name() -> Cow<'static, str> {
        <K as BytesKey>::stored_name()
    }

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        self.write_key(out);
    }

    #[inline]
    fn encode_part(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.write_key(out);
        let len = len_prefix(out.len() - start - 4);
        out[start..start + 4].copy_from_slice(&len);
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::read_key(bytes).ok_or(KeyError::Invalid { key: name::<Self>() })
    }

    #[inline]
    fn decode_part(bytes: &mut &[u8]) -> Result<Self, KeyError> {
        Self::decode(decode_sized::<Self>(bytes)?)
    }
}

impl Key for String {
    const WIDTH: Width = Width::Wide;

    fn stored_name() -> Cow<'static, str> {
        Cow::Borrowed("String")
    }

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    #[inline]
    fn encode_part(&self, out: &mut Vec<u8>) {
        encode_sized(self.as_bytes(), out);
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(KeyError::Invalid { key: name::<Self>() }),
        }
    }

    #[inline]
    fn decode_part(bytes: &mut &[u8]) -> Result<Self, KeyError> {
        Self::decode(decode_sized::<Self>(bytes)?)
    }

    #[inline]
    fn key_bytes<'a>(&'a self, _scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self.as_bytes()
    }
}

impl Key for Vec<u8> {
    const WIDTH: Width = Width::Wide;

    fn stored_name() -> Cow<'static, str> {
        Cow::Borrowed("Vec<u8>")
    }

    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    #[inline]
    fn encode_part(&self, out: &mut Vec<u8>) {
        encode_sized(self, out);
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        Ok(bytes.to_vec())
    }

    #[inline]
    fn decode_part(bytes: &mut &[u8]) -> Result<Self, KeyError> {
        Self::decode(decode_sized::<Self>(bytes)?)
    }

    #[inline]
    fn key_bytes<'a>(&'a self, _scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self
    }
}

/// 128-bit integers: big-endian, the signed ones (`$flip` is their least value) with the sign bit flipped.
macro_rules! wide_integers {
    ($($type:ty, $flip:expr);*) => {$(
        impl Key for $type {
            const WIDTH: Width = Width::of_fixed(size_of::<$type>());

            fn stored_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }

            #[inline]
            fn encode_part(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&(self ^ $flip).to_be_bytes());
            }

            #[inline]
            fn decode_part(bytes: &mut &[u8]) -> Result<Self, KeyError> {
                const LEN: usize = size_of::<$type>();
                let mut own = [0; LEN];
                own.copy_from_slice(take::<Self>(bytes, LEN)?);
                Ok(<$type>::from_be_bytes(own) ^ $flip)
            }
        }
    )*};
}
wide_integers!(u128, 0; i128, i128::MIN);
