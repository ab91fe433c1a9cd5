//! Newline-delimited JSON to files.

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
    file::{BufferedFile, InPlace, Target},
};

/// Writes records as JSON, one per line.
///
/// In a fresh start the file is emptied. A job that goes on from a checkpoint, or begins with a savepoint, writes on where the file was then, and
/// cuts off what came behind it, the last row of which may be torn: a file has each row once, and who reads it while the job runs may see rows since
/// the last checkpoint a second time. What is before a complete checkpoint is durable. A file that is not what the checkpoint knows is refused
/// ([`SinkError::NotAsItWas`](super::SinkError::NotAsItWas)), but for one that is empty. A job without checkpoints that fails leaves what was
/// written until then. Where rows are to appear only for good there is [`FileSink`](super::FileSink).
///
/// ```
/// let sessions = tidemill_operators::sink::JsonLinesSink::directory("sessions");
/// # drop(sessions);
/// ```
#[derive(Clone, Debug)]
pub struct JsonLinesSink(InPlace);

impl JsonLinesSink {
    /// Writes one file, from one subtask.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(InPlace::new(Target::File(path.into())))
    }

    /// Writes `part-N.jsonl` for each subtask N into a directory, which is made when its parent exists.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self(InPlace::new(Target::Directory { directory: path.into(), extension: "jsonl" }))
    }
}

impl<T: Serialize + 'static> Sink<T> for JsonLinesSink {
    type Writer = JsonLinesWriter;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        Ok(self.0.prepare(parallelism)?)
    }

    fn open(&self, context: &SubtaskContext) -> Result<JsonLinesWriter, BoxError> {
        Ok(JsonLinesWriter(BufferedFile::new(self.0.open(context)?)))
    }

    fn committer(&self, context: &CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> {
        self.0.committer(context)
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

    fn pre_commit(&mut self, _checkpoint: CheckpointId) -> Result<Vec<Committable>, BoxError> {
        Ok(self.0.pre_commit()?)
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        Ok(self.0.flush()?)
    }
}
