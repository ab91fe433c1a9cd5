//! Files that sinks write, with errors that name the path.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
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
    /// Creates the file, or empties the one that is there.
    ///
    /// # Errors
    /// When the path is a directory, its parent is missing, or the place is not writable.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        Self::open(path, OpenOptions::new().write(true).create(true).truncate(true))
    }

    /// Opens the file to write behind what is there, and creates it when it is missing. Every write is one
    /// append, so several writers of whole lines do not mix them.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn append(path: &Path) -> Result<Self, FileError> {
        Self::open(path, OpenOptions::new().append(true).create(true))
    }

    fn open(path: &Path, options: &OpenOptions) -> Result<Self, FileError> {
        let file = options.open(path).map_err(|cause| FileError::write(path, cause))?;
        Ok(Self { file, path: path.into() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// When the disk is full or fails; a part may have been written.
    pub fn write_whole(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(|cause| FileError::write(&self.path, cause))
    }

    /// Makes what was written durable. Does nothing for devices and pipes.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn sync(&self) -> Result<(), FileError> {
        let sync = || {
            if self.file.metadata()?.is_file() { self.file.sync_data() } else { Ok(()) }
        };
        sync().map_err(|cause| FileError::write(&self.path, cause))
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks that a file can be created at `path`, without emptying the one that may be there.
///
/// # Errors
/// As [`OutputFile::create`].
pub fn check_output(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Err(FileError::OutputIsDirectory { path: path.into() });
    }
    OutputFile::append(path).map(drop)
}

/// Makes the directory `path` in an existing one, unless it is there.
///
/// # Errors
/// When its parent is missing, `path` is a file, or the place is not writable.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            if path.is_dir() {
                Ok(())
            } else {
                Err(FileError::OutputNotDirectory { path: path.into() })
            }
        }
        Err(cause) => Err(FileError::write(path, cause)),
    }
}

/// The files `part-N.EXTENSION` in a directory, with their numbers, in rising order.
///
/// # Errors
/// When the directory cannot be listed.
pub fn part_numbers(directory: &Path, extension: &str) -> Result<Vec<(usize, PathBuf)>, FileError> {
    let entries = fs::read_dir(directory).map_err(|cause| FileError::open(directory, cause))?;
    let mut parts = Vec::new();
    for entry in entries {
        let path = entry.map_err(|cause| FileError::open(directory, cause))?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("part-")?.strip_suffix(extension)?.strip_suffix('.'))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            parts.push((number, path));
        }
    }
    parts.sort_unstable();
    Ok(parts)
}
