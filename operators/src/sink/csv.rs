//! Comma-separated values to files.

use std::path::PathBuf;

use serde::Serialize;
use tidemill_engine::{
    model::{
        sink::{Sink, SinkWriter},
        source::{BoxError, SubtaskContext},
        time::Timestamp,
    },
    platform::files::{FileError, OutputFile},
};

use super::{
    error::SinkError,
    file::{BUFFER_BYTES, Target},
};

/// Writes records as CSV: a header of the field names, a row per record, null as the empty field.
///
/// The file is emptied at the start and made durable at the end of the input. A job that fails leaves what
/// was written until then: a partial file, whose last row may be cut. A job that starts again from a checkpoint empties the
/// file, too, and writes what comes behind the checkpoint: for jobs with checkpoints there is [`FileSink`](super::FileSink),
/// whose rows are there exactly once. The header comes with the first record
/// unless [`columns`](Self::columns) names the columns.
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
        Self { target, header: true, columns: None, delimiter: b',' }
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
        let file = self.target.create(context)?;
        let mut builder = csv::WriterBuilder::new();
        builder
            .buffer_capacity(BUFFER_BYTES)
            .delimiter(self.delimiter)
            .has_headers(self.header && self.columns.is_none());
        let path = file.path().into();
        let mut writer = CsvSinkWriter { path, rows: builder.from_writer(file) };
        if let (true, Some(columns)) = (self.header, &self.columns) {
            writer.rows.write_record(columns).map_err(|error| writer.failed(error))?;
        }
        Ok(writer)
    }
}

/// Writes one subtask's file of a [`CsvSink`].
pub struct CsvSinkWriter {
    path: PathBuf,
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

    fn finish(&mut self) -> Result<(), BoxError> {
        self.flush_rows()?;
        Ok(self.rows.get_ref().sync()?)
    }
}
