//! One field of a row as the type that the record wants.

use std::fmt;

use serde::de::{Deserializer, Visitor, value::BorrowedStrDeserializer};

use super::record::DecodeError;

/// One field.
pub(super) struct Field<'de, 'c> {
    pub(super) text: &'de str,
    /// Texts that mean null.
    pub(super) nulls: &'c [Box<str>],
}

impl Field<'_, '_> {
    #[inline]
    fn is_null(&self) -> bool {
        self.nulls.iter().any(|null| **null == *self.text)
    }

    #[cold]
    fn unreadable(&self, kind: &str, cause: &dyn fmt::Display) -> DecodeError {
        DecodeError::new(format!("`{}` is no {kind}: {cause}", self.text.escape_debug()), false)
    }
}

/// Parses a field as each of the number types.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ident;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            match self.text.parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(cause) => Err(self.unreadable(stringify!($type), &cause)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Field<'de, '_> {
    type Error = DecodeError;

    numbers! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.text)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.text)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.text)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_bytes(self.text.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_bytes(self.text.as_bytes())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_enum(BorrowedStrDeserializer::new(self.text))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_null() { visitor.visit_unit() } else { self.deserialize_any(visitor) }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    /// Where the record does not say the type (in a flattened struct), the text decides.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_null() {
            visitor.visit_none()
        } else if let Ok(number) = self.text.parse() {
            visitor.visit_u64(number)
        } else if let Ok(number) = self.text.parse() {
            visitor.visit_i64(number)
        } else if let Ok(number) = self.text.parse() {
            visitor.visit_f64(number)
        } else {
            visitor.visit_borrowed_str(self.text)
        }
    }

    serde::forward_to_deserialize_any! { unit_struct seq tuple tuple_struct map struct identifier }
}
