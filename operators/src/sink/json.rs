//! Newline-delimited JSON to files.

use std::path::PathBuf;

use serde::Serialize;
use tidemill_engine::model::{
    sink::{Sink, SinkWriter},
    source::{BoxError, SubtaskContext},
    time::Timestamp,
};

use super::{
    error::SinkError,
    file::{BufferedFile, Target},
};

/// Writes records as JSON, one per line.
///
/// The file is emptied at the start and made durable at the end of the input. A job that fails leaves what
/// was written until then: a partial file, whose last line may be cut. A job that starts again from a checkpoint empties the
/// file, too, and writes what comes behind the checkpoint: for jobs with checkpoints there is [`FileSink`](super::FileSink),
/// whose rows are there exactly once.
///
/// ```
/// let sessions = tidemill_operators::sink::JsonLinesSink::directory("sessions");
/// # drop(sessions);
/// ```
#[derive(Clone, Debug)]
pub struct JsonLinesSink {
    target: Target,
}

impl JsonLinesSink {
    /// Writes one file, from one subtask.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { target: Target::File(path.into()) }
    }

    /// Writes `part-N.jsonl` for each subtask N into a directory, which is made when its parent exists.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self { target: Target::Directory { directory: path.into(), extension: "jsonl" } }
    }
}

impl<T: Serialize + 'static> Sink<T> for JsonLinesSink {
    type Writer = JsonLinesWriter;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        Ok(self.target.prepare(parallelism)?)
    }

    fn open(&self, context: &SubtaskContext) -> Result<JsonLinesWriter, BoxError> {
        Ok(JsonLinesWriter(self.target.open(context)?))
    }
}

/// Writes one subtask's file of a [`JsonLinesSink`].
pub struct JsonLinesWriter(BufferedFile);

impl<T: Serialize + 'static> SinkWriter<T> for JsonLinesWriter {
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        let begin = self.0.buffer.len();
        if let Err(error) = serde_json::to_writer(&mut self.0.buffer, &record) {
            self.0.buffer.truncate(begin);
            let reason = error.to_string();
            return Err(SinkError::Encode { path: self.0.path().into(), reason }.into());
        }
        self.0.buffer.push(b'\n');
        Ok(self.0.record_done()?)
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(self.0.flush()?)
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        Ok(self.0.finish()?)
    }
}
