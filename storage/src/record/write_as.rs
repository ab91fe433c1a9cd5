//! [`WriteAs`]: values that are written as a record without being one.
//!
//! Unsafe leaf: an implementation vouches for the archive that it writes.
#![allow(unsafe_code)]

use rkyv::{
    Archive, Place, Serialize,
    option::ArchivedOption,
    rancor::Error,
    string::{ArchivedString, StringResolver},
    vec::{ArchivedVec, VecResolver},
};

use super::{Record, RecordSerializer};

/// A value that archives as `T`: every record as itself, and borrowed forms such as `&str` as `String`.
///
/// Derive it for structs with borrowed fields: `#[derive(WriteAs)] #[write_as(Bid)] struct BidRef<'a> { … }`.
/// [`RecordWriter::put_root_as`](crate::writer::RecordWriter::put_root_as) writes such a value.
///
/// # Safety
/// [`resolve_as`](Self::resolve_as) initialises the whole of its place, as a value of `T` with the same contents would.
pub unsafe trait WriteAs<T: Record> {
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

// SAFETY: it is the record's own archive.
unsafe impl<T: Record> WriteAs<T> for T {
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

// SAFETY: the archive of a `String` is made from its `str`.
unsafe impl WriteAs<String> for &str {
    type Resolver = StringResolver;

    #[inline]
    fn serialize_as(&self, serializer: &mut RecordSerializer) -> Result<Self::Resolver, Error> {
        ArchivedString::serialize_from_str(self, serializer)
    }

    #[inline]
    fn resolve_as(&self, resolver: Self::Resolver, out: Place<ArchivedString>) {
        ArchivedString::resolve_from_str(self, resolver, out);
    }
}

// SAFETY: the archive of a `Vec` is made from its slice.
unsafe impl<T: Record> WriteAs<Vec<T>> for &[T] {
    type Resolver = VecResolver;

    #[inline]
    fn serialize_as(&self, serializer: &mut RecordSerializer) -> Result<Self::Resolver, Error> {
        ArchivedVec::serialize_from_slice(self, serializer)
    }

    #[inline]
    fn resolve_as(&self, resolver: Self::Resolver, out: Place<ArchivedVec<T::Archived>>) {
        ArchivedVec::resolve_from_slice(self, resolver, out);
    }
}

/// A borrowed value with the archived form of what it stands for, so that rkyv's `Option` can hold it.
#[derive(Debug)]
pub struct Borrowed<V>(V);

macro_rules! optional {
    ($([$($parameters:tt)*] $borrowed:ty as $owned:ty),* $(,)?) => {$(
        impl<$($parameters)*> Archive for Borrowed<$borrowed> {
            type Archived = <$owned as Archive>::Archived;
            type Resolver = <$borrowed as WriteAs<$owned>>::Resolver;

            #[inline]
            fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
                self.0.resolve_as(resolver, out);
            }
        }

        impl<$($parameters)*> Serialize<RecordSerializer> for Borrowed<$borrowed> {
            #[inline]
            fn serialize(&self, serializer: &mut RecordSerializer) -> Result<Self::Resolver, Error> {
                self.0.serialize_as(serializer)
            }
        }

        // SAFETY: the archive of an `Option` is made from the archive of what it holds.
        unsafe impl<$($parameters)*> WriteAs<Option<$owned>> for Option<$borrowed> {
            type Resolver = <Option<Borrowed<$borrowed>> as Archive>::Resolver;

            #[inline]
            fn serialize_as(&self, serializer: &mut RecordSerializer) -> Result<Self::Resolver, Error> {
                self.map(Borrowed).serialize(serializer)
            }

            #[inline]
            fn resolve_as(
                &self,
                resolver: Self::Resolver,
                out: Place<ArchivedOption<<$owned as Archive>::Archived>>,
            ) {
                self.map(Borrowed).resolve(resolver, out);
            }
        }
    )*};
}
optional! { ['a] &'a str as String, ['a, T: Record] &'a [T] as Vec<T> }
