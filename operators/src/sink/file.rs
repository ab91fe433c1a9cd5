//! What file sinks share: one file or a directory of parts, and a buffer before it.

use std::path::{Path, PathBuf};

use tidemill_engine::{
    model::{checkpoint::Committable, source::SubtaskContext},
    platform::files::{OutputFile, check_output, make_directory, part_numbers},
};

use super::{
    error::SinkError,
    lengths::{self, Lengths},
};

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
            Self::Directory { directory, .. } => {
                make_directory(directory)?;
                // An unwritable directory is found here.
                Ok(check_output(&self.path(0))?)
            }
        }
    }

    /// The subtasks that have a file, or have had one when there were more of them.
    pub(super) fn parts(&self) -> Result<Vec<usize>, SinkError> {
        match self {
            Self::File(_) => Ok(vec![0]),
            Self::Directory { directory, extension } => {
                Ok(part_numbers(directory, extension)?.into_iter().map(|(number, _)| number).collect())
            }
        }
    }

    /// Fails if there is a part of an earlier run that would look like one of this result.
    fn check_parts(&self, parallelism: usize) -> Result<(), SinkError> {
        let Self::Directory { directory, .. } = self else { return Ok(()) };
        match self.parts()?.into_iter().find(|number| *number >= parallelism) {
            Some(number) => {
                Err(SinkError::LeftoverPart { directory: directory.clone(), part: self.path(number) })
            }
            None => Ok(()),
        }
    }

    /// The file of a subtask.
    pub(super) fn path(&self, subtask: usize) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Directory { directory, extension } => directory.join(format!("part-{subtask}.{extension}")),
        }
    }

    /// Opens the file of a subtask: empty in a fresh start, with what the checkpoint knows of it where the job goes on.
    pub(super) fn open(&self, context: &SubtaskContext, lengths: &Lengths) -> Result<OutputFile, SinkError> {
        let path = self.path(context.subtask);
        if lengths.go_on() {
            return Ok(OutputFile::append(&path)?);
        }
        self.check_parts(context.parallelism)?;
        Ok(OutputFile::create(&path)?)
    }

    /// As [`open`](Self::open), with a buffer.
    pub(super) fn open_buffered(
        &self,
        context: &SubtaskContext,
        lengths: &Lengths,
    ) -> Result<BufferedFile, SinkError> {
        let file = self.open(context, lengths)?;
        Ok(BufferedFile { file, buffer: Vec::with_capacity(BUFFER_BYTES), part: context.subtask })
    }
}

/// A file and what is not written to it yet.
pub(super) struct BufferedFile {
    file: OutputFile,
    /// Whole records.
    pub(super) buffer: Vec<u8>,
    /// Whose it is.
    part: usize,
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

    /// Writes the buffer, and says for a checkpoint how long the file is.
    pub(super) fn pre_commit(&mut self) -> Result<Vec<Committable>, SinkError> {
        self.flush()?;
        length_of(&self.file, self.part)
    }

    /// Writes the buffer and makes the file durable.
    pub(super) fn finish(&mut self) -> Result<(), SinkError> {
        self.flush()?;
        Ok(self.file.sync()?)
    }
}

/// What a checkpoint keeps of a file; nothing of a device or a pipe.
pub(super) fn length_of(file: &OutputFile, part: usize) -> Result<Vec<Committable>, SinkError> {
    Ok(file.length()?.map(|bytes| lengths::committable(part, bytes)).into_iter().collect())
}
