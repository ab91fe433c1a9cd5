//! The types that are records without a derive: primitives, strings, and compositions of records.

use std::{
    borrow::Cow,
    num::{
        NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroU8, NonZeroU16, NonZeroU32,
        NonZeroU64, NonZeroU128,
    },
};

use super::Record;

macro_rules! simple {
    (fixed $fixed:literal: $($type:ty),* $(,)?) => {$(
        impl Record for $type {
            const SCHEMA_VERSION: u32 = 1;
            const FIXED: bool = $fixed;

            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
        }
    )*};
}
simple! { fixed false: String }
simple! {
    fixed true:
    (), bool, char, f32, f64,
    u8, u16, u32, u64, u128, i8, i16, i32, i64, i128,
    NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroU128,
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128,
}

macro_rules! generic {
    ($($name:literal $type:ty, fixed $fixed:expr);* $(;)?) => {$(
        impl<T: Record> Record for $type {
            const SCHEMA_VERSION: u32 = 1;
            const FIXED: bool = $fixed;

            fn schema_name() -> Cow<'static, str> {
                Cow::Owned(format!(concat!($name, "<{}>"), T::schema()))
            }
        }
    )*};
}
generic! { "Option" Option<T>, fixed T::FIXED; "Vec" Vec<T>, fixed false; "Box" Box<T>, fixed false }

impl<T: Record, const N: usize> Record for [T; N] {
    const SCHEMA_VERSION: u32 = 1;
    const FIXED: bool = T::FIXED;

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("[{}; {N}]", T::schema()))
    }
}

macro_rules! tuples {
    ($(($($part:ident),*))*) => {$(
        impl<$($part: Record),*> Record for ($($part,)*) {
            const SCHEMA_VERSION: u32 = 1;
            const FIXED: bool = $($part::FIXED)&&*;

            fn schema_name() -> Cow<'static, str> {
                Cow::Owned(format!("({})", [$($part::schema()),*].join(", ")))
            }
        }
    )*};
}
tuples! {
    (A, B)
    (A, B, C)
    (A, B, C, D)
    (A, B, C, D, E)
    (A, B, C, D, E, F)
    (A, B, C, D, E, F, G)
    (A, B, C, D, E, F, G, H)
}
