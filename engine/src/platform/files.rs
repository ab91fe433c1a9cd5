//! Files for connectors: read in chunks of whole lines off the data core, and written with errors that name
//! the path.
//!
//! A [`FileLines`] walks over the spans of files that one subtask reads. In production it does so on an I/O
//! thread with a fixed number of recycled chunks between that thread and the worker; with
//! [`FileAccess::Inline`] the same code runs inside the call, so that a run replays exactly.
//!
//! Invariants: a line belongs to the span that holds its first byte, so adjoining spans read every line
//! once; a chunk holds whole lines only, except the pieces of a line above the bound; at most
//! [`CHUNKS_MAX`] chunks exist per reader.

mod cutter;
mod error;
mod output;
mod reader;
mod threads;

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use flate2::bufread::MultiGzDecoder;

pub use cutter::{Chunk, Framing, Limits, LineCutter, Piece, Text};
pub use error::FileError;
pub use output::{OutputFile, check_output};
pub use reader::{CHUNKS_MAX, FileAccess, FileLines, Next};
pub use threads::IoThreads;

/// The first two bytes of a gzip member.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The last byte of UTF-8's byte order mark.
const BYTE_ORDER_MARK_END: u8 = 0xbf;

/// The longest file prefix that is counted to find the number of a line, in bytes.
const COUNTED_BYTES_MAX: u64 = 4 << 30;

/// What is known of an input file before it is read.
#[derive(Clone, Debug)]
pub struct FileInfo {
    /// Where it is.
    pub path: Arc<Path>,
    /// Its size on disk, in bytes.
    pub bytes: u64,
    /// Whether it is compressed by gzip (it begins with gzip's magic bytes).
    pub gzip: bool,
}

/// A part of a file that one subtask reads.
#[derive(Clone, Debug)]
pub struct FileSpan {
    /// The file.
    pub path: Arc<Path>,
    /// Offset of the first byte, in the unpacked bytes when the file is compressed.
    pub start: u64,
    /// Lines that begin at or after this offset belong to another span; `None`: read to the end.
    pub end: Option<u64>,
    /// Whether a line begins at `start`; otherwise the span begins with the first line after it.
    pub at_line_start: bool,
    /// Whether to unpack.
    pub gzip: bool,
}

/// Examines an input file.
///
/// # Errors
/// When it is missing, unreadable, no regular file, or named `.gz` without being gzip.
pub fn probe(path: &Path) -> Result<FileInfo, FileError> {
    let metadata = fs::metadata(path).map_err(|cause| FileError::open(path, cause))?;
    if metadata.is_dir() {
        return Err(FileError::InputIsDirectory { path: path.into() });
    }
    if !metadata.is_file() {
        return Err(FileError::NotRegular { path: path.into() });
    }
    let mut file = File::open(path).map_err(|cause| FileError::open(path, cause))?;
    let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
    Read::by_ref(&mut file)
        .take(GZIP_MAGIC.len() as u64)
        .read_to_end(&mut magic)
        .map_err(|cause| FileError::read(path, 0, cause))?;
    let gzip = magic == GZIP_MAGIC;
    if !gzip && metadata.len() > 0 && path.extension().is_some_and(|extension| extension == "gz") {
        return Err(FileError::NotGzip { path: path.into() });
    }
    Ok(FileInfo { path: path.into(), bytes: metadata.len(), gzip })
}

/// Reads the first record of a file with its line end: at most `bytes_max` bytes, nothing of an empty file.
///
/// # Errors
/// When the file cannot be read, or its first record is longer than `bytes_max`.
pub fn first_record(info: &FileInfo, framing: Framing, bytes_max: usize) -> Result<Vec<u8>, FileError> {
    let span =
        FileSpan { path: info.path.clone(), start: 0, end: None, at_line_start: true, gzip: info.gzip };
    let limits = Limits { chunk_bytes: 4096, line_bytes_max: bytes_max, eager: false };
    let mut cutter = open_span(&span, framing, limits)?;
    let chunk =
        cutter.next(Vec::new()).map_err(|cause| FileError::read(&info.path, cutter.offset(), cause))?;
    let Some(chunk) = chunk else { return Ok(Vec::new()) };
    let bytes = chunk.text.as_bytes();
    match (chunk.piece, framing.record_end(bytes)) {
        (Piece::Lines, Some(end)) => Ok(bytes[..end].to_vec()),
        (Piece::Lines, None) => Ok(bytes.to_vec()),
        (Piece::Oversize { .. }, _) => {
            Err(FileError::FirstRecordTooLong { path: info.path.clone(), bytes_max })
        }
    }
}

/// The number, from 1, of the line that holds byte `offset` of a plain file; `None` when it cannot be known
/// cheaply. Reads the file up to there: for error messages only.
pub fn line_number(path: &Path, offset: u64) -> Option<u64> {
    if offset > COUNTED_BYTES_MAX {
        return None;
    }
    let mut file = File::open(path).ok()?.take(offset);
    let mut buffer = vec![0; 1 << 16];
    let mut lines = 1;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Some(lines),
            Ok(read) => lines += memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// What a span reads from.
type Input = Box<dyn Read + Send>;

/// Opens a span at its place.
fn open_span(span: &FileSpan, framing: Framing, limits: Limits) -> Result<LineCutter<Input>, FileError> {
    let mut file = File::open(&span.path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound if span.start > 0 => FileError::Changed {
            path: span.path.clone(),
            offset: span.start,
            how: "there is no such file any more",
        },
        _ => FileError::open(&span.path, cause),
    })?;
    // The byte before `start` tells whether a line begins there.
    let position = if span.at_line_start { span.start } else { span.start.saturating_sub(1) };
    let failed = |cause| FileError::read(&span.path, 0, cause);
    let changed = |how| Err(FileError::Changed { path: span.path.clone(), offset: span.start, how });
    let input: Input = if span.gzip {
        let mut unpacked = MultiGzDecoder::new(BufReader::with_capacity(limits.chunk_bytes, file));
        let passed =
            io::copy(&mut Read::by_ref(&mut unpacked).take(position), &mut io::sink()).map_err(failed)?;
        if passed < position {
            return changed("unpacked, it is shorter than that");
        }
        Box::new(unpacked)
    } else {
        let length = file.metadata().map_err(failed)?.len();
        if length < position {
            return changed("it is shorter than that");
        }
        if span.at_line_start && position > 0 && position < span.end.unwrap_or(length).min(length) {
            file.seek(SeekFrom::Start(position - 1)).map_err(failed)?;
            let mut before = [0];
            file.read_exact(&mut before).map_err(failed)?;
            // What may stand before the first record is a byte order mark.
            if before[0] != b'\n' && before[0] != BYTE_ORDER_MARK_END {
                return changed("no line ends there any more");
            }
        }
        file.seek(SeekFrom::Start(position)).map_err(failed)?;
        Box::new(file)
    };
    let skips = !span.at_line_start && span.start > 0;
    Ok(LineCutter::new(input, framing, limits).at(position, skips).until(span.end))
}

#[cfg(test)]
mod tests;
