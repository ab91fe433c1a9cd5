//! Tuples of keys, of two to eight parts: narrow when all parts are and fit eight bytes together.

use std::borrow::Cow;

use super::{Key, KeyError, Width};

/// Moves `bits` up by a part of `width` and puts the part below.
#[inline]
fn push_bits(bits: u64, part: u64, width: Width) -> u64 {
    // A part of eight bytes leaves no room for others: all of them have no bytes.
    bits.unbounded_shl(8 * width.narrow_bytes() as u32) | part
}

/// Takes the lowest part, of `width`, off `bits`.
#[inline]
fn pop_bits(bits: &mut u64, width: Width) -> u64 {
    let len = 8 * width.narrow_bytes() as u32;
    let part = *bits & !u64::MAX.unbounded_shl(len);
    *bits = bits.unbounded_shr(len);
    part
}

/// `(parts before the last) last, and the parts in reverse order`.
macro_rules! tuples {
    ($(($($part:ident $at:tt),*) $last:ident $last_at:tt, [$($reversed:ident),*])*) => {$(
        impl<$($part: Key,)* $last: Key> Key for ($($part,)* $last,) {
            const WIDTH: Width = Width::of_fixed(0)$(.then($part::WIDTH))*.then($last::WIDTH);

            fn stored_name() -> Cow<'static, str> {
                let mut name = String::from("(");
                $(
                    name.push_str(&$part::stored_name());
                    name.push_str(", ");
                )*
                name.push_str(&$last::stored_name());
                name.push(')');
                Cow::Owned(name)
            }

            #[inline]
            fn to_bits(&self) -> u64 {
                assert!(Self::WIDTH.is_narrow(), "a wide key has no bits");
                let bits = 0;
                $(let bits = push_bits(bits, self.$at.to_bits(), $part::WIDTH);)*
                push_bits(bits, self.$last_at.to_bits(), $last::WIDTH)
            }

            #[inline]
            #[allow(non_snake_case)]
            fn from_bits(mut bits: u64) -> Self {
                assert!(Self::WIDTH.is_narrow(), "a wide key has no bits");
                $(let $reversed = $reversed::from_bits(pop_bits(&mut bits, $reversed::WIDTH));)*
                ($($part,)* $last,)
            }

            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$at.encode_part(out);)*
                self.$last_at.encode(out);
            }

            #[inline]
            fn encode_part(&self, out: &mut Vec<u8>) {
                $(self.$at.encode_part(out);)*
                self.$last_at.encode_part(out);
            }

            #[inline]
            fn decode(mut bytes: &[u8]) -> Result<Self, KeyError> {
                Ok(($($part::decode_part(&mut bytes)?,)* $last::decode(bytes)?,))
            }

            #[inline]
            fn decode_part(bytes: &mut &[u8]) -> Result<Self, KeyError> {
                Ok(($($part::decode_part(bytes)?,)* $last::decode_part(bytes)?,))
            }
        }
    )*};
}
tuples! {
    (A 0) B 1, [B, A]
    (A 0, B 1) C 2, [C, B, A]
    (A 0, B 1, C 2) D 3, [D, C, B, A]
    (A 0, B 1, C 2, D 3) E 4, [E, D, C, B, A]
    (A 0, B 1, C 2, D 3, E 4) F 5, [F, E, D, C, B, A]
    (A 0, B 1, C 2, D 3, E 4, F 5) G 6, [G, F, E, D, C, B, A]
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6) H 7, [H, G, F, E, D, C, B, A]
}
