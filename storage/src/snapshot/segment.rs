//! One segment file: writing it whole, and reading verified pages of it.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    buffer::PageBuffer,
    disk::{
        Disk, NewFile, OldFile, failed,
        reads::{PageRead, Reader},
    },
    format::{
        Malformed, PAGE_BYTES, checksum,
        segment::{
            Contents, DATA_AT, EXTENT_ALIGN, Entry, FOOTER_BYTES, Footer, SegmentId, decode_header,
            encode_header, encode_tail,
        },
        segment_path,
    },
};
use crate::{log::seal::TableId, state::StateError};

/// Length of each of the reads that are made side by side.
const READ_BYTES: usize = 512 << 10;

/// Data to be written.
#[derive(Clone, Copy, Debug)]
pub struct Extent<'a> {
    /// Number of the seal.
    pub seal: u64,
    /// The table.
    pub table: TableId,
    /// What it is.
    pub contents: Contents,
    /// The bytes, at least one.
    pub bytes: &'a [u8],
}

/// A segment that was written and is durable but for its name.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its file.
    pub file: PathBuf,
    /// Where everything in it is.
    pub footer: Footer,
    /// Its extents, as they were given.
    pub entries: Vec<Entry>,
    /// Checksum of each data page.
    pub pages: Arc<[u32]>,
}

/// Writes a segment. The caller removes the file when this fails.
///
/// # Errors
/// Of the disk.
pub fn write(
    disk: &dyn Disk,
    directory: &Path,
    segment: SegmentId,
    extents: &[Extent<'_>],
) -> Result<Written, StateError> {
    let mut end = DATA_AT;
    let entries: Vec<_> = extents
        .iter()
        .map(|extent| {
            let offset = end.next_multiple_of(EXTENT_ALIGN);
            end = offset + extent.bytes.len() as u64;
            let Extent { seal, table, contents, bytes } = *extent;
            Entry { seal, table, contents, offset, length: bytes.len() as u32 }
        })
        .collect();
    let pages = (end - DATA_AT).div_ceil(PAGE_BYTES as u64);
    // The tail's length depends on nothing but the counts.
    let (_, footer) = encode_tail(segment, &entries, &vec![0; pages as usize]);
    let file = segment_path(directory, segment.number);
    let mut out = Pages {
        file: disk.create(&file, footer.length).map_err(failed("create", &file))?,
        path: &file,
        buffer: PageBuffer::default(),
        at: 0,
        sums: Vec::with_capacity(pages as usize),
    };
    out.put(&encode_header(segment))?;
    // The header page is not data.
    out.sums.clear();
    for (extent, entry) in extents.iter().zip(&entries) {
        out.pad_to(entry.offset)?;
        out.put(extent.bytes)?;
    }
    out.pad_to(DATA_AT + pages * PAGE_BYTES as u64)?;
    let sums = std::mem::take(&mut out.sums);
    let (tail, footer) = encode_tail(segment, &entries, &sums);
    out.put(&tail)?;
    out.flush()?;
    out.file.finish().map_err(failed("write", &file))?;
    drop(out);
    Ok(Written { file, footer, entries, pages: sums.into() })
}

/// Fills buffers, sums up every page that is full, and hands them on.
struct Pages<'a> {
    file: Box<dyn NewFile>,
    path: &'a Path,
    buffer: PageBuffer,
    /// Where in the file the next byte goes.
    at: u64,
    sums: Vec<u32>,
}

impl Pages<'_> {
    /// Copies page by page, so that each is summed up while it is in the core's nearest cache.
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), StateError> {
        while !bytes.is_empty() {
            if self.buffer.room() == 0 {
                self.flush()?;
                self.buffer = self.file.buffer().map_err(failed("write", self.path))?;
            }
            let in_page = self.at as usize % PAGE_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(PAGE_BYTES - in_page));
            self.buffer.extend(now);
            self.at += now.len() as u64;
            if self.at.is_multiple_of(PAGE_BYTES as u64) {
                let filled = self.buffer.bytes();
                self.sums.push(checksum(&filled[filled.len() - PAGE_BYTES..]));
            }
            bytes = later;
        }
        Ok(())
    }

    fn pad_to(&mut self, offset: u64) -> Result<(), StateError> {
        const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        self.put(&ZEROS[..(offset - self.at) as usize])
    }

    fn flush(&mut self) -> Result<(), StateError> {
        let pages = std::mem::take(&mut self.buffer);
        let length = pages.bytes().len();
        debug_assert!(length.is_multiple_of(PAGE_BYTES), "only whole pages are written");
        if length == 0 {
            return Ok(());
        }
        self.file.write(self.at - length as u64, pages).map_err(failed("write", self.path))
    }
}

/// A segment that is read: all of it but the data. It holds no file open, as there may be very many.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// Where everything is.
    pub footer: Footer,
    /// Its extents, in the order to apply them in.
    pub entries: Vec<Entry>,
    /// Checksum of each data page.
    pub pages: Vec<u32>,
}

impl Segment {
    /// Reads a segment and checks all of it but the data.
    ///
    /// # Errors
    /// When it is damaged or no segment, and of the disk.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, StateError> {
        let file = disk.open(path).map_err(failed("open", path))?;
        let length = file.length().map_err(failed("read", path))?;
        let broken = |malformed: Malformed| malformed.of(path);
        let cut = || Malformed::at(length, format!("a segment of {length} bytes: it was cut off")).of(path);
        let read = |offset: u64, length: u64| {
            let mut bytes = vec![0; length as usize];
            file.read_at(offset, &mut bytes).map_err(failed("read", path)).map(|()| bytes)
        };
        if length < DATA_AT + PAGE_BYTES as u64 || !length.is_multiple_of(PAGE_BYTES as u64) {
            return Err(cut());
        }
        let header = decode_header(&read(0, PAGE_BYTES as u64)?).map_err(broken)?;
        let footer = read(length - FOOTER_BYTES as u64, FOOTER_BYTES as u64)?;
        let footer = Footer::decode(&footer, length).map_err(broken)?;
        if header != footer.segment {
            return Err(Malformed::at(16, "header and footer are of different segments").of(path));
        }
        // Both lie within the file, as the footer was checked to say.
        let tail = read(footer.directory_at(), footer.footer_at() - footer.directory_at())?;
        let (entries, pages) = footer.decode_tail(&tail).map_err(broken)?;
        Ok(Self { path: path.to_owned(), footer, entries, pages })
    }

    /// Data pages that hold bytes of this part of the file.
    pub fn pages_of(range: Range<u64>) -> Range<u64> {
        let page = PAGE_BYTES as u64;
        range.start.saturating_sub(DATA_AT) / page..(range.end.saturating_sub(DATA_AT)).div_ceil(page)
    }

    /// The file, for [`read_pages`](Self::read_pages); with `direct`, to be read past the page cache, where that is
    /// possible: twice as fast for much that is read once and not in the cache, slower for little.
    ///
    /// # Errors
    /// Of the disk.
    pub fn file(&self, disk: &dyn Disk, direct: bool) -> Result<Box<dyn OldFile>, StateError> {
        let file = if direct { disk.open_direct(&self.path) } else { disk.open(&self.path) };
        file.map_err(failed("open", &self.path))
    }

    /// Reads data pages and checks them; the first is page 0.
    ///
    /// # Errors
    /// When one of them is damaged, naming it, and of the disk.
    pub fn read_pages(
        &self,
        reader: &mut Reader,
        file: &dyn OldFile,
        pages: Range<u64>,
        into: &mut PageBuffer,
    ) -> Result<(), StateError> {
        assert!(pages.start <= pages.end && pages.end <= self.footer.pages, "pages {pages:?} of a segment");
        into.set_length((pages.end - pages.start) as usize * PAGE_BYTES);
        let at = DATA_AT + pages.start * PAGE_BYTES as u64;
        // One read after another would leave the disk idle in between: the kernel reads ahead by little.
        let mut reads: Vec<_> = into
            .bytes_mut()
            .chunks_mut(READ_BYTES)
            .enumerate()
            .map(|(i, into)| PageRead { file, offset: at + (i * READ_BYTES) as u64, into })
            .collect();
        reader.read_all(&mut reads).map_err(|(_, error)| failed("read", &self.path)(error))?;
        match check_pages(&self.pages[pages.start as usize..], into.bytes()) {
            None => Ok(()),
            Some(wrong) => Err(Malformed::at(
                at + (wrong * PAGE_BYTES) as u64,
                format!("the checksum of data page {} is wrong", pages.start + wrong as u64),
            )
            .of(&self.path)),
        }
    }
}

/// Which of these whole pages is the first whose checksum is not the one given for it.
pub fn check_pages(sums: &[u32], pages: &[u8]) -> Option<usize> {
    pages.chunks(PAGE_BYTES).zip(sums).position(|(page, sum)| checksum(page) != *sum)
}
