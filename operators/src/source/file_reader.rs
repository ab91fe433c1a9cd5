//! Reads the splits of one subtask, one after another, whatever the format of their records.

use std::sync::Arc;

use tidemill_engine::{
    model::source::{BoxError, Output, Polled, Reader, SubtaskContext},
    platform::{
        Nanos,
        files::{Chunk, FileAccess, FileLines, Framing, Limits, Next, Piece, line_number},
    },
};

use super::{
    bad_record::BadRecords,
    error::{Place, SourceError},
    file_plan::{FilePlan, FileSplit, InputFile},
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
    /// Where each split stands.
    splits: Vec<FileSplit>,
    /// The file of each split.
    file_of: Vec<usize>,
    /// The split of the last chunk.
    split: Option<usize>,
    chunk: Option<Chunk>,
    cursor: Cursor,
    decoder: LineDecoder<D>,
}

impl<D: Decode> FileReader<D> {
    /// Reads these splits, each from where it stands.
    pub(super) fn open(
        plan: &FilePlan,
        context: &SubtaskContext,
        splits: Vec<FileSplit>,
        framing: Framing,
        line_bytes_max: usize,
        on_error: &BadRecords,
        decoder: D,
    ) -> Result<Self, SourceError> {
        let files = &plan.files;
        let file_of = splits.iter().map(|split| split.file(files)).collect::<Result<Vec<_>, _>>()?;
        let spans = splits.iter().zip(&file_of).map(|(split, file)| split.span(&files[*file]));
        let spans = spans.collect::<Result<_, _>>()?;
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
            file_of,
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
            self.cursor.lines = self.splits[chunk.span].lines;
            self.decoder.decoder.begin_origin(self.file_of[chunk.span]);
        }
        let bytes = chunk.text.as_bytes();
        output.bytes_read(bytes.len() as u64);
        self.decoder.decoder.begin_chunk(bytes);
        self.cursor.at = 0;
        self.chunk = Some(chunk);
    }

    /// Notes where the split stands. A line above the bound, which comes in pieces, is behind it only as a whole.
    fn note(&mut self, chunk: &Chunk) {
        if matches!(chunk.piece, Piece::Oversize { last: false, .. }) {
            return;
        }
        let split = &mut self.splits[chunk.span];
        split.start = chunk.offset + self.cursor.at as u64;
        split.at_line_start = true;
        split.lines = self.cursor.lines;
    }

    /// Decodes the present chunk.
    fn decode(&mut self, chunk: &Chunk, output: &mut impl Output<D::Item>) -> Result<Progress, SourceError> {
        let file = &self.files[self.file_of[chunk.span]];
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
    type Split = FileSplit;

    fn position(&self, split: usize) -> FileSplit {
        self.splits[split].clone()
    }

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
                self.note(&chunk);
                // What a checkpoint has passed must not be waiting here.
                self.decoder.bad.flush()?;
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
                Next::Pending => return Ok(Polled::Pending(None)),
                Next::End => return Ok(Polled::End),
            }
        }
    }
}
