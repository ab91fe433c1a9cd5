//! A write-ahead log: records that are durable before anyone is told so, in the order in which they came.
//!
//! ```text
//!   Group ──append──▶ segment 7 ──▶ segment 8 ──▶ segment 9      one write and one sync per group
//!                        ▲              ▲
//!              trim ─────┘              └───── Cursor ──▶ Chunk
//! ```
//!
//! Records have numbers, from 0 on. A segment says the number of its first record, so what an earlier one has from there
//! on does not count: that is how the log goes on behind a write that failed half-way. Files are only ever
//! appended to, and each run of the log begins a file of its own.
//!
//! **Invariants.** A group is written only when the one before it is durable; so at most one, the last, can be torn, and
//! what stands before a sound group was once durable itself. [`open`](WriteAheadLog::open) cuts off a torn last group,
//! which nobody was told of; anything else that is not as it was written is an error, when the log is opened or when a
//! cursor comes to it. Segments are removed from the front, one after the other.

mod cursor;
mod error;
mod format;
mod recover;

use std::{
    collections::VecDeque,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use cursor::Cursor;
pub use error::LogError;
pub use format::{Chunk, GROUP_BYTES_MAX, Group, RECORD_ALIGN};

use crate::snapshot::disk::{DirectoryLock, Disk, StreamFile};
use format::{SegmentHeader, encode_end, segment_path};

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Name and version of the records' type.
    pub schema: String,
    /// Number of the log, if it is made now: any that others hardly have.
    pub number: u64,
    /// A segment that has so many bytes is followed by another.
    pub segment_bytes: u64,
}

/// A log of records; see the [module](self).
pub struct WriteAheadLog {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    _lock: DirectoryLock,
    options: LogOptions,
    /// Number of the log.
    number: u64,
    /// The segments with something in them, the oldest first.
    segments: VecDeque<Segment>,
    /// The last of them, while it can be written.
    active: Option<Active>,
    next_segment: u64,
    /// Number of the next record: all before it are durable.
    next: u64,
    is_ended: bool,
    /// A file lost its name, and it is not known whether a crash would give it back.
    is_unsure_of_names: bool,
    /// Files in which nothing counts, and which could not be removed.
    strays: Vec<PathBuf>,
}

impl fmt::Debug for WriteAheadLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = format_args!("{:016x} in {}", self.number, self.directory.display());
        formatter.debug_tuple("WriteAheadLog").field(&log).finish()
    }
}

/// What is known of a segment.
#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    /// Number of its first record.
    base: u64,
    /// Where its first group begins.
    groups_at: u64,
    /// Bytes that count; `None` when that is not known before it is read.
    end: Option<u64>,
    /// Bytes that it takes on the disk.
    bytes: u64,
}

/// A segment that is being written.
struct Active {
    file: Box<dyn StreamFile>,
    /// Whether its name survives a crash.
    is_named: bool,
}

impl WriteAheadLog {
    /// Takes the log in `directory`; makes one if there is none. All that is in it is durable when this returns.
    ///
    /// # Errors
    /// When the directory cannot be made, written or taken; when the log is damaged, has another schema, or is of a
    /// newer version.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path, options: LogOptions) -> Result<Self, LogError> {
        recover::open(disk, directory, options)
    }

    /// Number of the log, which no other has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Number of the oldest record that is kept.
    pub fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |segment| segment.base)
    }

    /// Number of the record that comes next: all before it are durable.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether nothing may follow.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Bytes that it takes on the disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Appends records and makes them durable. Returns them as a reader will see them.
    ///
    /// # Errors
    /// Of the disk. Then they are not in the log, unless the process dies before anything else is appended: that
    /// decides whether they are. The log can be appended to again.
    pub fn append(&mut self, group: &Group) -> Result<Chunk, LogError> {
        debug_assert!(
            !self.is_ended && !group.is_empty(),
            "a group has records, and nothing follows the end"
        );
        let frame = group.encode(self.number, self.next);
        let chunk = self.read_own(&frame)?;
        self.write(&frame)?;
        self.next += group.records();
        Ok(chunk)
    }

    /// Writes that nothing will follow, durably.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn end(&mut self) -> Result<(), LogError> {
        if !self.is_ended {
            let frame = encode_end(self.number, self.next);
            self.write(&frame)?;
            self.is_ended = true;
        }
        Ok(())
    }

    /// What was just encoded, decoded: checks the writer by the reader, before anything is written.
    fn read_own(&self, frame: &[u8]) -> Result<Chunk, LogError> {
        let damaged = |what: &str| LogError::Damaged {
            file: self.directory.clone(),
            offset: 0,
            what: format!("{what}, in memory"),
        };
        cursor::decode_frame(frame).map_err(damaged)
    }

    fn write(&mut self, frame: &[u8]) -> Result<(), LogError> {
        let written = self.write_to_active(frame);
        if written.is_err() {
            self.abandon();
        }
        written
    }

    fn write_to_active(&mut self, frame: &[u8]) -> Result<(), LogError> {
        let is_full = self.segments.back().is_none_or(|last| last.bytes >= self.options.segment_bytes);
        if self.active.is_none() || is_full {
            self.begin_segment()?;
        }
        let (Some(active), Some(last)) = (&mut self.active, self.segments.back_mut()) else {
            return Err(failed("write", &self.directory)(std::io::ErrorKind::NotFound.into()));
        };
        active.file.write(frame).map_err(failed("write", &last.path))?;
        active.file.sync().map_err(failed("sync", &last.path))?;
        if !active.is_named {
            self.disk.sync_directory(&self.directory).map_err(failed("sync", &self.directory))?;
            active.is_named = true;
        }
        last.bytes += frame.len() as u64;
        last.end = Some(last.bytes);
        Ok(())
    }

    /// Makes a segment, which becomes durable with the first group in it.
    fn begin_segment(&mut self) -> Result<(), LogError> {
        self.active = None;
        let number = self.next_segment;
        self.next_segment += 1;
        let path = segment_path(&self.directory, number);
        let mut file = self.disk.create_stream(&path).map_err(failed("create", &path))?;
        let schema = self.options.schema.clone();
        let header = SegmentHeader { log: self.number, segment: number, base: self.next, schema }.encode();
        // Durable before any record is behind it: what a power cut leaves of one that is not could not be told from one that was
        // damaged later, with records that were acknowledged.
        if let Err(error) = file.write(&header).and_then(|()| file.sync()) {
            self.discard(path.clone());
            return Err(failed("write", &path)(error));
        }
        let groups_at = header.len() as u64;
        let base = self.next;
        self.segments.push_back(Segment {
            number,
            path,
            base,
            groups_at,
            end: Some(groups_at),
            bytes: groups_at,
        });
        self.active = Some(Active { file, is_named: false });
        Ok(())
    }

    /// What the last segment holds behind what is durable is unknown for ever: the next group goes to another.
    fn abandon(&mut self) {
        // One that was there before says where the log has come to, also without a record.
        let is_own = self.active.take().is_some();
        let is_empty = self.segments.back().is_some_and(|last| last.base == self.next);
        if is_own
            && is_empty
            && let Some(last) = self.segments.pop_back()
        {
            self.discard(last.path);
        }
    }

    /// Removes a file in which nothing counts. As long as it stays, the base of the next segment says so.
    fn discard(&mut self, path: PathBuf) {
        match self.disk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => self.strays.push(path),
            _ => self.is_unsure_of_names = true,
        }
    }

    /// Removes the segments whose records all have numbers below `before`. The last segment stays.
    ///
    /// # Errors
    /// Of the disk; what stays is removed another time.
    pub fn trim(&mut self, before: u64) -> Result<(), LogError> {
        // With the segment gone that says that nothing in them counts, they would.
        while let Some(stray) = self.strays.last() {
            match self.disk.remove(stray) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed("remove", stray)(error));
                }
                _ => self.is_unsure_of_names = true,
            }
            self.strays.pop();
        }
        while self.segments.get(1).is_some_and(|second| second.base <= before) {
            // The names go one after the other, also for a crash: else there could be a gap.
            self.settle_names()?;
            let Some(oldest) = self.segments.front() else { break };
            self.disk.remove(&oldest.path).map_err(failed("remove", &oldest.path))?;
            self.is_unsure_of_names = true;
            self.segments.pop_front();
        }
        self.settle_names()
    }

    fn settle_names(&mut self) -> Result<(), LogError> {
        if self.is_unsure_of_names {
            self.disk.sync_directory(&self.directory).map_err(failed("sync", &self.directory))?;
            self.is_unsure_of_names = false;
        }
        Ok(())
    }
}

/// An error that says what was being done to which file.
fn failed<'a>(doing: &'static str, file: &'a Path) -> impl FnOnce(std::io::Error) -> LogError + use<'a> {
    move |source| LogError::Io { doing, file: file.to_owned(), source }
}

#[cfg(test)]
mod tests;
