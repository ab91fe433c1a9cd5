//! What a record is: a type that rkyv can lay out once and everyone can then read in place.
//!
//! A record crosses cores, is stored and is restored as the same bytes. [`Record`] is implemented by
//! `#[derive(Record)]`, never by hand; primitives, strings, options, vectors, arrays and tuples of
//! records are records too (`usize` and `isize` are not: their archived form has 32 bits). The fixed part of
//! an archived record (its *root*) has one size per type; strings and vectors live out of line, reached by
//! a pointer relative to the root.
//!
//! Bytes that this process wrote itself are read with [`access_unchecked`]; bytes from disk or network pass
//! [`access`] first.
//!
//! Unsafe leaf: it reads archives that were not validated, on the caller's word.
#![allow(unsafe_code)]

#[doc(hidden)]
pub mod field;
mod impls;
mod write_as;

use std::{borrow::Cow, num::NonZeroUsize};

use rkyv::{
    Archive, Archived, Deserialize, Serialize,
    api::high::HighValidator,
    bytecheck::CheckBytes,
    rancor::{Error, Source, Strategy},
    util::AlignedVec,
    validation::{Validator, archive::ArchiveValidator, shared::SharedValidator},
};

pub use write_as::WriteAs;

use crate::writer::{BUFFER_ALIGN, RecordWriter};

/// The rkyv serializer that every record is written with; its failures carry a trace.
pub type RecordSerializer = Strategy<RecordWriter, Error>;
/// The rkyv deserializer that every record is read back with.
pub type RecordDeserializer = Strategy<(), Error>;

/// The archived form of `T`: what operators after an exchange read in place.
pub type InPlaceOf<T> = Archived<T>;

/// A type that Tidemill can move between cores, store and restore.
///
/// Derive it: `#[derive(Record)]` gives the archive, its validation, and the schema below.
///
/// ```
/// # extern crate tidemill_storage as tidemill;
/// use tidemill::Record;
///
/// #[derive(Record)]
/// struct Flight { number: u32, origin: String }
///
/// fn is_long(flight: &ArchivedFlight) -> bool { flight.number > 9999 || flight.origin.len() > 3 }
/// ```
///
/// A field that is no record is refused, where the compiler points at the field:
///
/// ```compile_fail,E0277
/// # extern crate tidemill_storage as tidemill;
/// #[derive(tidemill::Record)]
/// struct Counted { name: String, count: usize }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Tidemill record",
    label = "not a record",
    note = "records are: types with `#[derive(Record)]`; numbers (`u64`, not `usize`), `bool`, `char`, `String`; \
            `Option`, `Vec`, `Box`, arrays and tuples of records"
)]
pub trait Record:
    Archive<Archived: RecordView<Self>> + Serialize<RecordSerializer> + Send + Sized + 'static
{
    /// Version of the layout, raised by the author when the fields change; 1 by default.
    const SCHEMA_VERSION: u32;

    /// Whether the archived bytes are those of the value itself, so that writing one is a copy and nothing lies
    /// out of line.
    const PLAIN: bool = Self::COPY_OPTIMIZATION.is_enabled();

    /// Whether nothing of an archived record lies out of line: it is its root, and all have one size.
    const FIXED: bool;

    /// Name under which the type is stored, by default the type's own; composed types name their parts with
    /// their [`schema`](Self::schema): `Vec<Bid>`, `Vec<Bid.v2>`.
    fn schema_name() -> Cow<'static, str>;

    /// Name and version in one: the name alone for version 1, else `name.vN`.
    fn schema() -> Cow<'static, str> {
        match Self::SCHEMA_VERSION {
            1 => Self::schema_name(),
            version => Cow::Owned(format!("{}.v{version}", Self::schema_name())),
        }
    }
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

/// Why a record could not be written, read or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes are no archive of the type: damaged, cut off, misaligned, or written by another type or version.
    /// Check that the type did not change without a new schema version, then restore from an older copy.
    #[error(
        "bytes are no valid record of type `{record}`: damaged, or written by another version of the type"
    )]
    Invalid {
        /// Schema name and version of the type that was expected.
        record: Cow<'static, str>,
        /// What the validation found, and where.
        source: Error,
    },
    /// The value could not be archived. Records that consist of records never fail: mend the field's own
    /// serialization.
    #[error("a record of type `{record}` cannot be written")]
    Write {
        /// Schema name and version of the value's type.
        record: Cow<'static, str>,
        /// What the serializer says.
        source: Error,
    },
    /// The archive could not be turned back into a value. Records that consist of records never fail: mend
    /// the field's own deserialization.
    #[error("a record of type `{record}` cannot be restored")]
    Restore {
        /// Schema name and version of the value's type.
        record: Cow<'static, str>,
        /// What the deserializer says.
        source: Error,
    },
}

/// Pointers that may follow one another from a root, a tree's depth for example. Bounds the stack that
/// [`access`] needs for bytes that mean harm.
const DEPTH_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// What is wrong with a root before anything is read.
#[derive(Debug, thiserror::Error)]
enum RootError {
    #[error("the root at {root} does not fit {len} bytes")]
    Outside { root: usize, len: usize },
    #[error("the root at {root} is not aligned to {align} bytes in memory")]
    Misaligned { root: usize, align: usize },
}

/// The record of type `T` whose root is at `root`, after checking the root and all that it points to.
///
/// `bytes` must be aligned as the root is; [`BUFFER_ALIGN`] always suffices. What the root
/// points to may lie before or behind it, anywhere in `bytes`, so that batches (roots in front) and single
/// values (root last) are both accepted; rkyv's own `access_pos` takes the latter only.
///
/// # Errors
/// [`RecordError::Invalid`] when anything is not as the type wants it, misalignment, a root outside the
/// bytes and more than 256 nested pointers included. Never panics and never reads outside `bytes`.
pub fn access<T: Record>(bytes: &[u8], root: usize) -> Result<&T::Archived, RecordError> {
    match check::<T>(bytes, root) {
        // SAFETY: the check has read every part of the record and found it valid.
        Ok(()) => Ok(unsafe { access_unchecked::<T>(bytes, root) }),
        Err(source) => Err(RecordError::Invalid { record: T::schema(), source }),
    }
}

/// Validates the record whose root is at `root`.
fn check<T: Record>(bytes: &[u8], root: usize) -> Result<(), Error> {
    if root.checked_add(size_of::<T::Archived>()).is_none_or(|end| end > bytes.len()) {
        return Err(Error::new(RootError::Outside { root, len: bytes.len() }));
    }
    let pointer = bytes.as_ptr().wrapping_add(root).cast::<T::Archived>();
    if !pointer.is_aligned() {
        return Err(Error::new(RootError::Misaligned { root, align: align_of::<T::Archived>() }));
    }
    let mut validator =
        Validator::new(ArchiveValidator::with_max_depth(bytes, Some(DEPTH_MAX)), SharedValidator::new());
    // The validator lets a part point to what lies before it in `bytes`, and parts that it has passed already are not
    // passed again: so it ends. Only the root is exempt from the order, and nothing reaches it as a part
    // twice.
    // SAFETY: the pointer is aligned and within `bytes`, as was just checked.
    unsafe { CheckBytes::check_bytes(pointer, Strategy::<_, Error>::wrap(&mut validator)) }
}

/// The record of type `T` whose root is at `root`, unchecked.
///
/// # Safety
/// `bytes` were written by a [`RecordWriter`] that put a root of exactly this type there, and were not changed; they
/// are aligned as the root is.
#[inline]
pub unsafe fn access_unchecked<T: Record>(bytes: &[u8], root: usize) -> &T::Archived {
    debug_assert!(root + size_of::<T::Archived>() <= bytes.len(), "root outside the bytes");
    // SAFETY: the caller promises a root of this type at this place.
    let pointer = unsafe { bytes.as_ptr().add(root) }.cast::<T::Archived>();
    debug_assert!(pointer.is_aligned(), "misaligned root");
    // SAFETY: as above, and it lives as long as `bytes`.
    unsafe { &*pointer }
}

/// Archives one record alone. Its root comes last: at [`last_root`] of the length.
///
/// # Errors
/// [`RecordError::Write`], which records that consist of records never give.
pub fn to_bytes<T: Record>(value: &T) -> Result<RecordWriter, RecordError> {
    let mut writer = RecordWriter::default();
    match writer.append(value) {
        Ok(root) => {
            debug_assert_eq!(Some(root), last_root::<T>(writer.len()));
            Ok(writer)
        }
        Err(source) => Err(RecordError::Write { record: T::schema(), source }),
    }
}

/// Reads back what [`to_bytes`] has written, from bytes at any address.
///
/// # Errors
/// [`RecordError::Invalid`] when they are no such record.
pub fn from_bytes<T: Record>(bytes: &[u8]) -> Result<T, RecordError> {
    let mut aligned = AlignedVec::<BUFFER_ALIGN>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    // Too few bytes are refused by the check, wherever the root is said to be.
    let root = last_root::<T>(bytes.len()).unwrap_or(0);
    access::<T>(&aligned, root).and_then(from_archived::<T>)
}

/// Where the root is in `len` bytes that end with it; `None` if they are too few.
pub fn last_root<T: Record>(len: usize) -> Option<usize> {
    len.checked_sub(size_of::<T::Archived>())
}

/// Turns an archived record back into the value.
///
/// # Errors
/// [`RecordError::Restore`], which records that consist of records never give.
#[inline]
pub fn from_archived<T: Record>(archived: &T::Archived) -> Result<T, RecordError> {
    archived
        .deserialize(Strategy::wrap(&mut ()))
        .map_err(|source| RecordError::Restore { record: T::schema(), source })
}

/// As [`from_archived`], for records that consist of records.
///
/// # Panics
/// When a field has its own deserialization and that fails.
#[inline]
pub fn restore<T: Record>(archived: &T::Archived) -> T {
    match from_archived(archived) {
        Ok(value) => value,
        Err(error) => panic!("{error}: {error:?}"),
    }
}

/// Lends the value of an archived record: in place where its bytes are the value's own ([`Record::PLAIN`]), else restored.
#[inline(always)]
pub fn with_value<T: Record, R>(archived: &T::Archived, lend: impl FnOnce(&T) -> R) -> R {
    if T::PLAIN {
        // SAFETY: a plain type has the size, alignment and bytes of its archived form.
        return lend(unsafe { &*std::ptr::from_ref(archived).cast::<T>() });
    }
    lend(&restore::<T>(archived))
}

/// Reads a value as its archived form: in place where both have the same bytes, else written aside first.
///
/// # Panics
/// When a field has its own serialization and that fails.
#[inline(always)]
pub fn with_archived<T: Record, R>(value: &T, lend: impl FnOnce(&T::Archived) -> R) -> R {
    if T::PLAIN {
        // SAFETY: as in `with_value`.
        return lend(unsafe { &*std::ptr::from_ref(value).cast::<T::Archived>() });
    }
    match archived_in(value, &mut RecordWriter::default()) {
        Ok(archived) => lend(archived),
        Err(source) => {
            let error = RecordError::Write { record: T::schema(), source };
            panic!("{error}: {error:?}")
        }
    }
}

/// Archives a value into `scratch`, whose contents are lost, and gives the archive to read.
///
/// # Errors
/// As [`RecordWriter::put_root_as`].
#[inline(always)]
pub fn archived_in<'s, T: Record>(
    value: &impl WriteAs<T>,
    scratch: &'s mut RecordWriter,
) -> Result<&'s T::Archived, Error> {
    scratch.reset(size_of::<T::Archived>());
    scratch.put_root_as(0, value)?;
    // SAFETY: the root was put there just now.
    Ok(unsafe { access_unchecked::<T>(scratch.bytes(), 0) })
}
