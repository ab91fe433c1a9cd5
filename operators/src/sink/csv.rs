//! Comma-separated values to files.

use std::path::PathBuf;

use serde::Serialize;
use tidemill_engine::{
    model::{
        checkpoint::{CheckpointId, Committable},
        sink::{CommitContext, Committer, Sink, SinkWriter},
        source::{BoxError, SubtaskContext},
        time::Timestamp,
    },
    platform::files::{FileError, OutputFile},
};

use super::{
    error::SinkError,
    file::{BUFFER_BYTES, Target, length_of},
    lengths::{LengthCommitter, Lengths},
};

/// Writes records as CSV: a header of the field names, a row per record, null as the empty field.
///
/// In a fresh start the file is emptied. A job that goes on from a checkpoint writes on where the file was then, and cuts off what
/// came behind it, the last row of which may be torn: a file has each row once, and who reads it while the job runs may see rows since
/// the last checkpoint a second time. What is before a complete checkpoint is durable. A job without checkpoints that fails leaves what was
/// written until then. Where rows are to appear only for good there is [`FileSink`](super::FileSink).
///
/// The header comes with the first record unless [`columns`](Self::columns) names the columns, and once.
///
/// ```
/// use tidemill_operators::sink::CsvSink;
///
/// let hours = CsvSink::file("hours.csv").columns(["hour", "flights"]);
/// # drop(hours);
/// ```
#[derive(Clone, Debug)]
pub struct CsvSink {
    target: Target,
    header: bool,
    columns: Option<Vec<String>>,
    delimiter: u8,
    lengths: Lengths,
}

impl CsvSink {
    /// Writes one file, from one subtask.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::to(Target::File(path.into()))
    }

    /// Writes `part-N.csv` for each subtask N into a directory, which is made when its parent exists.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::to(Target::Directory { directory: path.into(), extension: "csv" })
    }

    fn to(target: Target) -> Self {
        Self { target, header: true, columns: None, delimiter: b',', lengths: Lengths::default() }
    }

    /// Whether each file begins with a header (the default).
    #[must_use]
    pub fn header(mut self, header: bool) -> Self {
        self.header = header;
        self
    }

    /// The names in the header, in the order of the record's fields, instead of the fields' names: for tuples,
    /// and to have a header even when there is no record.
    #[must_use]
    pub fn columns<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// The byte between fields; a comma by default.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }
}

impl<T: Serialize + 'static> Sink<T> for CsvSink {
    type Writer = CsvSinkWriter;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        Ok(self.target.prepare(parallelism)?)
    }

    fn open(&self, context: &SubtaskContext) -> Result<CsvSinkWriter, BoxError> {
        let file = self.target.open(context, &self.lengths)?;
        // One that goes on has its header.
        let has_header = self.header && file.length()?.is_none_or(|bytes| bytes == 0);
        let mut builder = csv::WriterBuilder::new();
        builder
            .buffer_capacity(BUFFER_BYTES)
            .delimiter(self.delimiter)
            .has_headers(has_header && self.columns.is_none());
        let path = file.path().into();
        let mut writer = CsvSinkWriter { path, part: context.subtask, rows: builder.from_writer(file) };
        if let (true, Some(columns)) = (has_header, &self.columns) {
            writer.rows.write_record(columns).map_err(|error| writer.failed(error))?;
        }
        Ok(writer)
    }

    fn committer(&self, _context: &CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> {
        Ok(Some(Box::new(LengthCommitter::new(self.target.clone(), self.lengths.clone()))))
    }
}

/// Writes one subtask's file of a [`CsvSink`].
pub struct CsvSinkWriter {
    path: PathBuf,
    part: usize,
    rows: csv::Writer<OutputFile>,
}

impl CsvSinkWriter {
    #[cold]
    fn failed(&self, error: csv::Error) -> SinkError {
        let reason = error.to_string();
        match error.into_kind() {
            csv::ErrorKind::Io(cause) => FileError::write(&self.path, cause).into(),
            _ => SinkError::Encode { path: self.path.clone(), reason },
        }
    }

    /// Hands all rows to the file.
    fn flush_rows(&mut self) -> Result<(), SinkError> {
        self.rows.flush().map_err(|cause| FileError::write(&self.path, cause).into())
    }
}

impl<T: Serialize + 'static> SinkWriter<T> for CsvSinkWriter {
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        Ok(self.rows.serialize(record).map_err(|error| self.failed(error))?)
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(self.flush_rows()?)
    }

    fn pre_commit(&mut self, _checkpoint: CheckpointId) -> Result<Vec<Committable>, BoxError> {
        self.flush_rows()?;
        Ok(length_of(self.rows.get_ref(), self.part)?)
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        self.flush_rows()?;
        Ok(self.rows.get_ref().sync()?)
    }
}
