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
//! A sink that promises its rows at least once does not wait for the checkpoint: a file is made durable and gets its name when it is
//! closed between two barriers, by a thread of its own, else when its barrier has passed. So no crash leaves half a file there
//! either, and a checkpoint is complete only when all its files have their names.
//!
//! All of this goes through the [`Disk`], so that a simulated disk that crashes can stand in for the real one.

mod committer;
mod publisher;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::Serialize;
use tidemill_engine::{
    model::{
        sink::{CommitContext, Committer, Sink},
        source::{BoxError, SubtaskContext},
    },
    platform::files::IoThreads,
};
use tidemill_storage::snapshot::disk::Disk;

pub use self::writer::FileSinkWriter;
use self::{
    committer::FileCommitter,
    publisher::{Place, Publisher, Shared},
};
use super::{DeliveryGuarantee, error::SinkError, failed};

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
/// gets its files at the end of its input, all at once. One directory is written by one job and sink at a time. Leave files where they are until
/// the next checkpoint: a job that goes on from this one looks for them. A job that begins from nothing where committed files of an earlier run
/// are is refused, as it would write their rows again: see [`append`](Self::append). With [`DeliveryGuarantee::AtLeastOnce`] files appear
/// earlier, may be taken away at once, and rows may come twice.
///
/// ```
/// use std::time::Duration;
/// use tidemill_operators::sink::{DeliveryGuarantee, FileSink};
///
/// let hours = FileSink::csv("hours").columns(["hour", "flights"]).roll_bytes(64 << 20);
/// let clicks = FileSink::json_lines("clicks").roll_after(Duration::from_secs(3600));
/// let soon = FileSink::json_lines("soon").delivery_guarantee(DeliveryGuarantee::AtLeastOnce);
/// # drop((hours, clicks, soon));
/// ```
#[derive(Clone, Debug)]
pub struct FileSink {
    directory: PathBuf,
    format: Format,
    roll_bytes: u64,
    roll_after: Option<Duration>,
    guarantee: DeliveryGuarantee,
    appends: bool,
    threads: Option<IoThreads>,
    shared: Arc<Shared>,
}

/// How rows are written.
#[derive(Clone, Debug)]
enum Format {
    Csv { header: bool, columns: Option<Vec<String>>, delimiter: u8 },
    JsonLines,
}

impl FileSink {
    /// Writes CSV files, each with a header of the field names, into a directory, which is made if it is missing. The one above it has to
    /// be there: a disk that is not mounted is not written past.
    pub fn csv(directory: impl Into<PathBuf>) -> Self {
        Self::to(directory.into(), Format::Csv { header: true, columns: None, delimiter: b',' })
    }

    /// Writes files of one JSON value per line into a directory, which is made as by [`csv`](Self::csv).
    pub fn json_lines(directory: impl Into<PathBuf>) -> Self {
        Self::to(directory.into(), Format::JsonLines)
    }

    fn to(directory: PathBuf, format: Format) -> Self {
        Self {
            directory,
            format,
            roll_bytes: ROLL_BYTES,
            roll_after: None,
            guarantee: DeliveryGuarantee::default(),
            appends: false,
            threads: None,
            shared: Arc::default(),
        }
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

    /// Whether every row is there exactly once (the default), or files appear without waiting for the checkpoint: whole as ever,
    /// when they are closed because they are large or old, and at the barrier of the checkpoint at the latest. After a failure
    /// rows since the last checkpoint are there a second time then, in other files.
    #[must_use]
    pub fn delivery_guarantee(mut self, guarantee: DeliveryGuarantee) -> Self {
        self.guarantee = guarantee;
        self
    }

    /// Has a job that begins from nothing add its files to those of earlier runs in the directory, which stay as they are: for a job that
    /// reads other input each time. Without it such a job is refused, as all that tells it from one whose checkpoints were lost is you. Files of a
    /// job that goes on from a checkpoint or savepoint are expected, and so they are of one that promises its rows
    /// [at least once](DeliveryGuarantee::AtLeastOnce).
    #[must_use]
    pub fn append(mut self) -> Self {
        self.appends = true;
        self
    }

    fn publisher(&self, disk: &Arc<dyn Disk>) -> Publisher {
        let (directory, hidden) = (self.directory.clone(), self.directory.join(HIDDEN));
        let place = Place { disk: Arc::clone(disk), directory, hidden };
        Publisher { place, shared: Arc::clone(&self.shared) }
    }
}

impl<T: Serialize + 'static> Sink<T> for FileSink {
    type Writer = FileSinkWriter;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        if self.guarantee == DeliveryGuarantee::AtLeastOnce {
            self.threads = Some(IoThreads::new().map_err(|cause| SinkError::Threads { cause })?);
        }
        Ok(())
    }

    fn open(&self, context: &SubtaskContext) -> Result<FileSinkWriter, BoxError> {
        let attempt = self.shared.attempt.load(Ordering::Acquire);
        assert!(attempt > 0, "a committer recovers before writers are opened");
        Ok(FileSinkWriter::new(self, attempt, context))
    }

    fn committer(&self, context: &CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> {
        let committer = FileCommitter::new(self.publisher(&context.disk), self.guarantee, self.appends)?;
        Ok(Some(Box::new(committer)))
    }
}

/// The last part of a path, if it is text.
fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(|name| name.to_str())
}
