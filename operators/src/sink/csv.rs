//! Comma-separated values to files.

use std::path::PathBuf;

use serde::Serialize;
use tidemill_engine::model::{
    checkpoint::{CheckpointId, Committable},
    sink::{CommitContext, Committer, Sink, SinkWriter},
    source::{BoxError, SubtaskContext},
    time::Timestamp,
};

use super::{
    error::SinkError,
    failed,
    file::{BUFFER_BYTES, InPlace, PartFile, Target},
};

/// Writes records as CSV: a header of the field names, a row per record, null as the empty field.
///
/// In a fresh start the file is emptied. A job that goes on from a checkpoint, or begins with a savepoint, writes on where the file was then, and
/// cuts off what came behind it, the last row of which may be torn: a file has each row once, and who reads it while the job runs may see rows since
/// the last checkpoint a second time. What is before a complete checkpoint is durable. A file that is not what the checkpoint knows is refused
/// ([`SinkError::NotAsItWas`](super::SinkError::NotAsItWas)), but for one that is empty. A job without checkpoints that fails leaves what was
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
    place: InPlace,
    header: bool,
    columns: Option<Vec<String>>,
    delimiter: u8,
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
        Self { place: InPlace::new(target), header: true, columns: None, delimiter: b',' }
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
        Ok(self.place.prepare(parallelism)?)
    }

    fn open(&self, context: &SubtaskContext) -> Result<CsvSinkWriter, BoxError> {
        let file = self.place.open(context)?;
        // One that goes on has its header.
        let has_header = self.header && file.is_empty();
        let mut builder = csv::WriterBuilder::new();
        builder
            .buffer_capacity(BUFFER_BYTES)
            .delimiter(self.delimiter)
            .has_headers(has_header && self.columns.is_none());
        let mut writer = CsvSinkWriter { rows: builder.from_writer(file) };
        if let (true, Some(columns)) = (has_header, &self.columns) {
            writer.rows.write_record(columns).map_err(|error| writer.not_written(error))?;
        }
        Ok(writer)
    }

    fn committer(&self, context: &CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> {
        self.place.committer(context)
    }
}

/// Writes one subtask's file of a [`CsvSink`].
pub struct CsvSinkWriter {
    rows: csv::Writer<PartFile>,
}

impl CsvSinkWriter {
    #[cold]
    fn not_written(&self, error: csv::Error) -> SinkError {
        let (path, reason) = (self.rows.get_ref().path(), error.to_string());
        match error.into_kind() {
            csv::ErrorKind::Io(cause) => failed(path)(cause),
            _ => SinkError::Encode { path: path.into(), reason },
        }
    }

    /// Hands all rows to the file.
    fn flush_rows(&mut self) -> Result<(), SinkError> {
        let flushed = self.rows.flush();
        flushed.map_err(failed(self.rows.get_ref().path()))
    }
}

impl<T: Serialize + 'static> SinkWriter<T> for CsvSinkWriter {
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        Ok(self.rows.serialize(record).map_err(|error| self.not_written(error))?)
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(self.flush_rows()?)
    }

    fn pre_commit(&mut self, _checkpoint: CheckpointId) -> Result<Vec<Committable>, BoxError> {
        self.flush_rows()?;
        Ok(self.rows.get_ref().pre_commit()?)
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        Ok(self.flush_rows()?)
    }
}
