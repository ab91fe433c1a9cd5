//! Keys of at most eight bytes: integers, `bool`, `char`, `()`, and byte arrays of any length.

use std::borrow::Cow;

use super::{Key, KeyError, Width, take};

/// Unsigned integers: the bits are the value.
macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl Key for $type {
            const WIDTH: Width = Width::of_fixed(size_of::<$type>());

            fn stored_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }

            #[inline]
            fn to_bits(&self) -> u64 {
                u64::from(*self)
            }

            #[inline]
            fn from_bits(bits: u64) -> Self {
                bits as $type
            }
        }
    )*};
}
unsigned!(u8, u16, u32, u64);

/// Signed integers: the bits are those of the unsigned twin with the sign bit flipped, so that they sort.
macro_rules! signed {
    ($($type:ty as $twin:ty),*) => {$(
        impl Key for $type {
            const WIDTH: Width = Width::of_fixed(size_of::<$type>());

            fn stored_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }

            #[inline]
            fn to_bits(&self) -> u64 {
                u64::from((self ^ <$type>::MIN) as $twin)
            }

            #[inline]
            fn from_bits(bits: u64) -> Self {
                (bits as $type) ^ <$type>::MIN
            }
        }
    )*};
}
signed!(i8 as u8, i16 as u16, i32 as u32, i64 as u64);

/// Types with the bits of another: all values of the first are values of the second.
macro_rules! as_other {
    ($($type:ty as $other:ty),*) => {$(
        impl Key for $type {
            const WIDTH: Width = <$other>::WIDTH;

            fn stored_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }

            #[inline]
            fn to_bits(&self) -> u64 {
                Key::to_bits(&(*self as $other))
            }

            #[inline]
            fn from_bits(bits: u64) -> Self {
                <$other as Key>::from_bits(bits) as $type
            }
        }
    )*};
}
as_other!(usize as u64, isize as i64);

impl Key for bool {
    const WIDTH: Width = Width::of_fixed(1);

    fn stored_name() -> Cow<'static, str> {
        Cow::Borrowed("bool")
    }

    #[inline]
    fn to_bits(&self) -> u64 {
        u64::from(*self)
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
}

impl Key for char {
    const WIDTH: Width = Width::of_fixed(4);

    fn stored_name() -> Cow<'static, str> {
        Cow::Borrowed("char")
    }

    #[inline]
    fn to_bits(&self) -> u64 {
        u64::from(u32::from(*self))
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        char::from_u32(bits as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
    }
}

impl Key for () {
    const WIDTH: Width = Width::of_fixed(0);

    fn stored_name() -> Cow<'static, str> {
        Cow::Borrowed("()")
    }

    #[inline]
    fn to_bits(&self) -> u64 {
        0
    }

    #[inline]
    fn from_bits(_bits: u64) -> Self {}
}

/// Narrow up to eight bytes, wide beyond.
impl<const N: usize> Key for [u8; N] {
    const WIDTH: Width = Width::of_fixed(N);

    fn stored_name() -> Cow<'static, str> {
        Cow::Owned(format!("[u8; {N}]"))
    }

    #[inline]
    fn to_bits(&self) -> u64 {
        assert!(N <= 8, "a wide key has no bits");
        let mut eight = [0; 8];
        eight[8 - N..].copy_from_slice(self);
        u64::from_be_bytes(eight)
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        assert!(N <= 8, "a wide key has no bits");
        let mut own = [0; N];
        own.copy_from_slice(&bits.to_be_bytes()[8 - N..]);
        own
    }

    #[inline]
    fn encode_part(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    #[inline]
    fn decode_part(bytes: &mut &[u8]) -> Result<Self, KeyError> {
        let mut own = [0; N];
        own.copy_from_slice(take::<Self>(bytes, N)?);
        Ok(own)
    }

    #[inline]
    fn key_bytes<'a>(&'a self, _scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self
    }
}
