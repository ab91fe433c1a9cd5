//! From chunks of lines to records: the loop that file and socket sources share.

use tidemill_engine::{
    model::source::{Flow, Output},
    platform::files::{Chunk, Framing, Piece, Text},
};

use super::{
    bad_record::BadRecordHandler,
    error::{Place, SourceError},
};

/// Decodes one record.
pub(super) trait Decode: 'static {
    /// What it makes.
    type Item: 'static;

    /// The following records are of this input (a file's index).
    fn begin_origin(&mut self, _origin: usize) {}

    /// The following records are of this chunk.
    fn begin_chunk(&mut self, _bytes: &[u8]) {}

    /// Decodes a record without its line end; `None`: there is nothing in it.
    fn decode(&mut self, line: &str) -> Result<Option<Self::Item>, Reject>;
}

/// Why a record was not decoded.
pub(super) enum Reject {
    /// This record is bad.
    Record(String),
    /// No record of this input can be decoded.
    Input(SourceError),
}

/// Whether a chunk is used up.
#[derive(PartialEq, Eq)]
pub(super) enum Progress {
    /// Its records are all emitted.
    Drained,
    /// The output wants a pause.
    Yield,
}

/// Decodes the chunks of one reader.
pub(super) struct LineDecoder<D> {
    pub(super) decoder: D,
    pub(super) bad: BadRecordHandler,
    pub(super) framing: Framing,
    pub(super) line_bytes_max: usize,
}

/// A chunk and how far it is decoded.
pub(super) struct Cursor {
    /// Bytes decoded so far.
    pub(super) at: usize,
    /// Line ends passed since the start of the input's share.
    pub(super) lines: u64,
}

impl<D: Decode> LineDecoder<D> {
    /// Emits the records of `chunk` behind the cursor until the output wants a pause. `place` makes a place
    /// of a byte offset and the number of lines passed before.
    pub(super) fn run(
        &mut self,
        chunk: &Chunk,
        cursor: &mut Cursor,
        split: usize,
        place: &dyn Fn(u64, u64) -> Place,
        output: &mut impl Output<D::Item>,
    ) -> Result<Progress, SourceError> {
        if let Piece::Oversize { first, last } = chunk.piece {
            self.pass_over(chunk, cursor, (first, last), place, output)?;
            return Ok(Progress::Drained);
        }
        let bytes = chunk.text.as_bytes();
        while cursor.at < bytes.len() {
            let begin = cursor.at;
            let rest = &bytes[begin..];
            let size = self.framing.record_end(rest).unwrap_or(rest.len());
            let lines = cursor.lines;
            cursor.at += size;
            cursor.lines += match self.framing {
                Framing::Lines => 1,
                Framing::QuotedLines(_) => memchr::memchr_iter(b'\n', &rest[..size]).count() as u64,
            };
            let decoded = if size > self.line_bytes_max {
                Err(Reject::Record(self.too_long()))
            } else {
                match line_text(&chunk.text, begin, begin + trimmed(&rest[..size])) {
                    Some(line) => self.decoder.decode(line),
                    None => Err(Reject::Record("it is not valid UTF-8".into())),
                }
            };
            match decoded {
                Ok(Some(record)) => {
                    if output.emit(split, record) == Flow::Yield {
                        return Ok(Progress::Yield);
                    }
                }
                Ok(None) => {}
                Err(Reject::Input(error)) => return Err(error),
                Err(Reject::Record(reason)) => {
                    let place = || place(chunk.offset + begin as u64, lines);
                    self.bad.reject(place, &rest[..size], true, reason, output)?;
                }
            }
        }
        Ok(Progress::Drained)
    }

    /// Deals with a piece of a line above the bound.
    fn pass_over(
        &mut self,
        chunk: &Chunk,
        cursor: &mut Cursor,
        (first, last): (bool, bool),
        place: &dyn Fn(u64, u64) -> Place,
        output: &mut impl Output<D::Item>,
    ) -> Result<(), SourceError> {
        let bytes = chunk.text.as_bytes();
        let lines = cursor.lines;
        cursor.at = bytes.len();
        cursor.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        if first {
            let reason = self.too_long();
            self.bad.reject(|| place(chunk.offset, lines), bytes, last, reason, output)
        } else {
            self.bad.keep(bytes, last)
        }
    }

    fn too_long(&self) -> String {
        let hint = match self.framing {
            Framing::Lines => "",
            Framing::QuotedLines(_) => "; a quote mark may be unbalanced",
        };
        format!("it is longer than {} bytes{hint}", self.line_bytes_max)
    }
}

/// The text between two line ends, when it is UTF-8.
#[inline]
fn line_text(text: &Text, begin: usize, end: usize) -> Option<&str> {
    match text {
        Text::Valid(text) => text.get(begin..end),
        Text::Mixed(bytes) => std::str::from_utf8(&bytes[begin..end]).ok(),
    }
}

/// The length of a line without its line end, which may be `\n`, `\r\n` or nothing.
#[inline]
fn trimmed(line: &[u8]) -> usize {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line).len()
}
