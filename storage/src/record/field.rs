//! What generated code says about a field: everything through [`Record`], so that a field that is no record gives
//! one clear error and not one for each of rkyv's traits.

use rkyv::{Archive, Deserialize, Place, rancor::Error};

use super::{Record, RecordDeserializer, RecordSerializer};

/// The archived form and the resolver of a record.
pub trait Field {
    /// `Archive::Archived`.
    type Archived;
    /// `Archive::Resolver`.
    type Resolver;
}

impl<T: Record> Field for T {
    type Archived = <T as Archive>::Archived;
    type Resolver = <T as Archive>::Resolver;
}

/// Whether the field's bytes are those of its archived form.
pub const fn is_plain<T: Record>() -> bool {
    T::COPY_OPTIMIZATION.is_enabled()
}

/// Whether nothing of the field lies out of line.
pub const fn is_fixed<T: Record>() -> bool {
    T::FIXED
}

/// `Archive::resolve`.
#[inline(always)]
pub fn resolve<T: Record>(field: &T, resolver: T::Resolver, out: Place<T::Archived>) {
    field.resolve(resolver, out);
}

/// `Serialize::serialize`.
///
/// # Errors
/// As that.
#[inline(always)]
pub fn serialize<T: Record>(field: &T, serializer: &mut RecordSerializer) -> Result<T::Resolver, Error> {
    field.serialize(serializer)
}

/// `Deserialize::deserialize`.
///
/// # Errors
/// As that.
#[inline(always)]
pub fn deserialize<T: Record>(
    archived: &T::Archived,
    deserializer: &mut RecordDeserializer,
) -> Result<T, Error> {
    archived.deserialize(deserializer)
}
