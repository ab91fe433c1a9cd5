//! Cleaning: what counts of segments of which little does is written again, with the next segment, so that their files can go.
//!
//! A segment is kept as long as one extent in it counts. Where one table changes fast and another grows slowly, or keeps what it
//! has, each segment is full of what is soon of no use, and has a little that stays: without cleaning no file would ever go.
//!
//! An extent is moved as it is, under the number of its seal, and read back with all its checksums. For each byte that is moved three
//! go at least, and as a rule no more are moved than the next segment has to hold anyway. That is a log-structured file system's cleaning (Rosenblum and Ousterhout, 1992), of those segments first
//! that have least to move.
//!
//! `docs/design/005-cleaning-files.md` says what it gains and costs.

use std::path::Path;

use super::{
    buffer::PageBuffer,
    catalog::Catalog,
    disk::{Disk, reads::Reader},
    format::{
        PAGE_BYTES,
        segment::{DATA_AT, Entry},
        segment_path,
    },
    segment::{Extent, Segment},
};
use crate::state::StateError;

/// Waste that is nothing to worry about, whatever counts.
pub const WASTE_BYTES_MAX: u64 = 16 << 20;
/// A segment is left alone while this part of it counts, here and when it is taken over. With a half, a count under checkpoints every 10 ms was a tenth slower: its
/// journal goes as it came, and what was moved of it would soon have gone by itself.
const SPARSE_PART: u64 = 4;
/// So much may be moved with each segment, however small it is.
pub(super) const MOVED_BYTES_MIN: u64 = 1 << 20;
/// One segment may be moved of which so much counts, however small the next one is: it is in memory as a whole.
pub(super) const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Segments that are read for one, so that no snapshot waits for hundreds of small reads. More than one, as one is made.
const SEGMENTS_MAX: usize = 4;

/// An extent that is to be in another segment.
#[derive(Debug)]
pub struct Moved {
    /// The segment that it is in, and which extent of it.
    pub from: (u64, usize),
    /// What its directory says of it.
    pub entry: Entry,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Moved {
    /// As an extent to be written.
    pub fn extent(&self) -> Extent<'_> {
        let Entry { seal, table, contents, .. } = self.entry;
        Extent { seal, table, contents, bytes: &self.bytes }
    }
}

/// Whether so little of a segment of this length counts that its file had better go.
pub(super) fn is_sparse(live_bytes: u64, length: u64) -> bool {
    live_bytes < length / SPARSE_PART
}

/// What had better be moved to the next segment, in the order in which it has to lie there. What cannot be read stays where it is: nothing is lost by that.
pub fn to_be_moved(disk: &dyn Disk, directory: &Path, catalog: &Catalog, waste_bytes_max: u64) -> Vec<Moved> {
    let sparse = catalog.sparse(waste_bytes_max);
    let read = |number: u64| read_live(disk, directory, catalog, number).unwrap_or_default();
    let readable = sparse.into_iter().map(read).filter(|moved| !moved.is_empty());
    let mut moved: Vec<_> = readable.take(SEGMENTS_MAX).flatten().collect();
    moved.sort_by_key(|moved| (moved.entry.seal, moved.from));
    moved
}

/// All extents of a segment that count.
fn read_live(
    disk: &dyn Disk,
    directory: &Path,
    catalog: &Catalog,
    number: u64,
) -> Result<Vec<Moved>, StateError> {
    let segment = Segment::open(disk, &segment_path(directory, number))?;
    let file = segment.file(disk, false)?;
    let (mut reader, mut pages) = (Reader::default(), PageBuffer::default());
    let live = segment.entries.iter().enumerate().filter(|(at, _)| catalog.counts(number, *at));
    live.map(|(at, entry)| {
        let range = entry.offset..entry.offset + u64::from(entry.length);
        let needed = Segment::pages_of(range.clone());
        let start = DATA_AT + needed.start * PAGE_BYTES as u64;
        segment.read_pages(&mut reader, &*file, needed, &mut pages)?;
        let bytes = &pages.bytes()[(range.start - start) as usize..(range.end - start) as usize];
        Ok(Moved { from: (number, at), entry: *entry, bytes: bytes.to_vec() })
    })
    .collect()
}
