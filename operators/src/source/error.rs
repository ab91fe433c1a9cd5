//! What can go wrong in a source, and what to do about it.

use std::fmt;

use tidemill_engine::platform::{files::FileError, sockets::SocketError};

/// Bytes of a bad record that an error shows.
const EXCERPT_BYTES_MAX: usize = 120;

/// Where in the input a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or the connection.
    pub origin: String,
    /// Offset of the record's first byte in the (unpacked) input; exact.
    pub offset: u64,
    /// Number of its line, from 1; `None` when it would cost too much to count.
    pub line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {}", self.origin, self.offset)?;
        match self.line {
            Some(line) => write!(formatter, " (line {line})"),
            None => write!(formatter, " (line number not counted)"),
        }
    }
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file source without files.
    #[error("a file source was given no file. Name at least one")]
    NoFiles,
    /// A file cannot be read, or the dead-letter file not written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A record cannot be decoded, and the source's setting is to fail.
    #[error(
        "bad record in {place}: {reason}, in `{excerpt}`. Mend it, or set `on_error` to skip bad records or to keep them in a dead-letter file"
    )]
    BadRecord {
        /// Where it is.
        place: Place,
        /// Why it cannot be decoded.
        reason: String,
        /// Its first bytes, escaped.
        excerpt: String,
    },
    /// No record of the file can be decoded; not a matter of bad records.
    #[error(
        "{origin} cannot be decoded: {reason}. Compare the record's fields with the file's columns: {columns}"
    )]
    Mismatch {
        /// The file.
        origin: String,
        /// What is missing.
        reason: String,
        /// The columns that the file has.
        columns: String,
    },
    /// The first line of a file is no header.
    #[error("the header of {origin} is not valid: {reason}. Mend it, or read the file with `header(false)`")]
    Header {
        /// The file.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// No I/O threads.
    #[error(
        "cannot start the thread that starts I/O threads: {cause}. Check the limit on threads (`ulimit -u`)"
    )]
    Threads {
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// A source that needs other threads on a platform without.
    #[error(
        "{source_name} needs I/O threads, which this platform has not. Use it on the real platform, or feed a test by a vector"
    )]
    NeedsThreads {
        /// The kind of source.
        source_name: &'static str,
    },
    /// The checkpoint has splits of another kind of source.
    #[error(
        "the checkpoint has splits of the type `{stored}`, and this source reads splits of the type `{wanted}`. Give a source that was replaced another id with `.uid(…)`, or start without the checkpoint"
    )]
    OtherSplits {
        /// Schema of the splits in the checkpoint.
        stored: String,
        /// Schema of the splits that the source reads.
        wanted: String,
    },
    /// The checkpoint was taken of a longer vector.
    #[error(
        "the checkpoint has the items {from} to {to} of a vector left to be read, and the vector has {items}. Give the source the vector that it had, or start without the checkpoint"
    )]
    ShorterVector {
        /// Items in the vector.
        items: u64,
        /// First item to be read.
        from: u64,
        /// The one behind the last.
        to: u64,
    },
    /// The checkpoint has a file that the source was not given.
    #[error(
        "the checkpoint has {path} left to be read from byte {offset} on, and the source does not name that file. Name it again, as it was named before, or start without the checkpoint"
    )]
    UnknownFile {
        /// The file.
        path: String,
        /// Where it would be read on, in the unpacked bytes.
        offset: u64,
    },
    /// A share was opened before the source was prepared, or twice.
    #[error(
        "{source_name}: subtask {subtask} was opened without a share. Prepare a source once, and open each subtask once"
    )]
    NoShare {
        /// The kind of source.
        source_name: &'static str,
        /// The subtask.
        subtask: usize,
    },
}

impl SourceError {
    /// The error of a record that cannot be decoded.
    pub(super) fn bad_record(place: Place, reason: String, raw: &[u8]) -> Self {
        let shown = &raw[..raw.len().min(EXCERPT_BYTES_MAX)];
        let mut excerpt = shown.trim_ascii_end().escape_ascii().to_string();
        if raw.len() > EXCERPT_BYTES_MAX {
            excerpt.push('…');
        }
        Self::BadRecord { place, reason, excerpt }
    }
}
