//! What can go wrong with state: wrong types, damaged files, a disk that fails or is full.

use std::{io, path::PathBuf};

/// Why state could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A state was stored with another type.
    #[error(
        "state `{state}` of operator `{operator}` was stored with {what} `{stored}` and is opened with `{wanted}`; \
         open it with the stored type, register a migration from it, or give the new state another name"
    )]
    Schema {
        /// The operator's id.
        operator: String,
        /// The state's name.
        state: String,
        /// Which of its types differs: `keys`, `values` or `kind`.
        what: &'static str,
        /// The type it was stored with.
        stored: String,
        /// The type it is opened with.
        wanted: String,
    },
    /// A state was opened twice.
    #[error("operator `{operator}` opens its state `{state}` twice; give each state its own name")]
    OpenTwice {
        /// The operator's id.
        operator: String,
        /// The state's name.
        state: String,
    },
    /// A key or value is longer than the store can hold.
    #[error("a {what} of {bytes} bytes is over the limit of {bytes_max} bytes per {what}; split it up")]
    TooLong {
        /// `key`, `value` or `table`.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A file is not what it should be: cut off, changed, of another store, or of a newer version.
    #[error("{file}: at byte {offset}: {what}", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {file}: {source}", file = file.display())]
    Io {
        /// What was being done: `read`, `write`, `create`, …
        doing: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A record could not be written or read back.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
}
