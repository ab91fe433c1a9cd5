//! Writes the files of one subtask, and names those that are closed.

use std::{cell::RefCell, io, path::PathBuf, rc::Rc, sync::Arc};

use serde::Serialize;
use tidemill_engine::{
    model::{
        checkpoint::{CheckpointId, Committable},
        sink::SinkWriter,
        source::{BoxError, SubtaskContext},
        time::Timestamp,
    },
    platform::{Clock, Nanos, files::IoThreads},
};
use tidemill_storage::snapshot::disk::StreamFile;

use super::{
    FileSink, Format, failed,
    publisher::{PendingFile, Publisher},
};
use crate::sink::{DeliveryGuarantee, error::SinkError, file::BUFFER_BYTES};

/// Bytes that wait in the formatter of CSV rows.
const ROW_BUFFER_BYTES: usize = 8 << 10;

/// Writes the rows of one subtask of a [`FileSink`].
pub struct FileSinkWriter {
    publisher: Publisher,
    /// Gives files their names when they are closed, if that is not to wait for the checkpoint.
    early: Option<Early>,
    format: Format,
    clock: Arc<dyn Clock>,
    /// What the names of this writer's files begin with.
    prefix: String,
    /// Number of the next file.
    next: u64,
    roll_bytes: u64,
    roll_after: Option<Nanos>,
    /// Rows on their way to the file.
    buffer: Buffer,
    /// Bytes that are gathered before they are written.
    buffer_bytes: usize,
    open: Option<OpenFile>,
    /// Closed, and not in a checkpoint.
    closed: Vec<Committable>,
}

/// Who makes a closed file durable and visible before its barrier comes: a thread of its own, or this one where there are none.
struct Early(Option<IoThreads>);

/// A file that is being written.
struct OpenFile {
    name: String,
    path: PathBuf,
    /// There is none before the first bytes are written.
    stream: Option<Box<dyn StreamFile>>,
    /// Formats rows into the buffer, if they are CSV.
    rows: Option<csv::Writer<Buffer>>,
    bytes: u64,
    since: Nanos,
}

/// Bytes in memory, which the formatter of rows and the writer share.
#[derive(Clone, Default)]
struct Buffer(Rc<RefCell<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileSinkWriter {
    pub(super) fn new(sink: &FileSink, attempt: u64, context: &SubtaskContext) -> Self {
        let roll_after = sink.roll_after.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        Self {
            publisher: sink.publisher(&context.disk),
            early: (sink.guarantee == DeliveryGuarantee::AtLeastOnce)
                .then(|| Early(sink.threads.clone().filter(|_| !context.inline_io))),
            format: sink.format.clone(),
            clock: Arc::clone(&context.clock),
            prefix: format!("part-{attempt}-{}", context.subtask),
            next: 0,
            roll_bytes: sink.roll_bytes,
            roll_after,
            buffer: Buffer::default(),
            buffer_bytes: usize::try_from(sink.roll_bytes)
                .map_or(BUFFER_BYTES, |most| most.min(BUFFER_BYTES)),
            open: None,
            closed: Vec::new(),
        }
    }

    /// Begins a file: its name, and its header.
    fn begin(&mut self) -> Result<OpenFile, SinkError> {
        let extension = match self.format {
            Format::Csv { .. } => "csv",
            Format::JsonLines => "jsonl",
        };
        let name = format!("{}-{}.{extension}", self.prefix, self.next);
        self.next += 1;
        let path = self.publisher.place.in_progress(&name);
        let rows = match &self.format {
            Format::Csv { header, columns, delimiter } => {
                let mut builder = csv::WriterBuilder::new();
                // What waits there is not counted, so where files are small it is little.
                builder.buffer_capacity(self.buffer_bytes.min(ROW_BUFFER_BYTES));
                builder.delimiter(*delimiter).has_headers(*header && columns.is_none());
                let mut rows = builder.from_writer(self.buffer.clone());
                if let (true, Some(columns)) = (header, columns) {
                    rows.write_record(columns).map_err(|error| not_encoded(&path, &error))?;
                }
                Some(rows)
            }
            Format::JsonLines => None,
        };
        Ok(OpenFile { name, path, stream: None, rows, bytes: 0, since: self.clock.now() })
    }

    /// Hands the buffer to the file, which is made now if it is not there.
    fn spill(&mut self) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut bytes = self.buffer.0.borrow_mut();
        if bytes.is_empty() {
            return Ok(());
        }
        let stream = match &mut open.stream {
            Some(stream) => stream,
            none => {
                none.insert(self.publisher.place.disk.create_stream(&open.path).map_err(failed(&open.path))?)
            }
        };
        stream.write(&bytes).map_err(failed(&open.path))?;
        open.bytes += bytes.len() as u64;
        bytes.clear();
        Ok(())
    }

    /// Closes the file, if there is one, and returns it.
    fn close(&mut self) -> Result<Option<PendingFile>, SinkError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        if let Some(rows) = &mut open.rows {
            rows.flush().map_err(failed(&open.path))?;
        }
        self.spill()?;
        let early = self.early.is_some();
        let closed = self.open.take().map(|OpenFile { name, bytes, .. }| PendingFile { name, bytes, early });
        self.closed.extend(closed.as_ref().map(PendingFile::to_committable));
        Ok(closed)
    }

    /// Has a closed file published, if that is to be now. What fails is told when the checkpoint makes sure of the file.
    fn publish(&self, file: PendingFile) {
        let Some(Early(threads)) = &self.early else { return };
        let publisher = self.publisher.clone();
        let publish = move || drop(publisher.publish(&[file]));
        match threads {
            Some(threads) => threads.spawn("tidemill-out".into(), publish),
            None => publish(),
        }
    }

    /// Writes what is buffered, and closes the file if it is large or old.
    #[cold]
    fn tend(&mut self) -> Result<(), SinkError> {
        self.spill()?;
        let Some(open) = &self.open else { return Ok(()) };
        let age = self.clock.now().saturating_sub(open.since);
        if open.bytes >= self.roll_bytes || self.roll_after.is_some_and(|most| age >= most) {
            let closed = self.close()?;
            closed.into_iter().for_each(|file| self.publish(file));
        }
        Ok(())
    }
}

#[cold]
fn not_encoded(path: &std::path::Path, error: &dyn std::error::Error) -> SinkError {
    SinkError::Encode { path: path.to_owned(), reason: error.to_string() }
}

impl<T: Serialize + 'static> SinkWriter<T> for FileSinkWriter {
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let begun = self.begin()?;
                self.open.insert(begun)
            }
        };
        if let Some(rows) = &mut open.rows {
            rows.serialize(record).map_err(|error| not_encoded(&open.path, &error))?;
        } else {
            let mut buffer = self.buffer.0.borrow_mut();
            serde_json::to_writer(&mut *buffer, &record).map_err(|error| not_encoded(&open.path, &error))?;
            buffer.push(b'\n');
        }
        if self.buffer.0.borrow().len() >= self.buffer_bytes {
            self.tend()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        // Nobody sees it before it is closed; a file may have grown old.
        Ok(self.tend()?)
    }

    fn pre_commit(&mut self, _checkpoint: CheckpointId) -> Result<Vec<Committable>, BoxError> {
        self.close()?;
        Ok(std::mem::take(&mut self.closed))
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        debug_assert!(
            self.open.is_none() && self.closed.is_empty(),
            "no record comes behind the last barrier"
        );
        Ok(())
    }
}
