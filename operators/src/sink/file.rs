//! What file sinks share: one file or a directory of parts, and a buffer before it.

use std::path::{Path, PathBuf};

use tidemill_engine::{
    model::source::SubtaskContext,
    platform::files::{OutputFile, check_output, make_directory, part_numbers},
};

use super::error::SinkError;

/// Bytes that are gathered before they are written.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// Where a file sink writes.
#[derive(Clone, Debug)]
pub(super) enum Target {
    File(PathBuf),
    Directory { directory: PathBuf, extension: &'static str },
}

impl Target {
    /// Checks the place.
    pub(super) fn prepare(&self, parallelism: usize) -> Result<(), SinkError> {
        match self {
            Self::File(path) if parallelism > 1 => {
                Err(SinkError::OneFileManyWriters { path: path.clone(), parallelism })
            }
            Self::File(path) => Ok(check_output(path)?),
            Self::Directory { directory, extension } => {
                make_directory(directory)?;
                let parts = part_numbers(directory, extension)?;
                if let Some((_, part)) = parts.into_iter().find(|(number, _)| *number >= parallelism) {
                    return Err(SinkError::LeftoverPart { directory: directory.clone(), part });
                }
                // An unwritable directory is found here.
                Ok(check_output(&self.path(0))?)
            }
        }
    }

    /// The file of a subtask.
    fn path(&self, subtask: usize) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Directory { directory, extension } => directory.join(format!("part-{subtask}.{extension}")),
        }
    }

    /// Creates the file of a subtask.
    pub(super) fn create(&self, context: &SubtaskContext) -> Result<OutputFile, SinkError> {
        Ok(OutputFile::create(&self.path(context.subtask))?)
    }

    /// Creates the file of a subtask, with a buffer.
    pub(super) fn open(&self, context: &SubtaskContext) -> Result<BufferedFile, SinkError> {
        let file = self.create(context)?;
        Ok(BufferedFile { file, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }
}

/// A file and what is not written to it yet.
pub(super) struct BufferedFile {
    file: OutputFile,
    /// Whole records.
    pub(super) buffer: Vec<u8>,
}

impl BufferedFile {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Writes the buffer when it is full.
    #[inline]
    pub(super) fn record_done(&mut self) -> Result<(), SinkError> {
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the buffer.
    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        if !self.buffer.is_empty() {
            self.file.write_whole(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Writes the buffer and makes the file durable.
    pub(super) fn finish(&mut self) -> Result<(), SinkError> {
        self.flush()?;
        Ok(self.file.sync()?)
    }
}
