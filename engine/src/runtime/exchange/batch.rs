//! A batch: records of one type archived once into one aligned buffer, with columns beside them.
//!
//! ```text
//! bytes       | root 0 | root 1 | … room for `capacity` roots | strings and vectors of all records, in order of arrival |
//! timestamps  | i64 …            (absent on an edge without event time)
//! hashes      | u64 …            (on a keyed edge; for a narrow key the hash *is* the key)
//! keys        | (start, length)… (on an edge with wide keys: the key's bytes, between strings and vectors)
//! ```
//!
//! Roots have one size, so record `i` is found by multiplication and plain records are a slice. Out-of-line
//! parts are reached by pointers relative to the root, so the bytes mean the same wherever they lie: in
//! another core's hands, on the wire or in a checkpoint.
//!
//! Unsafe leaf: reads roots that it wrote itself without validating them again.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use rkyv::{Archived, rancor};
use tidemill_storage::{
    prefetch::{prefetch, prefetch_for_writing},
    record::{Record, WriteAs, access, restore},
    state::{KeyColumn, KeyView},
    writer::RecordWriter,
};

use crate::{model::time::Timestamp, platform::Nanos};

/// No batch that is read has room for more records: what the settings allow.
const CAPACITY_MAX: usize = 1 << 20;
/// No batch that is read is complete only with more out-of-line bytes: what the settings allow.
const BYTES_MAX: usize = 1 << 30;

/// Which columns the batches of an edge carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Event timestamps.
    pub timestamps: bool,
    /// Key hashes.
    pub hashes: bool,
    /// Bytes of wide keys.
    pub keys: bool,
}

/// The key of a record, as far as its edge carries it.
#[derive(Clone, Copy, Debug)]
pub enum RecordKey<'k> {
    /// The edge is not keyed.
    None,
    /// The hash of a narrow key, which is the key.
    Narrow(u64),
    /// The hash and the bytes of a wide key.
    Wide(u64, &'k [u8]),
}

impl RecordKey<'_> {
    /// The hash; 0 where there is no key.
    #[inline(always)]
    pub fn hash(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Narrow(hash) | Self::Wide(hash, _) => *hash,
        }
    }

    /// The bytes of a wide key.
    #[inline(always)]
    pub fn wide(&self) -> Option<&[u8]> {
        if let Self::Wide(_, bytes) = self { Some(bytes) } else { None }
    }
}

/// Where the bytes of one record's key lie in the batch.
#[derive(Clone, Copy, Debug)]
struct KeySpan {
    start: u32,
    length: u32,
}

/// Records of type `T` on their way between two subtasks. What is read of every batch lies in its first cache line, which is all
/// that crosses to the other core where there are no columns.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Batch<T> {
    bytes: RecordWriter,
    len: usize,
    capacity: usize,
    /// When the oldest record in it entered the job.
    pub ingest: Nanos,
    /// When the first record was put into it.
    pub opened: Nanos,
    columns: Columns,
    bytes_max: usize,
    /// With a place for each record that there is room for, if there is such a column, as the next.
    timestamps: Vec<Timestamp>,
    hashes: Vec<u64>,
    keys: Vec<KeySpan>,
    records: PhantomData<fn() -> T>,
}

/// Bytes of a cache line.
const LINE: usize = 64;
const _: () = assert!(std::mem::offset_of!(Batch<u8>, bytes_max) <= LINE, "what is read of every batch");

impl<T: Record> Batch<T> {
    const STRIDE: usize = size_of::<Archived<T>>();

    /// An empty batch for at most `capacity` records, complete when its out-of-line parts reach `bytes_max`.
    pub fn new(capacity: usize, bytes_max: usize, columns: Columns) -> Self {
        const { assert!(align_of::<Archived<T>>() <= tidemill_storage::writer::BUFFER_ALIGN) };
        let column = |used: bool| if used { capacity } else { 0 };
        let mut batch = Self {
            bytes: RecordWriter::with_capacity(capacity * Self::STRIDE),
            len: 0,
            capacity,
            bytes_max,
            columns,
            timestamps: vec![0; column(columns.timestamps)],
            hashes: vec![0; column(columns.hashes)],
            keys: Vec::with_capacity(column(columns.keys)),
            ingest: 0,
            opened: 0,
            records: PhantomData,
        };
        batch.clear();
        batch
    }

    /// Empties the batch for its next use. Room that one huge record needed is given back.
    pub fn clear(&mut self) {
        let roots = self.capacity * Self::STRIDE;
        if self.bytes.capacity() > 4 * (roots + self.bytes_max) {
            self.bytes = RecordWriter::with_capacity(roots + self.bytes_max);
        }
        self.bytes.reset(roots);
        // The other core has read it. It comes back while nothing waits for it.
        prefetch_for_writing(self.bytes.bytes().as_ptr());
        self.len = 0;
        if self.columns.keys {
            self.keys.clear();
        }
    }

    /// Number of records.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no record in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it has to be sent before another record is put.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.len == self.capacity || self.is_heavy()
    }

    /// Whether its out-of-line parts alone make it complete.
    #[inline(always)]
    fn is_heavy(&self) -> bool {
        self.bytes.len() - self.capacity * Self::STRIDE >= self.bytes_max
    }

    /// Bytes of the records, columns included.
    pub fn payload_bytes(&self) -> u64 {
        let out_of_line = self.bytes.len() - self.capacity * Self::STRIDE;
        let Columns { timestamps, hashes, keys } = self.columns;
        let columns = 8 * [timestamps, hashes, keys].into_iter().filter(|used| *used).count();
        (self.len * (Self::STRIDE + columns) + out_of_line) as u64
    }

    /// Archives one record, with the key that the batch's columns are for; returns whether the batch has to be sent now.
    ///
    /// # Errors
    /// When a field of the record cannot be serialized; the batch is as before.
    ///
    /// # Panics
    /// When the batch is full.
    #[inline(always)]
    pub fn put(
        &mut self,
        record: &T,
        timestamp: Timestamp,
        key: RecordKey<'_>,
    ) -> Result<bool, rancor::Error> {
        // SAFETY: `put_with` gives a place in the room for roots.
        self.put_with(timestamp, key, |bytes, at| unsafe { bytes.put_root_unchecked(at, record) })
    }

    /// As [`put`](Self::put), with a value that is archived as a `T`.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Panics
    /// As [`put`](Self::put).
    #[inline(always)]
    pub fn put_view(
        &mut self,
        view: &impl WriteAs<T>,
        timestamp: Timestamp,
        key: RecordKey<'_>,
    ) -> Result<bool, rancor::Error> {
        // SAFETY: as in `put`.
        self.put_with(timestamp, key, |bytes, at| unsafe { bytes.put_root_as_unchecked::<T>(at, view) })
    }

    /// Puts a record whose root `put_root` writes at a place in the room for roots. What is known of the type and of the kind of key
    /// when this is compiled is not asked for each record.
    #[inline(always)]
    fn put_with(
        &mut self,
        timestamp: Timestamp,
        key: RecordKey<'_>,
        put_root: impl FnOnce(&mut RecordWriter, usize) -> Result<(), rancor::Error>,
    ) -> Result<bool, rancor::Error> {
        let (at, capacity) = (self.len, self.capacity);
        assert!(at < capacity, "a record was put into a full batch");
        let kind = (!matches!(key, RecordKey::None), matches!(key, RecordKey::Wide(..)));
        debug_assert_eq!(kind, (self.columns.hashes, self.columns.keys), "a key of the kind of the edge");
        if let RecordKey::Wide(_, key) = key {
            let start = self.bytes.append_bytes(key);
            // A batch is far below 4 GiB: its bytes are bounded by `bytes_max` plus one record.
            self.keys.push(KeySpan { start: start as u32, length: key.len() as u32 });
        }
        debug_assert!(
            self.bytes.len() >= capacity * Self::STRIDE,
            "room for all roots, as `clear` has made it"
        );
        if let Err(error) = put_root(&mut self.bytes, at * Self::STRIDE) {
            self.keys.truncate(at);
            return Err(error);
        }
        if self.columns.timestamps {
            self.timestamps[at] = timestamp;
        }
        if let RecordKey::Narrow(hash) | RecordKey::Wide(hash, _) = key {
            self.hashes[at] = hash;
        }
        self.len = at + 1;
        let grows = !T::FIXED || matches!(key, RecordKey::Wide(..));
        Ok(at + 1 == capacity || (grows && self.is_heavy()))
    }

    /// Appends the batch from its record `first` on: all that [`read_from`](Self::read_from) needs.
    ///
    /// ```text
    /// first u32 | records u32 | capacity u32 | bytes_max u64 | columns u8 | length of the out-of-line parts u64
    /// roots | out-of-line parts | timestamps i64 … | hashes u64 … | keys (start u32, length u32) …
    /// ```
    pub fn write_to(&self, first: usize, out: &mut Vec<u8>) {
        let room = self.capacity * Self::STRIDE;
        let (roots, parts) = (&self.bytes.bytes()[..self.len * Self::STRIDE], &self.bytes.bytes()[room..]);
        let Columns { timestamps, hashes, keys } = self.columns;
        // Batches are far below 4 Gi records: the settings bound them. Roots stay where they are, since they point to their parts.
        out.extend_from_slice(&(first as u32).to_le_bytes());
        out.extend_from_slice(&(self.len as u32).to_le_bytes());
        out.extend_from_slice(&(self.capacity as u32).to_le_bytes());
        out.extend_from_slice(&(self.bytes_max as u64).to_le_bytes());
        out.push(u8::from(timestamps) | u8::from(hashes) << 1 | u8::from(keys) << 2);
        out.extend_from_slice(&(parts.len() as u64).to_le_bytes());
        out.extend_from_slice(roots);
        out.extend_from_slice(parts);
        self.timestamps().iter().for_each(|at| out.extend_from_slice(&at.to_le_bytes()));
        self.hashes().iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
        for KeySpan { start, length } in &self.keys {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
        }
    }

    /// Reads a batch from the front of `bytes`; returns it, and what follows. Every record is validated.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read_from(bytes: &[u8]) -> Result<(Self, &[u8]), String> {
        let mut bytes = Bytes(bytes);
        let first = bytes.number()? as usize;
        let (len, capacity) = (bytes.number()? as usize, bytes.number()? as usize);
        let bytes_max = bytes.long()? as usize;
        let columns = bytes.take(1)?[0];
        let columns =
            Columns { timestamps: columns & 1 != 0, hashes: columns & 2 != 0, keys: columns & 4 != 0 };
        let parts = bytes.long()? as usize;
        if first > len || len > capacity || capacity > CAPACITY_MAX {
            return Err(format!("a batch of {len} records with room for {capacity}"));
        }
        let roots = bytes.take(len * Self::STRIDE)?;
        let parts = bytes.take(parts)?;
        let mut batch = Self::new(capacity, bytes_max.min(BYTES_MAX), columns);
        batch.bytes = RecordWriter::with_capacity(capacity * Self::STRIDE + parts.len());
        batch.bytes.append_bytes(roots);
        batch.bytes.reset(capacity * Self::STRIDE);
        batch.bytes.append_bytes(parts);
        for timestamp in batch.timestamps.iter_mut().take(len) {
            *timestamp = bytes.long()? as Timestamp;
        }
        for hash in batch.hashes.iter_mut().take(len) {
            *hash = bytes.long()?;
        }
        for _ in 0..if columns.keys { len } else { 0 } {
            let span = KeySpan { start: bytes.number()?, length: bytes.number()? };
            if span.start as usize + span.length as usize > batch.bytes.len() {
                return Err("a key lies outside its batch".to_owned());
            }
            batch.keys.push(span);
        }
        for record in 0..len {
            access::<T>(batch.bytes.bytes(), record * Self::STRIDE).map_err(|error| error.to_string())?;
        }
        batch.len = len;
        let batch = match first {
            0 => batch,
            first => batch.part(first..len).map_err(|error| error.to_string())?,
        };
        Ok((batch, bytes.0))
    }

    /// A batch of some of the records.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    fn part(&self, records: impl Iterator<Item = usize>) -> Result<Self, rancor::Error> {
        let mut part = Self::new(self.capacity, self.bytes_max, self.columns);
        (part.ingest, part.opened) = (self.ingest, self.opened);
        for i in records {
            let key = match self.hashes().get(i) {
                None => RecordKey::None,
                Some(hash) if self.columns.keys => RecordKey::Wide(*hash, self.key_bytes(i)),
                Some(hash) => RecordKey::Narrow(*hash),
            };
            part.put(&restore(&self.records()[i]), self.timestamp(i), key)?;
        }
        Ok(part)
    }

    /// Those of the records whose key has a hash that is wanted; `None` where that is none of them.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn of_keys(&self, is_wanted: impl Fn(u64) -> bool) -> Result<Option<Box<Self>>, rancor::Error> {
        let own = self.part((0..self.len).filter(|i| is_wanted(self.hashes[*i])))?;
        Ok((!own.is_empty()).then(|| Box::new(own)))
    }

    /// Where its records lie, for [`fetch`](Self::fetch). The same as long as nothing is put into it.
    #[inline(always)]
    pub fn place(&self) -> usize {
        self.bytes.bytes().as_ptr().addr()
    }

    /// Fetches the first line of the batch and that of its records, which lie at `place`, at once: one after the other, as they are
    /// found, each is a trip to another core.
    #[inline(always)]
    pub fn fetch(&self, place: usize) {
        prefetch(std::ptr::from_ref(self).cast());
        prefetch(std::ptr::without_provenance(place));
    }

    /// All records, read in place.
    #[inline(always)]
    pub fn records(&self) -> &[Archived<T>] {
        // SAFETY: `put` resolved `len` roots at multiples of STRIDE from the front of a buffer that is aligned
        // for them (asserted in `new`), and nothing has overwritten them since.
        unsafe { std::slice::from_raw_parts(self.bytes.bytes().as_ptr().cast(), self.len) }
    }

    /// Event timestamp of record `i`, or `NO_TIMESTAMP` on an edge without event time.
    #[inline(always)]
    pub fn timestamp(&self, i: usize) -> Timestamp {
        if self.columns.timestamps { self.timestamps[i] } else { crate::model::time::NO_TIMESTAMP }
    }

    /// The column of timestamps; empty on an edge without event time.
    #[inline(always)]
    pub fn timestamps(&self) -> &[Timestamp] {
        self.timestamps.get(..self.len).unwrap_or_default()
    }

    /// The column of key hashes; empty on an edge that is not keyed.
    #[inline(always)]
    pub fn hashes(&self) -> &[u64] {
        self.hashes.get(..self.len).unwrap_or_default()
    }

    /// Bytes of the key of record `i`; empty unless the edge has wide keys.
    #[inline(always)]
    pub fn key_bytes(&self, i: usize) -> &[u8] {
        match self.keys.get(i) {
            Some(span) => &self.bytes.bytes()[span.start as usize..][..span.length as usize],
            None => &[],
        }
    }
}

impl<T: Record> KeyColumn for Batch<T> {
    #[inline(always)]
    fn key(&self, i: usize) -> KeyView<'_> {
        KeyView { hash: self.hashes[i], bytes: self.key_bytes(i) }
    }

    #[inline(always)]
    fn hash(&self, i: usize) -> u64 {
        self.hashes[i]
    }
}

/// Bytes that are read from the front.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("a batch is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, String> {
        let (number, rest) = self.0.split_first_chunk().ok_or("a batch is cut off")?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*number))
    }

    fn long(&mut self) -> Result<u64, String> {
        let (number, rest) = self.0.split_first_chunk().ok_or("a batch is cut off")?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(batch: &Batch<String>) -> Vec<&str> {
        batch.records().iter().map(|word| word.as_str()).collect()
    }

    #[test]
    fn records_and_columns_are_read_back_in_place_and_the_buffer_is_used_again() {
        let columns = Columns { timestamps: true, hashes: true, keys: true };
        let mut batch = Batch::<String>::new(3, 1 << 10, columns);
        for round in 0..3 {
            let long = format!("a string that lies out of line, round {round}");
            for (i, word) in ["", "tiny", &long].into_iter().enumerate() {
                batch.put(&word.to_owned(), i as i64, RecordKey::Wide(7, word.as_bytes())).unwrap();
            }
            assert!(batch.is_full());
            assert_eq!(words(&batch), ["", "tiny", &long]);
            assert_eq!(batch.timestamps(), [0, 1, 2]);
            assert_eq!(batch.key_bytes(2), long.as_bytes());
            batch.clear();
            assert!(batch.is_empty());
        }
    }

    #[test]
    fn a_batch_comes_back_from_bytes_as_it_was_and_no_cut_is_believed() {
        let columns = Columns { timestamps: true, hashes: true, keys: true };
        let mut batch = Batch::<String>::new(5, 1 << 10, columns);
        for (i, word) in ["", "tiny", "a string that lies out of line"].into_iter().enumerate() {
            batch
                .put(&word.to_owned(), i as i64 - 1, RecordKey::Wide(1 << (20 * i), word.as_bytes()))
                .unwrap();
        }
        let mut bytes = Vec::new();
        batch.write_to(0, &mut bytes);
        let whole = bytes.len();
        bytes.extend_from_slice(b"rest");
        let (mut read, rest) = Batch::<String>::read_from(&bytes).unwrap();
        assert_eq!((words(&read), rest), (words(&batch), &b"rest"[..]));
        assert_eq!((read.timestamps(), read.hashes()), (batch.timestamps(), batch.hashes()));
        assert_eq!(read.key_bytes(2), batch.key_bytes(2));
        // There is room for two more.
        read.put(&"more".to_owned(), 7, RecordKey::Wide(7, b"more")).unwrap();
        assert_eq!(words(&read)[3], "more");
        for cut in 0..whole {
            assert!(Batch::<String>::read_from(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let own = batch.of_keys(|hash| hash > 1).unwrap().unwrap();
        assert_eq!(words(&own), ["tiny", "a string that lies out of line"]);
        assert_eq!((own.timestamps(), own.key_bytes(0)), (&[0, 1][..], &b"tiny"[..]));
        assert!(batch.of_keys(|_| false).unwrap().is_none());
        let mut rest = Vec::new();
        batch.write_to(1, &mut rest);
        let (read, _) = Batch::<String>::read_from(&rest).unwrap();
        assert_eq!((words(&read), read.hashes()), (words(&own), own.hashes()));
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let mut batch = Batch::<String>::new(2, 1 << 10, Columns::default());
        batch.put(&"a string that lies out of line".to_owned(), 0, RecordKey::None).unwrap();
        let mut bytes = Vec::new();
        batch.write_to(0, &mut bytes);
        // The pointer in the root of the string, behind the head.
        for at in 29..29 + Batch::<String>::STRIDE {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            // Whatever is accepted can be read.
            if let Ok((read, _)) = Batch::<String>::read_from(&damaged) {
                assert!(words(&read)[0].len() < 1 << 10);
            }
        }
    }

    #[test]
    fn a_batch_is_full_when_its_strings_fill_it() {
        let mut batch = Batch::<String>::new(1000, 64, Columns::default());
        batch.put(&"x".repeat(100), 0, RecordKey::None).unwrap();
        assert!(batch.is_full());
        assert_eq!(batch.timestamp(0), crate::model::time::NO_TIMESTAMP);
    }
}
