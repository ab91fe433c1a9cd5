//! Cuts a byte stream into chunks of whole lines.
//!
//! What follows the last line end of a chunk is carried to the front of the next one, so nobody downstream
//! sees a line in two parts. A line above the bound leaves as [`Piece::Oversize`] pieces: memory stays
//! bounded whatever the input holds. Text is checked as UTF-8 here, once per chunk.

use std::io::{self, Read};

/// What ends a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A line feed.
    Lines,
    /// A line feed outside of quotes; the byte is the quote mark. A quote within quotes is doubled, so
    /// the parity of the marks tells.
    QuotedLines(u8),
}

impl Framing {
    /// The end of the first record in `bytes`, behind its line feed.
    #[inline]
    pub fn record_end(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Lines => memchr::memchr(b'\n', bytes).map(|at| at + 1),
            Self::QuotedLines(quote) => unquoted_feeds(bytes, quote).next(),
        }
    }

    /// The end of the last record in `bytes`, behind its line feed.
    fn last_record_end(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Lines => memchr::memrchr(b'\n', bytes).map(|at| at + 1),
            Self::QuotedLines(quote) => unquoted_feeds(bytes, quote).last(),
        }
    }
}

/// Offsets behind the line feeds outside of quotes, from the start of a record.
fn unquoted_feeds(bytes: &[u8], quote: u8) -> impl Iterator<Item = usize> + '_ {
    let mut quoted = false;
    memchr::memchr2_iter(quote, b'\n', bytes).filter_map(move |at| {
        if bytes[at] == quote {
            quoted = !quoted;
            return None;
        }
        (!quoted).then_some(at + 1)
    })
}

/// Sizes that bound a cutter.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes to gather per chunk.
    pub chunk_bytes: usize,
    /// The longest line that is kept whole, in bytes.
    pub line_bytes_max: usize,
    /// Hand out whole lines after every read instead of filling the chunk: for sockets.
    pub eager: bool,
}

/// The bytes of a chunk.
#[derive(Debug)]
pub enum Text {
    /// Valid UTF-8 throughout.
    Valid(String),
    /// At least one line is not UTF-8.
    Mixed(Vec<u8>),
}

impl Text {
    fn new(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Valid(text),
            Err(error) => Self::Mixed(error.into_bytes()),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Valid(text) => text.as_bytes(),
            Self::Mixed(bytes) => bytes,
        }
    }

    /// The buffer, for another use.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Valid(text) => text.into_bytes(),
            Self::Mixed(bytes) => bytes,
        }
    }
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Whole lines; the last line of the input may lack its line feed.
    Lines,
    /// A piece of a line above the bound.
    Oversize {
        /// Whether the line begins here.
        first: bool,
        /// Whether the line ends here.
        last: bool,
    },
}

/// Some lines of the input.
#[derive(Debug)]
pub struct Chunk {
    /// Index of the span, in the order given, or of the connection.
    pub span: usize,
    /// Offset of the first byte in the input.
    pub offset: u64,
    /// The bytes, never empty.
    pub text: Text,
    /// Whole lines, or a part of one.
    pub piece: Piece,
}

/// Cuts what it reads from `R`; see the module.
pub struct LineCutter<R> {
    input: R,
    framing: Framing,
    limits: Limits,
    /// What followed the last line end.
    carry: Vec<u8>,
    /// Offset of `carry`'s first byte.
    offset: u64,
    /// Lines from here on belong to another.
    end: Option<u64>,
    /// The first line belongs to another.
    skips_first: bool,
    /// Within a line above the bound.
    oversize: bool,
    ended: bool,
}

impl<R: Read> LineCutter<R> {
    /// Cuts from the beginning to the end of `input`.
    pub fn new(input: R, framing: Framing, limits: Limits) -> Self {
        assert!(limits.chunk_bytes > 0 && limits.line_bytes_max > 0, "sizes are above zero");
        Self {
            input,
            framing,
            limits,
            carry: Vec::new(),
            offset: 0,
            end: None,
            skips_first: false,
            oversize: false,
            ended: false,
        }
    }

    /// Says that the input stands at `offset`, and whether to pass over everything up to the first line feed.
    #[must_use]
    pub fn at(mut self, offset: u64, skips_first: bool) -> Self {
        self.offset = offset;
        self.skips_first = skips_first;
        self
    }

    /// Stops before the first line that begins at or after `end`.
    #[must_use]
    pub fn until(mut self, end: Option<u64>) -> Self {
        self.end = end;
        self
    }

    /// Offset of the first byte that was not handed out yet.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// After an error: what was read of an unfinished line.
    pub fn into_rest(self) -> Vec<u8> {
        self.carry
    }

    /// The next chunk, made in `buffer`; `None` at the end.
    ///
    /// # Errors
    /// As the input's; an unfinished line is kept, and may be read on or taken by [`Self::into_rest`].
    pub fn next(&mut self, mut buffer: Vec<u8>) -> io::Result<Option<Chunk>> {
        buffer.clear();
        buffer.append(&mut self.carry);
        loop {
            if self.ended {
                return Ok(None);
            }
            let exhausted = match self.fill(&mut buffer) {
                Ok(exhausted) => exhausted,
                Err(cause) => {
                    self.carry = buffer;
                    return Err(cause);
                }
            };
            if self.skips_first {
                self.skip_first(&mut buffer);
            }
            if self.end.is_some_and(|end| self.offset >= end) || (exhausted && buffer.is_empty()) {
                self.ended = true;
                return Ok(None);
            }
            let piece = self.cut(&buffer, exhausted);
            if let Some((size, piece)) = piece
                && size > 0
            {
                return Ok(Some(self.hand_out(buffer, size, piece)));
            }
        }
    }

    /// Reads until the chunk is full (or once, when eager); says whether the input is exhausted.
    fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let begin = buffer.len();
        // A carried line that fills a chunk grows it; `cut` bounds the growth.
        let target = if begin < self.limits.chunk_bytes { self.limits.chunk_bytes } else { 2 * begin };
        buffer.resize(target, 0);
        let mut filled = begin;
        let outcome = loop {
            if filled == target {
                break Ok(false);
            }
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break Ok(true),
                Ok(read) => {
                    filled += read;
                    if self.limits.eager {
                        break Ok(false);
                    }
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => break Err(cause),
            }
        };
        buffer.truncate(filled);
        outcome
    }

    /// Drops everything up to the first line feed.
    fn skip_first(&mut self, buffer: &mut Vec<u8>) {
        let skipped = memchr::memchr(b'\n', buffer).map_or(buffer.len(), |at| {
            self.skips_first = false;
            at + 1
        });
        buffer.drain(..skipped);
        self.offset += skipped as u64;
    }

    /// How much of the buffer goes out, and as what; `None`: read on.
    fn cut(&mut self, buffer: &[u8], exhausted: bool) -> Option<(usize, Piece)> {
        if self.oversize {
            let end = memchr::memchr(b'\n', buffer).map(|at| at + 1);
            let last = end.is_some() || exhausted;
            self.oversize = !last;
            return Some((end.unwrap_or(buffer.len()), Piece::Oversize { first: false, last }));
        }
        // The line that holds the last byte before `end` is the last of ours.
        if let Some(end) = self.end {
            let last_byte = usize::try_from(end - 1 - self.offset).unwrap_or(usize::MAX);
            if last_byte < buffer.len()
                && let Some(at) = memchr::memchr(b'\n', &buffer[last_byte..])
            {
                self.ended = true;
                return Some((last_byte + at + 1, Piece::Lines));
            }
        }
        if exhausted {
            return Some((buffer.len(), Piece::Lines));
        }
        let end = self.framing.last_record_end(buffer);
        if end.is_none() && buffer.len() >= self.limits.line_bytes_max {
            self.oversize = true;
            return Some((buffer.len(), Piece::Oversize { first: true, last: false }));
        }
        end.map(|end| (end, Piece::Lines))
    }

    /// Splits off what was not cut and wraps the rest.
    fn hand_out(&mut self, mut buffer: Vec<u8>, size: usize, piece: Piece) -> Chunk {
        if !self.ended {
            self.carry.extend_from_slice(&buffer[size..]);
        }
        buffer.truncate(size);
        let offset = self.offset;
        self.offset += size as u64;
        Chunk { span: 0, offset, text: Text::new(buffer), piece }
    }
}
