//! Reads a log from any record on, group by group, over the borders of segments.

use std::{fmt, io, path::Path};

use super::{
    LogError, Segment, WriteAheadLog, failed,
    format::{Chunk, GROUP_HEADER_BYTES, GroupHeader},
};
use crate::snapshot::disk::OldFile;

/// Bytes that are read at a time, unless a group is longer.
const READ_BYTES: u64 = 256 << 10;

/// A place in a log. It does not hold the log: segments may be appended and removed between two reads.
pub struct Cursor {
    /// Number of the record that is wanted next.
    next: u64,
    /// The segment that is being read.
    open: Option<Open>,
    /// Where in which segment the next record is, if that is known: number, byte, record.
    hint: Option<(u64, u64, u64)>,
}

struct Open {
    segment: u64,
    window: Window,
    /// Number of the first record of the next group.
    expects: u64,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cursor").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Cursor {
    /// A cursor in front of record `record`.
    ///
    /// # Errors
    /// When that record is not in the log, nor the next that will be.
    pub fn at(log: &WriteAheadLog, record: u64) -> Result<Self, LogError> {
        if record < log.first() || record > log.next() {
            return Err(LogError::Elsewhere {
                directory: log.directory().to_owned(),
                wanted: record,
                first: log.first(),
                end: log.next(),
            });
        }
        Ok(Self { next: record, open: None, hint: None })
    }

    /// Number of the record that is wanted next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes over that the records up to the log's end were got in another way.
    pub fn pass_to_end(&mut self, log: &WriteAheadLog) {
        self.next = log.next();
        self.open = None;
        self.hint = log.segments.back().and_then(|last| Some((last.number, last.end?, log.next())));
    }

    /// The next records, or the mark of the end; `None` when there is no more for now.
    ///
    /// # Errors
    /// When the log is damaged where the cursor stands, or cannot be read.
    pub fn read(&mut self, log: &WriteAheadLog) -> Result<Option<Chunk>, LogError> {
        if self.next == log.next() {
            return Ok(log.is_ended().then(|| Chunk::end(self.next)));
        }
        loop {
            let (at, limit) = self.place(log)?;
            let segment = &log.segments[at];
            let open = match &mut self.open {
                Some(open) if open.segment == segment.number => open,
                open => open.insert(Open::new(log, segment, self.hint.take())?),
            };
            let read = open.window.group(log.number, open.expects, segment.end);
            let damaged = |what: &str, open: &Open| LogError::Damaged {
                file: segment.path.clone(),
                offset: open.window.at,
                what: format!("{what}, where record {} should be", open.expects),
            };
            let mut chunk = match read {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(what)) => return Err(damaged(what, open)),
                Err(error) => return Err(failed("read", &segment.path)(error)),
            };
            let end = open.expects + chunk.remaining();
            if end > limit || chunk.is_end() {
                return Err(damaged("a group of records that reaches into the next segment", open));
            }
            open.expects = end;
            if end > self.next {
                chunk.skip_to(self.next);
                self.next = end;
                return Ok(Some(chunk));
            }
        }
    }

    /// Index of the segment that has the next record, and the number of the first one behind it.
    fn place(&self, log: &WriteAheadLog) -> Result<(usize, u64), LogError> {
        let behind = log.segments.partition_point(|segment| segment.base <= self.next);
        let Some(at) = behind.checked_sub(1) else {
            // It was trimmed away under the cursor.
            Self::at(log, self.next)?;
            return Err(failed("read", log.directory())(io::ErrorKind::NotFound.into()));
        };
        Ok((at, log.segments.get(behind).map_or(log.next(), |next| next.base)))
    }
}

impl Open {
    fn new(log: &WriteAheadLog, segment: &Segment, hint: Option<(u64, u64, u64)>) -> Result<Self, LogError> {
        let (_, at, expects) = hint.filter(|(number, _, _)| *number == segment.number).unwrap_or((
            segment.number,
            segment.groups_at,
            segment.base,
        ));
        let window = Window::open(log, &segment.path, at)?;
        Ok(Self { segment: segment.number, window, expects })
    }
}

/// A file that is read from its front to its back, some hundred kilobytes at a time.
pub(super) struct Window {
    file: Box<dyn OldFile>,
    /// Where the next group begins.
    pub(super) at: u64,
    /// Where the bytes that were read begin.
    from: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn open(log: &WriteAheadLog, path: &Path, at: u64) -> Result<Self, LogError> {
        let file = log.disk.open(path).map_err(failed("open", path))?;
        Ok(Self::new(file, at))
    }

    pub(super) fn new(file: Box<dyn OldFile>, at: u64) -> Self {
        Self { file, at, from: at, bytes: Vec::new() }
    }

    /// Bytes from `at` on that are there, at least `wanted` if the file has so many up to `end`.
    pub(super) fn peek(&mut self, wanted: u64, end: Option<u64>) -> io::Result<&[u8]> {
        let has = self.from + self.bytes.len() as u64;
        if self.at < self.from || self.at + wanted > has {
            let length = self.file.length()?;
            let end = end.map_or(length, |end| end.min(length));
            let until = (self.at + wanted.max(READ_BYTES)).min(end).max(self.at);
            self.bytes.resize((until - self.at) as usize, 0);
            self.from = self.at;
            self.file.read_at(self.at, &mut self.bytes)?;
        }
        Ok(&self.bytes[(self.at - self.from) as usize..])
    }

    /// The group at `at`, behind which the window goes; what is wrong, if there is none that begins with record `first`.
    pub(super) fn group(
        &mut self,
        log: u64,
        first: u64,
        end: Option<u64>,
    ) -> io::Result<Result<Chunk, &'static str>> {
        const CUT: &str = "the file ends";
        let bytes = self.peek(GROUP_HEADER_BYTES as u64, end)?;
        let Some(head) = bytes.first_chunk() else { return Ok(Err(CUT)) };
        let header = match GroupHeader::decode(head) {
            Ok(header) if header.log == log && header.first == first => header,
            Ok(_) => return Ok(Err("a group of other records")),
            Err(what) => return Ok(Err(what)),
        };
        let length = GROUP_HEADER_BYTES + header.length;
        let Some(frame) = self.peek(length as u64, end)?.get(..length) else { return Ok(Err(CUT)) };
        let chunk = Chunk::decode(&header, frame);
        if chunk.is_ok() {
            self.at += length as u64;
        }
        Ok(chunk)
    }
}

/// What a whole frame holds.
pub(super) fn decode_frame(frame: &[u8]) -> Result<Chunk, &'static str> {
    let head = frame.first_chunk().ok_or("the frame is cut off")?;
    let header = GroupHeader::decode(head)?;
    Chunk::decode(&header, frame)
}
