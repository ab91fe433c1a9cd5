//! Files that appear when a checkpoint is complete: every row in one of them, exactly once.
//!
//! ```text
//!  directory/
//!    part-3-0-17.csv            attempt 3, subtask 0, its file 17: whole, and never changed again
//!    .tidemill/                 what readers are to pass over
//!      lock                     one job at a time
//!      attempt-3                the number of the last attempt: no name is ever given twice
//!      part-3-0-18.csv.inprogress
//! ```
//!
//! A file is written in `.tidemill`; at a barrier, and when it is large or old, it is closed and named in a committable. When
//! all tasks have passed the barrier it is made durable, the checkpoint is written, and the file gets its name in the directory:
//! first as a second name, which is made durable before the first one is removed, so that no crash in between loses it.
//!
//! All of this goes through the [`Disk`], so that a simulated disk that crashes can stand in for the real one.

mod committer;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tidemill_engine::model::{
    sink::{CommitContext, Committer, Sink},
    source::{BoxError, SubtaskContext},
};
use tidemill_storage::snapshot::disk::Disk;

use self::committer::FileCommitter;
pub use self::writer::FileSinkWriter;
use super::error::SinkError;

/// Name of the directory with what is not committed.
const HIDDEN: &str = ".tidemill";
/// What the name of a file that is not committed ends in.
const IN_PROGRESS: &str = ".inprogress";
/// The size at which a file is closed, by default.
const ROLL_BYTES: u64 = 128 << 20;

/// Writes rows to files in a directory, exactly once: a file appears there under its final name when the checkpoint that its
/// rows are in is complete, whole, and is never changed again. After a crash no row is missing and none is there twice.
///
/// Files are named `part-ATTEMPT-SUBTASK-NUMBER` with an ending; the three numbers mean nothing but that no name is given
/// twice. Each checkpoint ends the files that are open, so a short interval makes many small ones. A job without checkpoints
/// gets its files at the end of its input, all at once. What earlier runs have left in the directory stays; one directory is
/// written by one job and sink at a time. Leave files where they are until the next checkpoint: a job that goes on from this one
/// looks for them.
///
/// ```
/// use std::time::Duration;
/// use tidemill_operators::sink::FileSink;
///
/// let hours = FileSink::csv("hours").columns(["hour", "flights"]).roll_bytes(64 << 20);
/// let clicks = FileSink::json_lines("clicks").roll_after(Duration::from_secs(3600));
/// # drop((hours, clicks));
/// ```
#[derive(Clone, Debug)]
pub struct FileSink {
    directory: PathBuf,
    format: Format,
    roll_bytes: u64,
    roll_after: Option<Duration>,
    attempt: Arc<AtomicU64>,
}

/// How rows are written.
#[derive(Clone, Debug)]
enum Format {
    Csv { header: bool, columns: Option<Vec<String>>, delimiter: u8 },
    JsonLines,
}

impl FileSink {
    /// Writes CSV files, each with a header of the field names, into a directory, which is made if it is missing.
    pub fn csv(directory: impl Into<PathBuf>) -> Self {
        Self::to(directory.into(), Format::Csv { header: true, columns: None, delimiter: b',' })
    }

    /// Writes files of one JSON value per line into a directory, which is made if it is missing.
    pub fn json_lines(directory: impl Into<PathBuf>) -> Self {
        Self::to(directory.into(), Format::JsonLines)
    }

    fn to(directory: PathBuf, format: Format) -> Self {
        let attempt = Arc::new(AtomicU64::new(0));
        Self { directory, format, roll_bytes: ROLL_BYTES, roll_after: None, attempt }
    }

    /// Whether each CSV file begins with a header (the default). Means nothing for JSON.
    #[must_use]
    pub fn header(mut self, with_header: bool) -> Self {
        if let Format::Csv { header, .. } = &mut self.format {
            *header = with_header;
        }
        self
    }

    /// The names in the header of CSV files, in the order of the record's fields, instead of the fields' names: for tuples.
    /// Means nothing for JSON.
    #[must_use]
    pub fn columns<C: Into<String>>(mut self, names: impl IntoIterator<Item = C>) -> Self {
        if let Format::Csv { columns, .. } = &mut self.format {
            *columns = Some(names.into_iter().map(Into::into).collect());
        }
        self
    }

    /// The byte between the fields of CSV files; a comma by default. Means nothing for JSON.
    #[must_use]
    pub fn delimiter(mut self, byte: u8) -> Self {
        if let Format::Csv { delimiter, .. } = &mut self.format {
            *delimiter = byte;
        }
        self
    }

    /// The size in bytes at which a file is closed and another begun (128 MiB by default). A file is larger by what is
    /// buffered, 256 KiB at most.
    ///
    /// # Panics
    /// When it is 0.
    #[must_use]
    pub fn roll_bytes(mut self, bytes: u64) -> Self {
        assert!(bytes > 0, "a file has at least one byte");
        self.roll_bytes = bytes;
        self
    }

    /// The time after which a file is closed and another begun, between two checkpoints; without, only its size and the
    /// checkpoints close it.
    #[must_use]
    pub fn roll_after(mut self, time: Duration) -> Self {
        self.roll_after = Some(time);
        self
    }

    fn place(&self, disk: &Arc<dyn Disk>) -> Place {
        let (directory, hidden) = (self.directory.clone(), self.directory.join(HIDDEN));
        Place { disk: Arc::clone(disk), directory, hidden }
    }
}

impl<T: Serialize + 'static> Sink<T> for FileSink {
    type Writer = FileSinkWriter;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, context: &SubtaskContext) -> Result<FileSinkWriter, BoxError> {
        let attempt = self.attempt.load(Ordering::Acquire);
        assert!(attempt > 0, "a committer recovers before writers are opened");
        Ok(FileSinkWriter::new(self, attempt, context))
    }

    fn committer(&self, context: &CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> {
        let committer = FileCommitter::new(self.place(&context.disk), Arc::clone(&self.attempt))?;
        Ok(Some(Box::new(committer)))
    }
}

/// Where files are, before and after they are committed.
#[derive(Clone, Debug)]
struct Place {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    hidden: PathBuf,
}

impl Place {
    fn committed(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn in_progress(&self, name: &str) -> PathBuf {
        self.hidden.join(format!("{name}{IN_PROGRESS}"))
    }
}

/// The last part of a path, if it is text.
fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(|name| name.to_str())
}

/// The error of the disk at `path`.
fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> SinkError + use<'_> {
    move |cause| tidemill_engine::platform::files::FileError::write(path, cause).into()
}
