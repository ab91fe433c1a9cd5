//! What a record is: a type that rkyv can lay out once and everyone can then read in place.
//!
//! A record crosses cores, is stored and is restored as the same bytes. [`Record`] is implemented by
//! `#[derive(Record)]`, never by hand; primitives, strings, options, vectors, arrays and tuples of
//! records are records too. The fixed part of an archived record (its *root*) has one size per
//! type; strings and vectors live out of line, reached by a pointer relative to the root.

use rkyv::{
    Archive, Archived, Deserialize, Serialize,
    api::high::HighValidator,
    bytecheck::CheckBytes,
    rancor::{Error, Strategy},
};

use crate::writer::RecordWriter;

/// The rkyv serializer that every record is written with; its failures carry a trace.
pub type RecordSerializer = Strategy<RecordWriter, Error>;
/// The rkyv deserializer that every record is read back with.
pub type RecordDeserializer = Strategy<(), Error>;

/// The archived form of `T`: what operators after an exchange read in place.
pub type InPlaceOf<T> = Archived<T>;

/// A type that Tidemill can move between cores, store and restore.
///
/// Derive it: `#[derive(Record)]` gives the archive, its validation, and the schema below.
pub trait Record:
    Archive<Archived: RecordView<Self>> + Serialize<RecordSerializer> + Send + Sized + 'static
{
    /// Name under which the type is stored, by default the type's own name.
    const SCHEMA_NAME: &'static str;
    /// Version of the layout, raised by the author when the fields change; 1 by default.
    const SCHEMA_VERSION: u32;
}

/// What the archived form of a record can do: be checked, and be turned back into the record.
pub trait RecordView<T>:
    Deserialize<T, RecordDeserializer> + for<'a> CheckBytes<HighValidator<'a, Error>> + 'static
{
}

impl<T, A> RecordView<T> for A where
    A: Deserialize<T, RecordDeserializer> + for<'a> CheckBytes<HighValidator<'a, Error>> + 'static
{
}

impl Record for String {
    const SCHEMA_NAME: &'static str = "String";
    const SCHEMA_VERSION: u32 = 1;
}
