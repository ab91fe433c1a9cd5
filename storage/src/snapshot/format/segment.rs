//! Segment files: a header page, pages of data, the directory, a checksum per page, the footer.
//!
//! The data are *extents*, each at a multiple of 16 bytes: records, exactly as they lie in their block, or removed
//! keys. The directory names them in the order in which they are to be applied. The checksum of each page of data
//! stands in a table, so that one record can be read and believed without reading the rest.

use super::{
    Malformed, PAGE_BYTES, VERSION,
    bytes::{Reader, Writer},
    check_kind, checksum,
};
use crate::log::seal::{BlockId, TableId};

/// First bytes of the header page.
pub const HEADER_MAGIC: [u8; 8] = *b"TIDESEGM";
/// First bytes of the footer.
pub const FOOTER_MAGIC: [u8; 8] = *b"TIDESEGF";
/// Length of the footer, which ends the file.
pub const FOOTER_BYTES: usize = 96;
/// Length of an entry of the directory.
pub const ENTRY_BYTES: usize = 48;
/// Extents begin at multiples of this.
pub const EXTENT_ALIGN: u64 = 16;
/// Where the data begin.
pub const DATA_AT: u64 = PAGE_BYTES as u64;

/// What an extent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contents {
    /// Whole records: bytes `from..from + length` of the block.
    Records {
        /// The block they lay in.
        block: BlockId,
        /// Where in it they began.
        from: u32,
    },
    /// Removed keys, in the form of [`RemovedKeys`](crate::log::seal::RemovedKeys).
    Removed,
}

/// An extent of data, as the directory names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Number of the seal that it is of.
    pub seal: u64,
    /// The table.
    pub table: TableId,
    /// What it holds.
    pub contents: Contents,
    /// Where in the file it begins, a multiple of 16.
    pub offset: u64,
    /// Its length in bytes, above zero.
    pub length: u32,
}

/// Which segment a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentId {
    /// The store it is of.
    pub store: u128,
    /// Its number in that store.
    pub number: u64,
}

/// The footer: where everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Which segment this is.
    pub segment: SegmentId,
    /// Number of data pages; the directory follows them.
    pub pages: u64,
    /// Number of extents.
    pub entries: u32,
    /// Length of the whole file.
    pub length: u64,
    /// Checksum of the directory.
    pub directory_checksum: u32,
    /// Checksum of the table of checksums, with the zeros that follow it.
    pub pages_checksum: u32,
}

/// The header page.
pub fn encode_header(segment: SegmentId) -> Vec<u8> {
    let mut page = Writer::default();
    page.put(&HEADER_MAGIC).u32(VERSION).u32(PAGE_BYTES as u32).u128(segment.store).u64(segment.number);
    page.bytes.resize(PAGE_BYTES - 4, 0);
    let sum = checksum(&page.bytes);
    page.u32(sum);
    page.bytes
}

/// Reads the header page.
///
/// # Errors
/// When it is none, or damaged, or of a version that cannot be read.
pub fn decode_header(page: &[u8]) -> Result<SegmentId, Malformed> {
    let mut reader = Reader::new(page, 0);
    check_kind(&mut reader, HEADER_MAGIC, "segment file", VERSION)?;
    let mut whole = Reader::new(page, 0);
    let covered = whole.take(PAGE_BYTES - 4)?;
    if whole.u32()? != checksum(covered) {
        return Err(Malformed::at(0, "the header's checksum is wrong"));
    }
    if reader.u32()? != PAGE_BYTES as u32 {
        return Err(Malformed::at(12, format!("pages are not of {PAGE_BYTES} bytes")));
    }
    let segment = SegmentId { store: reader.u128()?, number: reader.u64()? };
    reader.zeros(PAGE_BYTES - 4 - 40)?;
    Ok(segment)
}

/// What follows the data of a segment: directory, checksums, zeros and the footer, whole pages together.
pub fn encode_tail(segment: SegmentId, entries: &[Entry], pages: &[u32]) -> (Vec<u8>, Footer) {
    let mut tail = Writer::default();
    for entry in entries {
        let (block, from, kind) = match entry.contents {
            Contents::Records { block, from } => (block.0, from, 1),
            Contents::Removed => (0, 0, 2),
        };
        tail.u64(entry.seal).u64(entry.table.0).u64(block).u64(entry.offset);
        tail.u32(from).u32(entry.length).u32(kind).u32(0);
    }
    let directory_bytes = tail.bytes.len();
    for page in pages {
        tail.u32(*page);
    }
    let length = (tail.bytes.len() + FOOTER_BYTES).next_multiple_of(PAGE_BYTES);
    tail.bytes.resize(length - FOOTER_BYTES, 0);
    let footer = Footer {
        segment,
        pages: pages.len() as u64,
        entries: entries.len() as u32,
        length: DATA_AT + (pages.len() * PAGE_BYTES + length) as u64,
        directory_checksum: checksum(&tail.bytes[..directory_bytes]),
        pages_checksum: checksum(&tail.bytes[directory_bytes..]),
    };
    tail.put(&encode_footer(&footer));
    (tail.bytes, footer)
}

fn encode_footer(footer: &Footer) -> Vec<u8> {
    let mut bytes = Writer::default();
    bytes.put(&FOOTER_MAGIC).u32(VERSION).u32(PAGE_BYTES as u32);
    bytes.u128(footer.segment.store).u64(footer.segment.number).u64(footer.pages);
    bytes.u64(footer.length).u32(footer.entries).u32(footer.directory_checksum).u32(footer.pages_checksum);
    bytes.bytes.resize(FOOTER_BYTES - 4, 0);
    let sum = checksum(&bytes.bytes);
    bytes.u32(sum);
    bytes.bytes
}

impl Footer {
    /// Where the directory begins: behind the data.
    pub fn directory_at(&self) -> u64 {
        DATA_AT + self.pages * PAGE_BYTES as u64
    }

    /// Where the table of checksums begins.
    pub fn checksums_at(&self) -> u64 {
        self.directory_at() + u64::from(self.entries) * ENTRY_BYTES as u64
    }

    /// Where the footer itself begins.
    pub fn footer_at(&self) -> u64 {
        self.length - FOOTER_BYTES as u64
    }

    /// The checksum that stands for the whole file: it covers the footer, which covers the checksums of the rest.
    pub fn checksum(&self) -> u32 {
        checksum(&encode_footer(self)[..FOOTER_BYTES - 4])
    }

    /// Reads a footer: the last bytes of a file of `length` bytes.
    ///
    /// # Errors
    /// When it is none, is damaged, is of a version that cannot be read, or contradicts itself or the length.
    pub fn decode(bytes: &[u8], length: u64) -> Result<Self, Malformed> {
        let base = length.saturating_sub(FOOTER_BYTES as u64);
        let mut reader = Reader::new(bytes, base);
        check_kind(&mut reader, FOOTER_MAGIC, "segment file (its end is missing)", VERSION)?;
        let mut whole = Reader::new(bytes, base);
        let covered = whole.take(FOOTER_BYTES - 4)?;
        if whole.u32()? != checksum(covered) {
            return Err(Malformed::at(base, "the footer's checksum is wrong"));
        }
        if reader.u32()? != PAGE_BYTES as u32 {
            return Err(Malformed::at(base + 12, format!("pages are not of {PAGE_BYTES} bytes")));
        }
        let segment = SegmentId { store: reader.u128()?, number: reader.u64()? };
        let (pages, stored_length) = (reader.u64()?, reader.u64()?);
        let footer = Self {
            segment,
            pages,
            length: stored_length,
            entries: reader.u32()?,
            directory_checksum: reader.u32()?,
            pages_checksum: reader.u32()?,
        };
        reader.zeros(FOOTER_BYTES - 4 - 68)?;
        if stored_length != length {
            let what = format!("the file has {length} bytes and was written with {stored_length}");
            return Err(Malformed::at(base, what));
        }
        // In numbers that cannot overflow, whatever the counts are; where they add up, none of the others does.
        let (pages, entries) = (u128::from(pages), u128::from(footer.entries));
        let data = u128::from(DATA_AT) + pages * PAGE_BYTES as u128;
        let expected = data + entries * ENTRY_BYTES as u128 + pages * 4 + FOOTER_BYTES as u128;
        if expected.next_multiple_of(PAGE_BYTES as u128) != u128::from(length) {
            return Err(Malformed::at(base, "the footer's counts do not add up to the file's length"));
        }
        Ok(footer)
    }

    /// Reads what lies between the data and the footer: the extents, and the checksum of each data page.
    ///
    /// # Errors
    /// When it is damaged or names what is not there.
    pub fn decode_tail(&self, bytes: &[u8]) -> Result<(Vec<Entry>, Vec<u32>), Malformed> {
        let mut reader = Reader::new(bytes, self.directory_at());
        let count = reader.count(self.entries, ENTRY_BYTES)?;
        let mut directory = reader.clone();
        if checksum(reader.take(count * ENTRY_BYTES)?) != self.directory_checksum {
            return Err(Malformed::at(self.directory_at(), "the directory's checksum is wrong"));
        }
        if checksum(reader.clone().take(reader.left())?) != self.pages_checksum {
            return Err(Malformed::at(self.checksums_at(), "the checksum of the pages' checksums is wrong"));
        }
        let mut entries = Vec::with_capacity(count);
        let mut free_from = DATA_AT;
        for _ in 0..count {
            let entry = self.decode_entry(&mut directory, free_from)?;
            free_from = entry.offset + u64::from(entry.length);
            entries.push(entry);
        }
        let pages = reader.count(u32::try_from(self.pages).unwrap_or(u32::MAX), 4)?;
        let mut checksums = Vec::with_capacity(pages);
        for _ in 0..pages {
            checksums.push(reader.u32()?);
        }
        reader.zeros(reader.left())?;
        Ok((entries, checksums))
    }

    fn decode_entry(&self, reader: &mut Reader<'_>, free_from: u64) -> Result<Entry, Malformed> {
        let at = reader.offset();
        let (seal, table, block, offset) =
            (reader.u64()?, TableId(reader.u64()?), reader.u64()?, reader.u64()?);
        let (from, length, kind, _) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.zeros(4)?);
        let contents = match kind {
            1 => Contents::Records { block: BlockId(block), from },
            2 if block == 0 && from == 0 => Contents::Removed,
            2 => return Err(Malformed::at(at + 16, "removed keys that claim to be of a block")),
            _ => return Err(Malformed::at(at + 40, format!("an extent of kind {kind}"))),
        };
        let inside = offset.checked_add(length.into()).is_some_and(|end| end <= self.directory_at());
        let fits = inside && offset >= free_from && offset.is_multiple_of(EXTENT_ALIGN) && length > 0;
        if !fits || from.checked_add(length).is_none() {
            return Err(Malformed::at(at, format!("an extent of {length} bytes at {offset} that cannot be")));
        }
        Ok(Entry { seal, table, contents, offset, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId { store: 7, number: 3 };

    fn entries() -> [Entry; 2] {
        let records = Contents::Records { block: BlockId(9), from: 64 };
        [
            Entry { seal: 1, table: TableId(4), contents: Contents::Removed, offset: 4096, length: 24 },
            Entry { seal: 1, table: TableId(4), contents: records, offset: 4128, length: 5000 },
        ]
    }

    #[test]
    fn a_tail_is_read_back() {
        let (tail, footer) = encode_tail(SEGMENT, &entries(), &[1, 2, 3]);
        assert_eq!(footer.length, 4 * 4096 + tail.len() as u64);
        let (body, end) = tail.split_at(tail.len() - FOOTER_BYTES);
        assert_eq!(Footer::decode(end, footer.length), Ok(footer));
        assert_eq!(footer.decode_tail(body), Ok((entries().to_vec(), vec![1, 2, 3])));
        assert_eq!(footer.checksum().to_le_bytes(), end[FOOTER_BYTES - 4..]);
    }

    #[test]
    fn the_header_and_footer_are_frozen() {
        assert_eq!(decode_header(&encode_header(SEGMENT)), Ok(SEGMENT));
        assert_eq!(&encode_header(SEGMENT)[..24], b"TIDESEGM\x01\0\0\0\0\x10\0\0\x07\0\0\0\0\0\0\0");
        let (tail, footer) = encode_tail(SEGMENT, &entries(), &[1, 2, 3]);
        assert_eq!((checksum(&encode_header(SEGMENT)[..4092]), footer.checksum()), (HEADER_SUM, FOOTER_SUM));
        assert_eq!(checksum(&tail[..96]), footer.directory_checksum);
    }

    const HEADER_SUM: u32 = 3_006_926_832;
    const FOOTER_SUM: u32 = 2_110_718_017;

    #[test]
    fn counts_that_no_file_has_are_refused() {
        let (_, sound) = encode_tail(SEGMENT, &entries(), &[1, 2, 3]);
        for (pages, entries) in [(u64::MAX, 0), (u64::MAX >> 12, u32::MAX), (1 << 52, 2), (3, u32::MAX)] {
            for length in [sound.length, u64::MAX, 1 << 63, 1 << 52] {
                let footer = Footer { pages, entries, length, ..sound };
                let bytes = encode_footer(&footer);
                assert!(Footer::decode(&bytes, length).is_err(), "{footer:?}");
            }
        }
    }

    #[test]
    fn bytes_that_have_to_be_zero_are_checked() {
        let mut page = encode_header(SEGMENT);
        page[100] = 1;
        let sum = checksum(&page[..PAGE_BYTES - 4]).to_le_bytes();
        page[PAGE_BYTES - 4..].copy_from_slice(&sum);
        assert!(decode_header(&page).is_err());
        let (mut tail, footer) = encode_tail(SEGMENT, &entries(), &[1, 2, 3]);
        tail.truncate(tail.len() - FOOTER_BYTES);
        // Block, and place in it, of the removed keys.
        for at in [20, 32] {
            let mut tail = tail.clone();
            tail[at] = 1;
            let footer = Footer { directory_checksum: checksum(&tail[..2 * ENTRY_BYTES]), ..footer };
            assert!(footer.decode_tail(&tail).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_file_of_a_newer_version_says_so() {
        let mut page = encode_header(SEGMENT);
        page[8] = 2;
        let error = decode_header(&page).unwrap_err();
        assert_eq!(error.offset, 8);
        assert!(error.what.contains("use a newer release"), "{}", error.what);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (tail, footer) = encode_tail(SEGMENT, &entries(), &[1, 2, 3]);
        let read = |tail: &[u8]| {
            let (body, end) = tail.split_at(tail.len() - FOOTER_BYTES);
            Footer::decode(end, footer.length)?.decode_tail(body)
        };
        for at in 0..tail.len() {
            let mut changed = tail.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(read(&changed).is_err(), "byte {at}");
        }
        let header = encode_header(SEGMENT);
        for at in 0..header.len() {
            let mut changed = header.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(decode_header(&changed).is_err(), "byte {at}");
        }
    }
}
