//! [`RecordWriter`]: the growing, aligned buffer that records are archived into.
//!
//! The buffer is one run of bytes in which positions only grow, except that a caller may keep room
//! for roots at the front ([`RecordWriter::reset`]) and fill it with [`RecordWriter::put_root`] while
//! strings and vectors are appended behind. Pointers are relative, so the buffer may move as a whole.
//!
//! Unsafe leaf: it resolves rkyv archives in place.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr::NonNull,
};

use rkyv::{
    Archive, Place,
    rancor::{Error, Strategy},
    ser::{Allocator, Positional, Sharing, Writer, sharing::SharingState},
    util::AlignedVec,
};

use crate::record::{Record, WriteAs};

/// Alignment of every buffer that holds archived records: one cache line.
pub const BUFFER_ALIGN: usize = 64;

/// An aligned, growing buffer that records are archived into.
#[derive(Debug, Default)]
pub struct RecordWriter {
    bytes: AlignedVec<BUFFER_ALIGN>,
}

impl RecordWriter {
    /// An empty writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: AlignedVec::with_capacity(capacity) }
    }

    /// Forgets the contents and keeps `roots_len` bytes at the front for roots.
    pub fn reset(&mut self, roots_len: usize) {
        // Only the part that was never written has to be filled; old bytes are overwritten by roots.
        if self.bytes.len() < roots_len {
            self.bytes.resize(roots_len, 0);
        } else {
            // SAFETY: shrinking to a length whose bytes are all initialised.
            unsafe { self.bytes.set_len(roots_len) };
        }
    }

    /// Length in bytes, the room for roots included.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written and no room for roots was kept.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that fit before the buffer has to be reallocated.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Everything written, aligned to [`BUFFER_ALIGN`].
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends raw bytes and returns their position.
    #[inline]
    pub fn append_bytes(&mut self, bytes: &[u8]) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        at
    }

    /// Archives `value` with its root at `position`, which must lie in the room kept by
    /// [`reset`](Self::reset) and be a multiple of the root's alignment.
    ///
    /// # Errors
    /// Fails when a field's own serialization fails (shared pointers are not supported).
    ///
    /// # Panics
    /// When the root does not fit at `position`.
    #[inline]
    pub fn put_root<T: Record>(&mut self, position: usize, value: &T) -> Result<(), Error> {
        self.assert_room::<T>(position);
        // SAFETY: there is room, as was just checked.
        unsafe { self.put_root_unchecked(position, value) }
    }

    fn assert_room<T: Record>(&self, position: usize) {
        let end = position + size_of::<T::Archived>();
        assert!(end <= self.bytes.len(), "root outside the room kept for roots");
        assert_eq!(position % align_of::<T::Archived>(), 0, "misaligned root");
    }

    /// As [`put_root`](Self::put_root), without looking whether there is room.
    ///
    /// # Errors
    /// As [`put_root`](Self::put_root).
    ///
    /// # Safety
    /// The root fits at `position`, which is aligned.
    #[inline(always)]
    pub unsafe fn put_root_unchecked<T: Record>(&mut self, position: usize, value: &T) -> Result<(), Error> {
        debug_assert!(position + size_of::<T::Archived>() <= self.bytes.len(), "root outside the room");
        debug_assert_eq!(position % align_of::<T::Archived>(), 0);
        if T::COPY_OPTIMIZATION.is_enabled() {
            // SAFETY: the place lies within the buffer and is aligned, says the caller; `COPY_OPTIMIZATION`
            // promises that `T`'s bytes are those of its archived form.
            unsafe {
                let place = self.bytes.as_mut_ptr().add(position).cast::<T>();
                std::ptr::copy_nonoverlapping(std::ptr::from_ref(value), place, 1);
            }
            return Ok(());
        }
        let resolver = value.serialize(Strategy::wrap(self))?;
        // SAFETY: the place lies within the buffer (says the caller; serializing only grows it), is
        // aligned because the buffer is and `position` is, and nothing else borrows it.
        unsafe {
            let pointer = self.bytes.as_mut_ptr().add(position).cast::<T::Archived>();
            let place = Place::new_unchecked(position, pointer);
            Archive::resolve(value, resolver, place);
        }
        Ok(())
    }

    /// Archives a borrowed form of a record as [`put_root`](Self::put_root) would the record.
    ///
    /// # Errors
    /// As [`put_root`](Self::put_root).
    ///
    /// # Panics
    /// When the root does not fit at `position`.
    #[inline]
    pub fn put_root_as<T: Record>(&mut self, position: usize, value: &impl WriteAs<T>) -> Result<(), Error> {
        self.assert_room::<T>(position);
        // SAFETY: there is room, as was just checked.
        unsafe { self.put_root_as_unchecked(position, value) }
    }

    /// As [`put_root_as`](Self::put_root_as), without looking whether there is room.
    ///
    /// # Errors
    /// As [`put_root`](Self::put_root).
    ///
    /// # Safety
    /// As [`put_root_unchecked`](Self::put_root_unchecked).
    #[inline(always)]
    pub unsafe fn put_root_as_unchecked<T: Record>(
        &mut self,
        position: usize,
        value: &impl WriteAs<T>,
    ) -> Result<(), Error> {
        debug_assert!(position + size_of::<T::Archived>() <= self.bytes.len(), "root outside the room");
        debug_assert_eq!(position % align_of::<T::Archived>(), 0);
        let resolver = value.serialize_as(Strategy::wrap(self))?;
        // SAFETY: as in `put_root_unchecked`; `WriteAs` promises the archive of a `T`.
        unsafe {
            let pointer = self.bytes.as_mut_ptr().add(position).cast::<T::Archived>();
            value.resolve_as(resolver, Place::new_unchecked(position, pointer));
        }
        Ok(())
    }

    /// Archives `value` behind everything written so far and returns the position of its root.
    ///
    /// # Errors
    /// As [`put_root`](Self::put_root).
    pub fn append<T: Record>(&mut self, value: &T) -> Result<usize, Error> {
        let resolver = value.serialize(Strategy::wrap(self))?;
        let position = self.bytes.len().next_multiple_of(align_of::<T::Archived>());
        self.bytes.resize(position + size_of::<T::Archived>(), 0);
        // SAFETY: as in `put_root_unchecked`; the room was made just above.
        unsafe {
            let pointer = self.bytes.as_mut_ptr().add(position).cast::<T::Archived>();
            Archive::resolve(value, resolver, Place::new_unchecked(position, pointer));
        }
        Ok(position)
    }
}

impl Positional for RecordWriter {
    #[inline]
    fn pos(&self) -> usize {
        self.bytes.len()
    }
}

impl Writer<Error> for RecordWriter {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

// SAFETY: every allocation comes fresh from the global allocator with the layout asked for.
unsafe impl Allocator<Error> for RecordWriter {
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, Error> {
        // SAFETY: the caller promises a layout of non-zero size.
        let pointer = unsafe { alloc(layout) };
        match NonNull::new(pointer) {
            Some(pointer) => Ok(NonNull::slice_from_raw_parts(pointer, layout.size())),
            None => handle_alloc_error(layout),
        }
    }

    unsafe fn pop_alloc(&mut self, pointer: NonNull<u8>, layout: Layout) -> Result<(), Error> {
        // SAFETY: the caller gives back what `push_alloc` returned, with the same layout.
        unsafe { dealloc(pointer.as_ptr(), layout) };
        Ok(())
    }
}

/// Shared pointers are written once per pointer: a record that crosses cores owns all that it shows.
impl Sharing<Error> for RecordWriter {
    fn start_sharing(&mut self, _address: usize) -> SharingState {
        SharingState::Started
    }

    fn finish_sharing(&mut self, _address: usize, _position: usize) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rkyv::Archived;

    #[test]
    fn roots_at_the_front_reach_strings_behind_them_even_after_growth() {
        #[allow(unsafe_code)]
        fn read(writer: &RecordWriter, position: usize) -> &Archived<String> {
            // SAFETY: a `String` root was put there.
            unsafe { &*writer.bytes().as_ptr().add(position).cast() }
        }
        let mut writer = RecordWriter::with_capacity(16);
        let stride = size_of::<Archived<String>>();
        writer.reset(3 * stride);
        let words = ["short", "a word that is too long to be kept inline", ""];
        for (i, word) in words.iter().enumerate() {
            writer.put_root(i * stride, &(*word).to_owned()).unwrap();
        }
        for (i, word) in words.iter().enumerate() {
            assert_eq!(read(&writer, i * stride).as_str(), *word);
        }
    }
}
