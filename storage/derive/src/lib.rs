//! Procedural macros of Tidemill records: `#[derive(Record)]` and `#[derive(WriteAs)]`.
//!
//! The macros write out what rkyv's own derives would, for Tidemill's serializer only and without bounds:
//! so that a user's crate needs no rkyv, errors name the field at fault, and recursive types need no help. All
//! paths lead through `<crate>::__private`, where `<crate>` is `::tidemill` unless
//! the attribute `crate = …` says otherwise.

mod attributes;
mod enums;
mod record;
mod structs;
mod write_as;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, parse_macro_input};

/// Makes a struct or enum a record: it can be moved between cores, stored, restored and read in place.
///
/// Generates, for a type `Flight`:
///
/// * `ArchivedFlight`, the form in which it lies in a batch: the same fields with the same visibility, in
///   their archived types (`String` → `ArchivedString`, `u32` → `u32_le`, …), with `Debug`;
/// * rkyv's `Archive`, `Serialize`, `Deserialize` and validation; a struct whose bytes are those of its archived form
///   already (integers and floats without padding) is copied as a whole;
/// * `Record`, with a schema name and version.
///
/// Every field must be a record: a number except `usize` and `isize`, `bool`, `char`, `String`, `Option`, `Vec`, `Box`, array or tuple of
/// records, or another type with this derive. Type parameters, lifetimes and unions are refused.
///
/// # Attributes
///
/// `#[record(…)]` on the type:
///
/// * `name = "…"`: name under which the type is stored; by default the type's own, without its module. Give it before renaming a
///   type whose state is to be kept.
/// * `version = 2`: version of the layout; 1 by default. Raise it when fields change.
/// * `derive(PartialEq, …)`: traits that `ArchivedFlight` derives besides `Debug`.
/// * `crate = path`: where Tidemill is found; `::tidemill` by default.
#[proc_macro_derive(Record, attributes(record))]
pub fn record(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    record::derive(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Lets a struct with borrowed fields be written as a record, without making its strings and vectors first.
///
/// `#[derive(WriteAs)] #[write_as(Bid)] struct BidRef<'a> { … }` needs the fields of the struct `Bid`, all and in its
/// order, by name (or by position in tuple structs), each in the same type or borrowed:
/// `&str` for `String`, `&[T]` for `Vec<T>`, `Option<&str>` for `Option<String>`. A field that is itself a
/// borrowed form of a record says so: `#[write_as(Route)] route: RouteRef<'a>`.
///
/// `#[write_as(Bid, crate = path)]` says where Tidemill is found; `::tidemill` by default.
#[proc_macro_derive(WriteAs, attributes(write_as))]
pub fn write_as(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    write_as::derive(&input).unwrap_or_else(Error::into_compile_error).into()
}
