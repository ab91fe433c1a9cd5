//! The disk, as a parameter: everything that snapshots need of an operating system.
//!
//! [`os::OsDisk`] is the real one. [`memory::MemoryDisk`] keeps files in memory, counts operations, and fails or
//! crashes at whichever is wanted, with what was not synced lost or torn; the tests and the simulation run on it.

pub mod memory;
pub mod os;
pub mod reads;
mod uring;

use std::{
    fmt, io,
    os::fd::RawFd,
    path::{Path, PathBuf},
};

use super::buffer::PageBuffer;
use crate::state::StateError;

/// Size of the buffers that segments are written from.
pub const STAGING_BYTES: usize = 1 << 20;

/// Files and directories.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a directory and those above it, where they are missing.
    ///
    /// # Errors
    /// Of the system.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory in one that is there, unless it is there already.
    ///
    /// # Errors
    /// With [`io::ErrorKind::NotFound`] when the one above it is missing; else of the system.
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// Takes a directory for this process, until the guard is dropped or the process ends.
    ///
    /// # Errors
    /// With [`io::ErrorKind::ResourceBusy`] when it is taken; else of the system.
    fn lock(&self, directory: &Path) -> Result<DirectoryLock, StateError>;

    /// Makes a file to be written once in whole pages, `length` bytes in all.
    ///
    /// # Errors
    /// When it exists; else of the system.
    fn create(&self, path: &Path, length: u64) -> io::Result<Box<dyn NewFile>>;

    /// Writes a small file whole, in place of one that may be there, and makes its contents durable.
    ///
    /// # Errors
    /// Of the system.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Makes a file to be written from its front to its back, through the system's cache.
    ///
    /// # Errors
    /// When it exists; else of the system.
    fn create_stream(&self, path: &Path) -> io::Result<Box<dyn StreamFile>>;

    /// Opens a file, pipe or device to be written behind what it has; a file is made where there is none.
    ///
    /// # Errors
    /// Of the system.
    fn append(&self, path: &Path) -> io::Result<Box<dyn StreamFile>>;

    /// The length of a file in bytes; `None` of a pipe or device, which is not opened.
    ///
    /// # Errors
    /// With [`io::ErrorKind::NotFound`] when there is none, with [`io::ErrorKind::IsADirectory`] of a directory; else of the system.
    fn length(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Cuts off what a file has behind its first `length` bytes. One that has no more stays as it is.
    ///
    /// # Errors
    /// Of the system.
    fn cut(&self, path: &Path, length: u64) -> io::Result<()>;

    /// Makes the contents of a file durable that was written as a [`StreamFile`].
    ///
    /// # Errors
    /// Of the system. What the file holds is then unknown for ever.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Of the system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OldFile>>;

    /// Opens a file for reads of whole pages into memory aligned to pages, past the page cache where that is possible.
    ///
    /// # Errors
    /// Of the system.
    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn OldFile>> {
        self.open(path)
    }

    /// Gives a file another name, in place of one that may have it.
    ///
    /// # Errors
    /// Of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// When the name is taken or on another filesystem; else of the system.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Whether both are names of one file; not where either is none.
    fn is_same_file(&self, one: &Path, other: &Path) -> bool;

    /// Removes a file.
    ///
    /// # Errors
    /// Of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Of the system.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable; of the working directory if its path is empty.
    ///
    /// # Errors
    /// Of the system.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// The files and directories in a directory, sorted.
    ///
    /// # Errors
    /// Of the system.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
}

/// Holds a directory; see [`Disk::lock`].
pub type DirectoryLock = Box<dyn fmt::Debug + Send>;

/// A file that is being written. Dropped unfinished, it stays behind with whatever got there.
pub trait NewFile: Send {
    /// An empty buffer of [`STAGING_BYTES`]; waits for a write to end if all are in use.
    ///
    /// # Errors
    /// Of an earlier write.
    fn buffer(&mut self) -> io::Result<PageBuffer>;

    /// Writes whole pages at a multiple of the page size, perhaps later.
    ///
    /// # Errors
    /// Of this or an earlier write.
    fn write(&mut self, offset: u64, pages: PageBuffer) -> io::Result<()>;

    /// Waits until everything is written, and makes it durable. Its name becomes so by [`Disk::sync_directory`].
    ///
    /// # Errors
    /// Of a write or the sync. What the file holds is then unknown for ever; write another.
    fn finish(&mut self) -> io::Result<()>;
}

/// A file that is being written from its front to its back. Dropped, it stays, with whatever got there.
pub trait StreamFile: Send {
    /// Writes all of `bytes` behind what was written before. They survive the process, and are durable after
    /// [`Disk::sync_file`].
    ///
    /// # Errors
    /// Of the system; a part may have got there.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was written durable. The file's name becomes so by [`Disk::sync_directory`].
    ///
    /// # Errors
    /// Of the system. What the file holds behind what was durable before is then unknown for ever.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file to be read, by any number of threads.
pub trait OldFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Of the system.
    fn length(&self) -> io::Result<u64>;

    /// Reads exactly these bytes.
    ///
    /// # Errors
    /// When it is shorter; else of the system.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// By what the system knows it, if it is one of the system's files.
    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

/// An error that says what was being done to which file.
pub(crate) fn failed<'a>(
    doing: &'static str,
    file: &'a Path,
) -> impl FnOnce(io::Error) -> StateError + use<'a> {
    move |source| StateError::Io { doing, file: file.to_owned(), source }
}

/// The error of a directory that is taken.
pub(super) fn in_use(directory: &Path, process: Option<u32>) -> StateError {
    let by = process.map(|id| format!(" by process {id}")).unwrap_or_default();
    let what = format!("it is in use{by}; stop that process, or give this job a directory of its own");
    failed("take the directory", directory)(io::Error::new(io::ErrorKind::ResourceBusy, what))
}

/// Reads a small file whole.
///
/// # Errors
/// When it is longer than `bytes_max`; else of the disk.
pub fn read_whole(disk: &dyn Disk, path: &Path, bytes_max: u64) -> Result<Vec<u8>, StateError> {
    let file = disk.open(path).map_err(failed("open", path))?;
    let length = file.length().map_err(failed("read", path))?;
    if length > bytes_max {
        let what = format!("a file of {length} bytes; it can have {bytes_max} at most");
        return Err(StateError::Damaged { file: path.to_owned(), offset: bytes_max, what });
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(0, &mut bytes).map_err(failed("read", path))?;
    Ok(bytes)
}
