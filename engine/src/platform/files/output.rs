//! Files that connectors write beside the platform's disk, with errors that name the path.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::Arc,
};

use super::FileError;

/// A file being written. It is unbuffered: write large pieces.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    path: Arc<Path>,
}

impl OutputFile {
    /// Opens the file to write behind what is there, and creates it when it is missing. Every write is one
    /// append, so several writers of whole lines do not mix them.
    ///
    /// # Errors
    /// When the path is a directory, its parent is missing, or the place is not writable.
    pub fn append(path: &Path) -> Result<Self, FileError> {
        let opened = OpenOptions::new().append(true).create(true).open(path);
        let file = opened.map_err(|cause| FileError::write(path, cause))?;
        Ok(Self { file, path: path.into() })
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// When the disk is full or fails; a part may have been written.
    pub fn write_whole(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(|cause| FileError::write(&self.path, cause))
    }
}

/// Checks that a file can be created at `path`, without emptying the one that may be there.
///
/// # Errors
/// As [`OutputFile::append`].
pub fn check_output(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Err(FileError::OutputIsDirectory { path: path.into() });
    }
    OutputFile::append(path).map(drop)
}
