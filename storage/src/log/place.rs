//! How one record lies in a block: reading and writing its parts by address. Both layouts are specified in
//! [`Layout`](super::seal::Layout) and [`sized`](super::sized).
//!
//! Unsafe leaf: every function needs what [`Place`] promises.
#![allow(unsafe_code)]

use std::ops::Range;

use rkyv::Archived;

use super::{
    blocks::Shape,
    pool::CHUNK_BYTES,
    seal::Layout,
    sized::{DEAD, HEADER_BYTES, KEY_BYTES_MAX, RECORD_BYTES_MAX, UNIT_BYTES},
};
use crate::{
    key::Key,
    record::Record,
    state::{KeyView, StateError, fault},
    writer::RecordWriter,
};

/// Records of one size larger than this are treated as those of any size, which need not fit a block many times.
const STRIDE_MAX: usize = CHUNK_BYTES / 64;

const SIZE_MASK: u32 = DEAD - 1;

/// The layout of records with key `K` and value `V`.
pub struct Form<K, V>(std::marker::PhantomData<fn() -> (K, V)>);

impl<K: Key, V: Record> Form<K, V> {
    /// Whether the hash is the key.
    pub const NARROW: bool = K::WIDTH.is_narrow();
    /// Alignment of values.
    pub const ALIGN: usize = {
        let align = align_of::<Archived<V>>();
        assert!(align <= UNIT_BYTES, "archived values are aligned to 16 bytes at most");
        if align > 8 { align } else { 8 }
    };
    const VALUE_LEN: usize = size_of::<Archived<V>>();
    /// Bytes per record, if all have one size.
    pub const STRIDE: usize = (Self::ALIGN + Self::VALUE_LEN).next_multiple_of(Self::ALIGN);
    /// Where in a record the value is, if all have one size.
    pub const VALUE: Range<usize> = Self::ALIGN..Self::ALIGN + Self::VALUE_LEN;
    /// Whether all records have one size.
    pub const STRIDED: bool = Self::NARROW && V::FIXED && Self::STRIDE <= STRIDE_MAX;
    /// Units of addresses.
    pub const SHAPE: Shape = Shape::of(if Self::STRIDED { Self::STRIDE } else { UNIT_BYTES }, Self::STRIDED);
    /// As it is declared.
    pub const LAYOUT: Layout = if Self::STRIDED {
        Layout::Stride {
            stride: Self::STRIDE as u32,
            value_at: Self::ALIGN as u32,
            value_len: Self::VALUE_LEN as u32,
        }
    } else {
        Layout::Sized { narrow: Self::NARROW, align: Self::ALIGN as u32 }
    };

    /// Where the value of a record of any size begins, behind a key of this length.
    fn value_at(key_len: usize) -> usize {
        let key = if Self::NARROW { 0 } else { 2 + key_len };
        (HEADER_BYTES + key).next_multiple_of(Self::ALIGN)
    }

    /// Units that a record takes.
    ///
    /// Unwinds with [`StateError::TooLong`] when key or value are over the limit.
    pub fn units(key: KeyView<'_>, value_len: usize) -> u32 {
        if Self::STRIDED {
            return 1;
        }
        if key.bytes.len() > KEY_BYTES_MAX {
            let (bytes, bytes_max) = (key.bytes.len() as u64, KEY_BYTES_MAX as u64);
            fault(StateError::TooLong { what: "key", bytes, bytes_max });
        }
        let bytes = Self::value_at(key.bytes.len()) + value_len;
        if bytes > RECORD_BYTES_MAX {
            let bytes_max = (RECORD_BYTES_MAX - KEY_BYTES_MAX - HEADER_BYTES - UNIT_BYTES) as u64;
            fault(StateError::TooLong { what: "value", bytes: value_len as u64, bytes_max });
        }
        bytes.div_ceil(UNIT_BYTES) as u32
    }
}

/// A record in memory. Whoever makes one promises that a whole record of the form lies there, or room for one that is
/// written before it is read, that the memory stays for as long as the place is used, and that it may be
/// written if a writing function is called.
#[derive(Clone, Copy)]
pub struct Place(pub *mut u8);

impl Place {
    /// The hash of the key.
    #[inline(always)]
    pub fn hash(self) -> u64 {
        // SAFETY: every record begins with its hash, aligned to 8 bytes.
        u64::from_le(unsafe { self.0.cast::<u64>().read() })
    }

    #[inline(always)]
    fn word(self, at: usize) -> u32 {
        // SAFETY: the header of a record of any size has this word.
        u32::from_le(unsafe { self.0.add(at).cast::<u32>().read() })
    }

    #[inline(always)]
    fn set_word(self, at: usize, word: u32) {
        // SAFETY: as above, and the record may be written.
        unsafe { self.0.add(at).cast::<u32>().write(word.to_le()) }
    }

    /// Units that the record takes.
    #[inline(always)]
    pub fn units<K: Key, V: Record>(self) -> u32 {
        if Form::<K, V>::STRIDED { 1 } else { self.word(8) & SIZE_MASK }
    }

    /// Units of a record that is known to be one of any size.
    #[inline(always)]
    pub fn sized_units(self) -> u32 {
        self.word(8) & SIZE_MASK
    }

    /// Marks it as dead; only records of any size can be.
    pub fn mark_dead(self) {
        self.set_word(8, self.word(8) | DEAD);
    }

    #[inline(always)]
    fn key_len<K: Key, V: Record>(self) -> usize {
        if Form::<K, V>::NARROW {
            return 0;
        }
        // SAFETY: behind the header of a record with a wide key is the key's length.
        usize::from(u16::from_le(unsafe { self.0.add(HEADER_BYTES).cast::<u16>().read() }))
    }

    /// The key.
    #[inline(always)]
    pub fn key<'a, K: Key, V: Record>(self) -> KeyView<'a> {
        if Form::<K, V>::NARROW {
            return KeyView { hash: self.hash(), bytes: &[] };
        }
        // SAFETY: behind its length is the key.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.0.add(HEADER_BYTES + 2), self.key_len::<K, V>()) };
        KeyView { hash: self.hash(), bytes }
    }

    /// Whether this is the record of a key.
    #[inline(always)]
    pub fn is<K: Key, V: Record>(self, key: KeyView<'_>) -> bool {
        if Form::<K, V>::NARROW {
            return self.hash() == key.hash;
        }
        self.hash() == key.hash
            && self.key_len::<K, V>() == key.bytes.len()
            && (key.bytes.is_empty() || self.key::<K, V>().bytes == key.bytes)
    }

    /// Where the value begins.
    #[inline(always)]
    fn value_start<K: Key, V: Record>(self) -> *mut u8 {
        let at = if Form::<K, V>::STRIDED {
            Form::<K, V>::ALIGN
        } else {
            Form::<K, V>::value_at(self.key_len::<K, V>())
        };
        self.0.wrapping_add(at)
    }

    /// Length of the value.
    #[inline(always)]
    fn value_len<K: Key, V: Record>(self) -> usize {
        if Form::<K, V>::STRIDED { size_of::<Archived<V>>() } else { self.word(12) as usize }
    }

    /// The archived value.
    #[inline(always)]
    pub fn value<'a, K: Key, V: Record>(self) -> &'a Archived<V> {
        let root = self.value_len::<K, V>() - size_of::<Archived<V>>();
        // SAFETY: the value was written by `write`, root last, or checked when it was restored; it is aligned.
        unsafe { &*self.value_start::<K, V>().add(root).cast::<Archived<V>>() }
    }

    /// The value itself, of a plain type.
    #[inline(always)]
    pub fn plain<'a, K: Key, V: Record>(self) -> &'a mut V {
        debug_assert!(V::PLAIN);
        // SAFETY: a plain type has the bytes of its archived form, which lies here; the caller has it for itself.
        unsafe { &mut *self.value_start::<K, V>().cast::<V>() }
    }

    /// Room for the value, in bytes.
    pub fn value_room<K: Key, V: Record>(self) -> usize {
        if Form::<K, V>::STRIDED {
            return size_of::<Archived<V>>();
        }
        let at = self.value_start::<K, V>() as usize - self.0 as usize;
        self.word(8) as usize % (SIZE_MASK as usize + 1) * UNIT_BYTES - at
    }

    /// Writes a whole record of so many units.
    #[inline(always)]
    pub fn write<K: Key, V: Record>(self, key: KeyView<'_>, units: u32, value: &[u8]) {
        self.write_key::<K, V>(key, units);
        self.write_value::<K, V>(value);
    }

    /// Writes everything but the value.
    #[inline(always)]
    fn write_key<K: Key, V: Record>(self, key: KeyView<'_>, units: u32) {
        // SAFETY: there is room for a record.
        unsafe { self.0.cast::<u64>().write(key.hash.to_le()) };
        if Form::<K, V>::STRIDED {
            return;
        }
        self.set_word(8, units);
        if Form::<K, V>::NARROW {
            return;
        }
        // SAFETY: as above; `Form::units` has made room for the key.
        unsafe {
            self.0.add(HEADER_BYTES).cast::<u16>().write((key.bytes.len() as u16).to_le());
            self.0.add(HEADER_BYTES + 2).copy_from_nonoverlapping(key.bytes.as_ptr(), key.bytes.len());
        }
    }

    /// Writes the value of a record whose key is written; it fits its room.
    #[inline(always)]
    pub fn write_value<K: Key, V: Record>(self, value: &[u8]) {
        if !Form::<K, V>::STRIDED {
            self.set_word(12, value.len() as u32);
        }
        // SAFETY: the caller has asked for enough units, or for the room.
        unsafe { self.value_start::<K, V>().copy_from_nonoverlapping(value.as_ptr(), value.len()) };
    }

    /// Writes a record with a plain value.
    #[inline(always)]
    pub fn write_plain<K: Key, V: Record>(self, key: KeyView<'_>, units: u32, value: &V) {
        debug_assert!(V::PLAIN);
        self.write_key::<K, V>(key, units);
        if !Form::<K, V>::STRIDED {
            self.set_word(12, size_of::<V>() as u32);
        }
        // SAFETY: there is room, aligned; a plain value's bytes are its archived form's. It owns nothing.
        unsafe { self.value_start::<K, V>().cast::<V>().copy_from_nonoverlapping(value, 1) };
    }

    /// Replaces a plain value.
    #[inline(always)]
    pub fn set_plain<K: Key, V: Record>(self, value: &V) {
        debug_assert!(V::PLAIN);
        // SAFETY: the value lies there, aligned; a plain value's bytes are its archived form's. It owns nothing.
        unsafe { self.value_start::<K, V>().cast::<V>().copy_from_nonoverlapping(value, 1) };
    }

    /// Copies a whole record of so many units from another place.
    #[inline(always)]
    pub fn copy<K: Key, V: Record>(self, from: *const u8, units: u32) {
        let bytes = units as usize * Form::<K, V>::SHAPE.unit;
        // In two parts, so that the value, which is read next as a rule, is written by itself: what is read across the
        // border of two writes waits until both have left the core.
        let value = if Form::<K, V>::STRIDED { Form::<K, V>::VALUE.start } else { 0 };
        // SAFETY: both places have room for a record of this size, and are apart; a value begins within its record.
        unsafe {
            self.0.copy_from_nonoverlapping(from, value);
            self.0.add(value).copy_from_nonoverlapping(from.add(value), bytes - value);
        }
    }

    /// Copies whole records from another place, so many bytes.
    #[inline(always)]
    pub fn copy_bytes(self, from: *const u8, bytes: usize) {
        // SAFETY: both places have room for that much, and are apart.
        unsafe { self.0.copy_from_nonoverlapping(from, bytes) };
    }
}

/// The archived form of a value, root last, in `scratch`.
pub fn archive<'s, V: Record>(scratch: &'s mut RecordWriter, value: &V) -> &'s [u8] {
    scratch.reset(0);
    if let Err(source) = scratch.append(value) {
        fault(StateError::Record(crate::record::RecordError::Write { record: V::schema(), source }));
    }
    scratch.bytes()
}
