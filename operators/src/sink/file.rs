//! What sinks share that write rows into place: one file or a directory of parts, and a buffer before it.
//!
//! All of this goes through the [`Disk`], so that a simulated disk that crashes can stand in for the real one.

use std::{
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use tidemill_engine::{
    model::{
        checkpoint::Committable,
        sink::{CommitContext, Committer},
        source::{BoxError, SubtaskContext},
    },
    platform::files::FileError,
};
use tidemill_storage::snapshot::disk::{Disk, StreamFile};

use super::{
    error::SinkError,
    failed,
    length_committer::LengthCommitter,
    lengths::{Extent, Lengths},
};

/// Bytes that are gathered before they are written.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// Where a sink writes rows as they come. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct InPlace {
    target: Target,
    /// Number of the sink's subtasks; 0 before they are known.
    subtasks: usize,
    lengths: Lengths,
}

impl InPlace {
    pub(super) fn new(target: Target) -> Self {
        Self { target, subtasks: 0, lengths: Lengths::default() }
    }

    /// Notes how many subtasks write there.
    pub(super) fn prepare(&mut self, parallelism: usize) -> Result<(), SinkError> {
        self.subtasks = parallelism;
        match &self.target {
            Target::File(path) if parallelism > 1 => {
                Err(SinkError::OneFileManyWriters { path: path.clone(), parallelism })
            }
            Target::File(_) | Target::Directory { .. } => Ok(()),
        }
    }

    /// Looks whether the place can be written, and says what makes sure of it.
    pub(super) fn committer(&self, context: &CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> {
        self.target.make(&*context.disk)?;
        let committer =
            LengthCommitter::new(self.target.clone(), self.subtasks, self.lengths.clone(), context);
        Ok(Some(Box::new(committer)))
    }

    /// Opens the file of a subtask, which has what the committer has left of it.
    pub(super) fn open(&self, context: &SubtaskContext) -> Result<PartFile, SinkError> {
        let SubtaskContext { subtask: part, parallelism, ref disk, .. } = *context;
        let path = self.target.path(part);
        let stream = disk.append(&path).map_err(failed(&path))?;
        let is_regular = disk.length(&path).map_err(failed(&path))?.is_some();
        let extent = is_regular.then(|| self.lengths.extent(part));
        // Somebody has to name the parts that no subtask writes any more.
        let others = if part == 0 { self.lengths.of_others(parallelism, &self.target) } else { Vec::new() };
        Ok(PartFile { stream, path, part, extent, others, lengths: self.lengths.clone() })
    }
}

/// One file, or a directory of parts.
#[derive(Clone, Debug)]
pub(super) enum Target {
    File(PathBuf),
    Directory { directory: PathBuf, extension: &'static str },
}

impl Target {
    /// Makes the directory, if it is one, and looks whether a file can be written there. None is made: whether there is one tells what happened
    /// to it.
    fn make(&self, disk: &dyn Disk) -> Result<(), SinkError> {
        if let Self::Directory { directory, .. } = self {
            disk.make_directory(directory).map_err(|cause| match cause.kind() {
                ErrorKind::AlreadyExists => {
                    FileError::OutputNotDirectory { path: directory.as_path().into() }.into()
                }
                _ => failed(directory)(cause),
            })?;
            let above = directory_of(directory);
            match disk.sync_directory(above) {
                // One that this user may pass through and not look into was not changed by it.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                synced => synced.map_err(failed(above))?,
            }
        }
        let path = self.path(0);
        match disk.length(&path) {
            Ok(Some(_)) => disk.append(&path).map(drop).map_err(failed(&path)),
            // To open a pipe may take long, and to close it ends it for its reader.
            Ok(None) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let probe = hidden_beside(&path, "probe");
                disk.write_whole(&probe, b"").and_then(|()| disk.remove(&probe)).map_err(failed(&path))
            }
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// The subtasks that have a file, or have had one when there were more of them, in rising order.
    pub(super) fn parts(&self, disk: &dyn Disk) -> Result<Vec<usize>, SinkError> {
        let Self::Directory { directory, extension } = self else { return Ok(vec![0]) };
        let number = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            name.strip_prefix("part-")?.strip_suffix(extension)?.strip_suffix('.')?.parse().ok()
        };
        let paths = disk.list(directory).map_err(failed(directory))?;
        let mut parts: Vec<usize> = paths.into_iter().filter_map(number).collect();
        parts.sort_unstable();
        Ok(parts)
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    /// Where files that were begun are marked as such.
    pub(super) fn mark(&self) -> PathBuf {
        match self {
            Self::File(path) => hidden_beside(path, "tidemill-begun"),
            Self::Directory { directory, extension } => {
                directory.join(format!(".tidemill-begun.{extension}"))
            }
        }
    }

    /// The file of a subtask.
    pub(super) fn path(&self, subtask: usize) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Directory { directory, extension } => directory.join(format!("part-{subtask}.{extension}")),
        }
    }
}

/// A hidden file beside another one.
fn hidden_beside(path: &Path, what: &str) -> PathBuf {
    path.with_file_name(format!(".{}.{what}", path.file_name().unwrap_or_default().display()))
}

/// The directory that a file is in; empty for the working directory.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The file of one subtask, unbuffered: write large pieces.
pub(super) struct PartFile {
    stream: Box<dyn StreamFile>,
    path: PathBuf,
    part: usize,
    /// What it has; `None` of a pipe or device.
    extent: Option<Extent>,
    /// What a checkpoint keeps of the parts that nobody writes.
    others: Vec<Committable>,
    lengths: Lengths,
}

impl PartFile {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has nothing, as far as is known.
    pub(super) fn is_empty(&self) -> bool {
        self.extent.as_ref().is_none_or(Extent::is_empty)
    }

    /// What a checkpoint keeps, of all that has been written; nothing of a pipe or device.
    ///
    /// # Errors
    /// When the file could not be made durable for an earlier checkpoint: what it holds is unknown then, and it is not enough to try again. The job
    /// goes on from the last checkpoint that is complete, with the file cut, and what followed written anew.
    pub(super) fn pre_commit(&self) -> Result<Vec<Committable>, SinkError> {
        self.lengths.check(self.part, &self.path)?;
        let own = self.extent.as_ref().map(|extent| extent.committable(self.part, &self.path));
        Ok(own.into_iter().chain(self.others.iter().cloned()).collect())
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)?;
        if let Some(extent) = &mut self.extent {
            extent.extend(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file and what is not written to it yet.
pub(super) struct BufferedFile {
    file: PartFile,
    /// Whole records.
    pub(super) buffer: Vec<u8>,
}

impl BufferedFile {
    pub(super) fn new(file: PartFile) -> Self {
        Self { file, buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

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
            self.file.write_all(&self.buffer).map_err(failed(&self.file.path))?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Writes the buffer, and says what a checkpoint keeps of the file.
    pub(super) fn pre_commit(&mut self) -> Result<Vec<Committable>, SinkError> {
        self.flush()?;
        self.file.pre_commit()
    }
}
