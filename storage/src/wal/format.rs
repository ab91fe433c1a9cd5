//! The bytes of a write-ahead log. The page `docs/internals/write_ahead_log.md` is their specification.
//!
//! Decoders take any bytes whatsoever: they never panic, and they check every length against a bound before they allocate
//! anything for it.

use std::path::{Path, PathBuf};

use rkyv::util::AlignedVec;

use crate::{
    snapshot::format::{
        bytes::{Reader, Writer},
        checksum,
    },
    writer::BUFFER_ALIGN,
};

/// The version that is written, and the only one that is read so far.
pub(super) const VERSION: u32 = 1;
const SEGMENT_MAGIC: [u8; 8] = *b"TMWAL\r\n\0";
const GROUP_MAGIC: [u8; 4] = *b"TMWG";
/// Bytes of a segment before the part that its checksum covers.
const PREFIX_BYTES: usize = 16;
/// More than any header of a segment has, in bytes.
pub(super) const HEADER_BYTES_MAX: u64 = 1 << 16;
/// Bytes of a group before its records.
pub(super) const GROUP_HEADER_BYTES: usize = 40;
/// Most bytes of a group behind its header.
pub const GROUP_BYTES_MAX: usize = 64 << 20;
/// Records begin at multiples of this, counted from the beginning of the group's records. No record needs more.
pub const RECORD_ALIGN: usize = 16;
/// Groups begin at multiples of this in their file.
pub(super) const GROUP_ALIGN: usize = 8;
const KIND_RECORDS: u32 = 0;
const KIND_END: u32 = 1;

const _: () =
    assert!(GROUP_HEADER_BYTES.is_multiple_of(GROUP_ALIGN) && RECORD_ALIGN.is_multiple_of(GROUP_ALIGN));
const _: () = assert!(BUFFER_ALIGN.is_multiple_of(RECORD_ALIGN));

/// Path of a segment.
pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("segment-{number:016x}.wal"))
}

/// The number of the segment that has this path, if it is one.
pub(super) fn segment_number(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("segment-")?.strip_suffix(".wal")?;
    let is_plain = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = is_plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    // Behind the last of all numbers there would be none for the next.
    number.filter(|number| *number < u64::MAX)
}

/// What a segment begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Number of the log, drawn when it was made.
    pub(super) log: u64,
    /// Number of the segment, as in its name.
    pub(super) segment: u64,
    /// Number of its first record. Records that the segment before may have from there on do not count.
    pub(super) base: u64,
    /// Name and version of the records' type.
    pub(super) schema: String,
}

/// Why bytes are no header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// Of a version that is not known yet.
    Newer(u32),
    /// Cut off, torn, or something else.
    Bad(&'static str),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        body.u64(self.log).u64(self.segment).u64(self.base).string(&self.schema);
        let mut covered = Writer::default();
        covered.u32(body.bytes.len() as u32).put(&body.bytes);
        let sum = header_checksum(VERSION, &covered.bytes);
        let mut header = Writer::default();
        header.put(&SEGMENT_MAGIC).u32(VERSION).u32(sum).put(&covered.bytes);
        header.bytes.resize(header.bytes.len().next_multiple_of(GROUP_ALIGN), 0);
        header.bytes
    }

    /// The header that `bytes` begin with, and where the groups begin.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u64), NoHeader> {
        let short = |_| NoHeader::Bad("the header is cut off");
        let mut reader = Reader::new(bytes, 0);
        if reader.take(SEGMENT_MAGIC.len()).map_err(short)? != SEGMENT_MAGIC {
            return Err(NoHeader::Bad("this is no segment of a write-ahead log"));
        }
        let version = reader.u32().map_err(short)?;
        let stored = reader.u32().map_err(short)?;
        let length = reader.u32().map_err(short)? as usize;
        reader.take(length).map_err(short)?;
        if header_checksum(version, &bytes[PREFIX_BYTES..PREFIX_BYTES + 4 + length]) != stored {
            return Err(NoHeader::Bad("the header's checksum is wrong"));
        }
        // What is up to here stays as it is in every version: only then is a number that is too high one.
        match version {
            VERSION => {}
            newer if newer > VERSION => return Err(NoHeader::Newer(newer)),
            _ => return Err(NoHeader::Bad("a format version that never was")),
        }
        let mut body = Reader::new(&bytes[PREFIX_BYTES + 4..PREFIX_BYTES + 4 + length], 0);
        let (log, segment, base) =
            (body.u64().map_err(short)?, body.u64().map_err(short)?, body.u64().map_err(short)?);
        let schema = body.string().map_err(short)?;
        let end = (PREFIX_BYTES + 4 + length).next_multiple_of(GROUP_ALIGN);
        if body.left() > 0 || reader.zeros(end - (PREFIX_BYTES + 4 + length)).is_err() {
            return Err(NoHeader::Bad("there is more in the header than there should be"));
        }
        Ok((Self { log, segment, base, schema }, end as u64))
    }
}

/// The checksum of a header: of its version, and of what is behind the checksum.
pub(super) fn header_checksum(version: u32, covered: &[u8]) -> u32 {
    checksum(&[&version.to_le_bytes(), covered].concat())
}

/// Records that become durable together. Either all of them survive a crash, or none.
#[derive(Debug, Default)]
pub struct Group {
    lengths: Vec<u32>,
    body: Vec<u8>,
}

impl Group {
    /// Adds a record.
    ///
    /// # Panics
    /// When it has 4 GiB or more.
    pub fn push(&mut self, record: &[u8]) {
        assert!(u32::try_from(record.len()).is_ok(), "a record of {} bytes", record.len());
        self.lengths.push(record.len() as u32);
        self.body.extend_from_slice(record);
        self.body.resize(self.body.len().next_multiple_of(RECORD_ALIGN), 0);
    }

    /// Adds all records of another one.
    pub fn append(&mut self, other: &Group) {
        self.lengths.extend_from_slice(&other.lengths);
        self.body.extend_from_slice(&other.body);
    }

    /// Number of records.
    pub fn records(&self) -> u64 {
        self.lengths.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Bytes that it takes in the log, about.
    pub fn bytes(&self) -> usize {
        GROUP_HEADER_BYTES + (self.lengths.len() * 4).next_multiple_of(RECORD_ALIGN) + self.body.len()
    }

    /// As it is written, if its first record has the number `first`.
    pub(super) fn encode(&self, log: u64, first: u64) -> Vec<u8> {
        let table = (self.lengths.len() * 4).next_multiple_of(RECORD_ALIGN);
        let mut frame = Writer { bytes: Vec::with_capacity(self.bytes()) };
        let length = (table + self.body.len()) as u32;
        let count = self.lengths.len() as u32;
        frame.put(&GROUP_MAGIC).u32(0).u64(log).u64(first).u32(count).u32(KIND_RECORDS).u32(length).u32(0);
        for length in &self.lengths {
            frame.u32(*length);
        }
        frame.bytes.resize(GROUP_HEADER_BYTES + table, 0);
        frame.put(&self.body);
        seal(frame.bytes)
    }
}

/// The mark that says that nothing follows.
pub(super) fn encode_end(log: u64, first: u64) -> Vec<u8> {
    let mut frame = Writer::default();
    frame.put(&GROUP_MAGIC).u32(0).u64(log).u64(first).u32(0).u32(KIND_END).u32(0).u32(0);
    seal(frame.bytes)
}

/// Puts the checksum in its place.
fn seal(mut frame: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&frame[8..]);
    frame[4..8].copy_from_slice(&sum.to_le_bytes());
    frame
}

/// What stands before the records of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHeader {
    sum: u32,
    pub(super) log: u64,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) is_end: bool,
    /// Bytes of the records.
    pub(super) length: usize,
}

impl GroupHeader {
    /// Decodes a header; what is wrong with it, if it is none.
    pub(super) fn decode(bytes: &[u8; GROUP_HEADER_BYTES]) -> Result<Self, &'static str> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if bytes[..4] != GROUP_MAGIC {
            return Err("no group of records begins here");
        }
        let header = Self {
            sum: word(4),
            log: long(8),
            first: long(16),
            count: word(24),
            is_end: word(28) == KIND_END,
            length: word(32) as usize,
        };
        if header.first.checked_add(u64::from(header.count)).is_none() {
            return Err("a group of records with impossible numbers");
        }
        if word(28) > KIND_END {
            return Err("a group of an unknown kind");
        }
        if header.length > GROUP_BYTES_MAX || !header.length.is_multiple_of(RECORD_ALIGN) {
            return Err("a group of records of an impossible length");
        }
        Ok(header)
    }
}

/// The records of a group, read back and checked, to be taken one by one.
#[derive(Debug)]
pub struct Chunk {
    /// Number of the next record that is given.
    next: u64,
    count: u32,
    taken: u32,
    is_end: bool,
    /// Where in `bytes` the next record begins.
    at: usize,
    bytes: AlignedVec<BUFFER_ALIGN>,
}

impl Chunk {
    /// Checks what follows a group's header, `frame` being both.
    pub(super) fn decode(header: &GroupHeader, frame: &[u8]) -> Result<Self, &'static str> {
        if checksum(&frame[8..]) != header.sum {
            return Err("the checksum of a group of records is wrong");
        }
        let mut bytes = AlignedVec::with_capacity(header.length);
        bytes.extend_from_slice(&frame[GROUP_HEADER_BYTES..]);
        let table = (header.count as usize).saturating_mul(4).next_multiple_of(RECORD_ALIGN);
        let chunk = Self {
            next: header.first,
            count: header.count,
            taken: 0,
            is_end: header.is_end,
            at: table,
            bytes,
        };
        let end = if table > header.length {
            None
        } else {
            (0..chunk.count).try_fold(table, |at, index| {
                at.checked_add(chunk.length(index))?.checked_next_multiple_of(RECORD_ALIGN)
            })
        };
        if end == Some(header.length) {
            Ok(chunk)
        } else {
            Err("the lengths in a group of records are wrong")
        }
    }

    /// Length of the record with this index, which the table has.
    fn length(&self, index: u32) -> usize {
        let at = index as usize * 4;
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(word) as usize
    }

    /// The next record, aligned to [`RECORD_ALIGN`].
    pub fn take(&mut self) -> Option<&[u8]> {
        if self.taken == self.count {
            return None;
        }
        let length = self.length(self.taken);
        let from = self.at;
        self.at = (from + length).next_multiple_of(RECORD_ALIGN);
        self.taken += 1;
        self.next += 1;
        Some(&self.bytes[from..from + length])
    }

    /// The mark of the end, in front of which `next` records stand.
    pub(super) fn end(next: u64) -> Self {
        Self { next, count: 0, taken: 0, is_end: true, at: 0, bytes: AlignedVec::new() }
    }

    /// Number of records that [`take`](Self::take) still gives.
    pub fn remaining(&self) -> u64 {
        u64::from(self.count - self.taken)
    }

    /// Passes over the records below `number`.
    pub fn skip_to(&mut self, number: u64) {
        while self.next < number && self.take().is_some() {}
    }

    /// Number of the next record that [`take`](Self::take) gives, or of the one behind the last.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether it is no group but the mark behind which nothing comes.
    pub fn is_end(&self) -> bool {
        self.is_end
    }

    /// Bytes that it keeps.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(records: &[Vec<u8>]) -> Group {
        let mut group = Group::default();
        records.iter().for_each(|record| group.push(record));
        group
    }

    fn read(frame: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
        let head = frame.first_chunk().ok_or("short")?;
        let header = GroupHeader::decode(head)?;
        let frame = frame.get(..GROUP_HEADER_BYTES + header.length).ok_or("short")?;
        let mut chunk = Chunk::decode(&header, frame)?;
        let mut records = Vec::new();
        while let Some(record) = chunk.take() {
            assert_eq!(record.as_ptr() as usize % RECORD_ALIGN, 0);
            records.push(record.to_vec());
        }
        Ok(records)
    }

    #[test]
    fn the_bytes_are_frozen() {
        let header = SegmentHeader { log: 1, segment: 2, base: 3, schema: "u64".to_owned() };
        let bytes = header.encode();
        assert_eq!((bytes.len(), checksum(&bytes)), (56, 3_404_388_476));
        assert_eq!(SegmentHeader::decode(&bytes), Ok((header, 56)));
        let frame = group(&[vec![1, 2, 3], vec![], vec![4; 17]]).encode(7, 9);
        assert_eq!((frame.len(), checksum(&frame)), (104, 4_091_586_396));
        assert_eq!(checksum(&encode_end(7, 9)), 455_156_964);
    }

    #[test]
    fn any_changed_or_missing_byte_is_found() {
        let records = [vec![1, 2, 3], vec![], vec![4; 17]];
        let frame = group(&records).encode(7, 9);
        assert_eq!(read(&frame).unwrap(), records);
        let header = SegmentHeader { log: 1, segment: 2, base: 3, schema: "u64".to_owned() }.encode();
        for at in 0..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 0x10;
            assert!(read(&changed).is_err(), "byte {at} of a group");
            assert!(read(&frame[..at]).is_err(), "a group of {at} bytes");
        }
        for at in 0..header.len() {
            let mut changed = header.clone();
            changed[at] ^= 0x10;
            assert!(SegmentHeader::decode(&changed).is_err(), "byte {at} of a segment");
            assert!(SegmentHeader::decode(&header[..at]).is_err(), "a header of {at} bytes");
        }
    }

    #[test]
    fn names_and_numbers_agree() {
        let path = segment_path(Path::new("log"), 0xab);
        assert_eq!(path, Path::new("log/segment-00000000000000ab.wal"));
        assert_eq!(segment_number(&path), Some(0xab));
        for other in [
            "segment-ffffffffffffffff.wal",
            "lock",
            "segment-1.wal",
            "segment-00000000000000ab.tms",
            "segment-+0000000000000ab.wal",
        ] {
            assert_eq!(segment_number(Path::new(other)), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn groups_come_back(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let frame = group(&records).encode(3, 4);
            prop_assert_eq!(frame.len(), group(&records).bytes());
            prop_assert_eq!(read(&frame).unwrap(), records);
        }

        #[test]
        fn any_bytes_whatsoever_are_refused_or_read(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200), is_sealed in any::<bool>(),
        ) {
            let _header = SegmentHeader::decode(&bytes);
            if bytes.len() >= GROUP_HEADER_BYTES {
                // Past the magic, the length and the checksum, so that what is behind them is tried too.
                bytes.truncate(bytes.len() / RECORD_ALIGN * RECORD_ALIGN + GROUP_HEADER_BYTES % RECORD_ALIGN);
                if bytes.len() >= GROUP_HEADER_BYTES && is_sealed {
                    bytes[..4].copy_from_slice(&GROUP_MAGIC);
                    let length = (bytes.len() - GROUP_HEADER_BYTES) as u32;
                    bytes[32..36].copy_from_slice(&length.to_le_bytes());
                    let count = u32::from(bytes[24] % 16);
                    bytes[24..28].copy_from_slice(&count.to_le_bytes());
                    bytes = seal(bytes);
                }
                let _records = read(&bytes);
            }
        }
    }
}
