//! [`WriteAs`]: values that are written as a record without being one.

use rkyv::{Archive, Place, rancor::Error};

use super::{Record, RecordSerializer};

/// A value that archives as `T`: every record as itself, and borrowed forms such as `&str` as `String`.
///
/// Derive it for structs with borrowed fields: `#[derive(WriteAs)] #[write_as(Bid)] struct BidRef<'a> { … }`.
pub trait WriteAs<T: Record> {
    /// What is known after the parts out of line are written, and is needed to write the root.
    type Resolver;

    /// Writes the parts that lie out of line.
    ///
    /// # Errors
    /// As the record's own serialization.
    fn serialize_as(&self, serializer: &mut RecordSerializer) -> Result<Self::Resolver, Error>;

    /// Writes the root.
    fn resolve_as(&self, resolver: Self::Resolver, out: Place<T::Archived>);
}

impl<T: Record> WriteAs<T> for T {
    type Resolver = <T as Archive>::Resolver;

    #[inline]
    fn serialize_as(&self, serializer: &mut RecordSerializer) -> Result<Self::Resolver, Error> {
        self.serialize(serializer)
    }

    #[inline]
    fn resolve_as(&self, resolver: Self::Resolver, out: Place<T::Archived>) {
        self.resolve(resolver, out);
    }
}
