//! What can go wrong with a file, and what to do about it.

use std::{io, path::Path, sync::Arc};

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// No such file.
    #[error("cannot read {}: there is no such file. Check the path (it is relative to the working directory)", .path.display())]
    Missing {
        /// The path as given.
        path: Arc<Path>,
    },
    /// The process may not read it.
    #[error("cannot read {}: permission denied. Give the user of this process the right to read it", .path.display())]
    ReadDenied {
        /// The path as given.
        path: Arc<Path>,
    },
    /// An input that is a directory.
    #[error("cannot read {}: it is a directory. Name the files in it", .path.display())]
    InputIsDirectory {
        /// The path as given.
        path: Arc<Path>,
    },
    /// An input that is a pipe, a socket or a device.
    #[error(
        "cannot read {}: it is not a regular file. Copy its content to a file, or feed it by a channel source", .path.display())]
    NotRegular {
        /// The path as given.
        path: Arc<Path>,
    },
    /// A `.gz` file without gzip data.
    #[error("cannot read {}: it is named .gz but does not hold gzip data. Rename it, or compress it anew", .path.display())]
    NotGzip {
        /// The path as given.
        path: Arc<Path>,
    },
    /// A header or first record above the bound.
    #[error(
        "cannot read {}: its first line is longer than {bytes_max} bytes. Check that it is a text file, or raise the longest line", .path.display())]
    FirstRecordTooLong {
        /// The path as given.
        path: Arc<Path>,
        /// The bound in bytes.
        bytes_max: usize,
    },
    /// Reading failed.
    #[error("reading {} failed after byte {offset}: {cause}. Check that the file is whole and its disk healthy", .path.display())]
    Read {
        /// The path as given.
        path: Arc<Path>,
        /// Bytes read so far, unpacked.
        offset: u64,
        /// What the system or the decompressor said.
        #[source]
        cause: io::Error,
    },
    /// A file that is to be read on is another one now.
    #[error("cannot read {} on from byte {offset}: {how}. Put the file back as it was when the checkpoint was taken, or start without the checkpoint", .path.display())]
    Changed {
        /// The path as given.
        path: Arc<Path>,
        /// Where it was to be read on; in the unpacked bytes when it is compressed.
        offset: u64,
        /// What is not as it was.
        how: &'static str,
    },
    /// An output that is a directory.
    #[error("cannot write {}: it is a directory. Name a file in it, or use the sink's `directory` form", .path.display())]
    OutputIsDirectory {
        /// The path as given.
        path: Arc<Path>,
    },
    /// An output directory that is a file.
    #[error("cannot write into {}: it is not a directory. Name a directory, or use the sink's `file` form", .path.display())]
    OutputNotDirectory {
        /// The path as given.
        path: Arc<Path>,
    },
    /// An output in a directory that does not exist.
    #[error("cannot write {}: its directory {} does not exist. Create it first", .path.display(), .parent.display())]
    MissingParent {
        /// The path as given.
        path: Arc<Path>,
        /// The directory that is missing.
        parent: Arc<Path>,
    },
    /// The process may not write there.
    #[error("cannot write {}: {cause}. Choose another place, or give the user of this process the right", .path.display())]
    WriteDenied {
        /// The path as given.
        path: Arc<Path>,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The disk or the quota is used up.
    #[error("cannot write {}: the disk is full ({cause}). Free space or write elsewhere; what was written so far is incomplete", .path.display())]
    DiskFull {
        /// The path as given.
        path: Arc<Path>,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Writing failed otherwise.
    #[error("writing {} failed: {cause}. What was written so far is incomplete", .path.display())]
    Write {
        /// The path as given.
        path: Arc<Path>,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// No I/O thread could be started, or it is gone.
    #[error("the I/O thread that reads {} could not run. Check the limit on threads (`ulimit -u`) and memory", .path.display())]
    ThreadLost {
        /// The first path that it was to read.
        path: Arc<Path>,
    },
}

impl FileError {
    /// An error of opening `path` for reading.
    pub(super) fn open(path: &Path, cause: io::Error) -> Self {
        let path = path.into();
        match cause.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied => Self::ReadDenied { path },
            io::ErrorKind::IsADirectory => Self::InputIsDirectory { path },
            _ => Self::Read { path, offset: 0, cause },
        }
    }

    /// An error of reading `path` after `offset` bytes.
    pub(super) fn read(path: &Path, offset: u64, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::IsADirectory => Self::InputIsDirectory { path: path.into() },
            _ => Self::Read { path: path.into(), offset, cause },
        }
    }

    /// An error of creating or writing `path`.
    pub fn write(path: &Path, cause: io::Error) -> Self {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        match cause.kind() {
            io::ErrorKind::NotFound if !parent.exists() => {
                Self::MissingParent { path: path.into(), parent: parent.into() }
            }
            io::ErrorKind::IsADirectory => Self::OutputIsDirectory { path: path.into() },
            io::ErrorKind::NotADirectory => Self::OutputNotDirectory { path: parent.into() },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::WriteDenied { path: path.into(), cause }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.into(), cause }
            }
            _ => Self::Write { path: path.into(), cause },
        }
    }
}
