//! Reads the splits of one subtask, one after another, whatever the format of their records.

use std::sync::Arc;

use tidemill_engine::{
    model::source::{BoxError, Output, Polled, Reader, SubtaskContext},
    platform::{
        Nanos,
        files::{Chunk, FileAccess, FileLines, Framing, Limits, Next, line_number},
    },
};

use super::{
    bad_record::BadRecords,
    error::{Place, SourceError},
    file_plan::{FilePlan, InputFile, Split},
    lines::{Cursor, Decode, LineDecoder, Progress},
};

/// Bytes per chunk: [`CHUNKS_MAX`](tidemill_engine::platform::files::CHUNKS_MAX) of them per subtask.
const CHUNK_BYTES: usize = 256 << 10;

/// The longest line by default, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;

/// Reads one subtask's splits with decoder `D`.
pub(super) struct FileReader<D> {
    lines: FileLines,
    files: Arc<[InputFile]>,
    splits: Vec<Split>,
    /// The split of the last chunk.
    split: Option<usize>,
    chunk: Option<Chunk>,
    cursor: Cursor,
    decoder: LineDecoder<D>,
}

impl<D: Decode> FileReader<D> {
    /// Begins with the share of one subtask.
    pub(super) fn open(
        plan: &FilePlan,
        context: &SubtaskContext,
        framing: Framing,
        line_bytes_max: usize,
        on_error: &BadRecords,
        decoder: D,
    ) -> Result<Self, SourceError> {
        let splits = plan.shares[context.subtask].clone();
        let spans = splits.iter().map(|split| split.span(&plan.files)).collect();
        let access = if context.inline_io {
            FileAccess::Inline
        } else {
            FileAccess::Threaded(plan.threads.clone(), context.waker.clone())
        };
        let limits = Limits { chunk_bytes: CHUNK_BYTES, line_bytes_max, eager: false };
        let name = format!("tidemill-in-{}", context.subtask);
        Ok(Self {
            lines: FileLines::open(spans, framing, limits, access, &name),
            files: plan.files.clone(),
            splits,
            split: None,
            chunk: None,
            cursor: Cursor { at: 0, lines: 0 },
            decoder: LineDecoder { decoder, bad: on_error.open()?, framing, line_bytes_max },
        })
    }

    /// Takes the next chunk up.
    fn begin(&mut self, chunk: Chunk, output: &mut impl Output<D::Item>) {
        if self.split != Some(chunk.span) {
            self.split = Some(chunk.span);
            self.cursor.lines = 0;
            self.decoder.decoder.begin_origin(self.splits[chunk.span].file);
        }
        let bytes = chunk.text.as_bytes();
        output.bytes_read(bytes.len() as u64);
        self.decoder.decoder.begin_chunk(bytes);
        self.cursor.at = 0;
        self.chunk = Some(chunk);
    }

    /// Decodes the present chunk.
    fn decode(&mut self, chunk: &Chunk, output: &mut impl Output<D::Item>) -> Result<Progress, SourceError> {
        let file = &self.files[self.splits[chunk.span].file];
        let place = |offset, lines| Place {
            origin: file.info.path.display().to_string(),
            offset,
            line: if file.info.gzip {
                Some(file.header_lines + lines + 1)
            } else {
                line_number(&file.info.path, offset)
            },
        };
        self.decoder.run(chunk, &mut self.cursor, chunk.span, &place, output)
    }
}

impl<D: Decode> Reader for FileReader<D> {
    type Item = D::Item;
    type Split = ();

    fn position(&self, _split: usize) {}

    fn splits(&self) -> usize {
        self.splits.len()
    }

    fn reads_in_turn(&self) -> bool {
        true
    }

    fn poll<O: Output<D::Item>>(&mut self, output: &mut O, _now: Nanos) -> Result<Polled, BoxError> {
        loop {
            if let Some(chunk) = self.chunk.take() {
                let progress = self.decode(&chunk, output)?;
                match progress {
                    Progress::Yield => self.chunk = Some(chunk),
                    Progress::Drained => self.lines.recycle(chunk),
                }
                // A chunk whose records are all bad must not keep the core either.
                return Ok(Polled::More);
            }
            match self.lines.poll().map_err(SourceError::from)? {
                Next::Chunk(chunk) => self.begin(chunk, output),
                Next::SpanEnd(split) => output.finish_split(split),
                Next::Pending => {
                    self.decoder.bad.flush()?;
                    return Ok(Polled::Pending(None));
                }
                Next::End => {
                    self.decoder.bad.flush()?;
                    return Ok(Polled::End);
                }
            }
        }
    }
}
