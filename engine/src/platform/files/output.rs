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

    /// How long the file is, in bytes; `None` for devices and pipes.
    ///
    /// # Errors
    /// Of the system.
    pub fn length(&self) -> Result<Option<u64>, FileError> {
        let metadata = self.file.metadata().map_err(|cause| FileError::write(&self.path, cause))?;
        Ok(metadata.is_file().then_some(metadata.len()))
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

/// Makes durable what was written to the file at `path`, by whomever. Nothing is done where there is none.
///
/// # Errors
/// When the disk is full or fails.
pub fn sync_output(path: &Path) -> Result<(), FileError> {
    with_file(path, |file| file.sync_data())
}

/// Cuts off what the file at `path` has behind its first `length` bytes. Nothing is done where there is none, or a shorter one.
///
/// # Errors
/// When the place is not writable, or the disk fails.
pub fn cut_output(path: &Path, length: u64) -> Result<(), FileError> {
    with_file(path, |file| if file.metadata()?.len() > length { file.set_len(length) } else { Ok(()) })
}

/// Does something with the file at `path`, if there is one: no device, no pipe.
fn with_file(path: &Path, act: impl FnOnce(&File) -> io::Result<()>) -> Result<(), FileError> {
    let done = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            OpenOptions::new().write(true).open(path).and_then(|file| act(&file))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    match done {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(FileError::write(path, cause)),
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable; of the working directory if its path is empty.
///
/// # Errors
/// When the disk fails.
pub fn sync_names(directory: &Path) -> Result<(), FileError> {
    let path = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(path).and_then(|opened| opened.sync_all()).map_err(|cause| FileError::write(path, cause))
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
