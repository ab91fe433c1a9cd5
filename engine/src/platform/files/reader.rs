//! Hands the lines of some spans to a worker: read ahead by an I/O thread, or inside the call.

use std::{
    path::Path,
    sync::{Arc, mpsc},
};

use super::{Chunk, FileError, FileSpan, Framing, Input, IoThreads, Limits, LineCutter, open_span};
use crate::platform::Wake;

/// Chunks that exist per reader: being filled, waiting, and being decoded.
pub const CHUNKS_MAX: usize = 4;

/// Where blocking reads happen.
#[derive(Clone)]
pub enum FileAccess {
    /// On an I/O thread of the given helper; it wakes the worker when there is something to take.
    Threaded(IoThreads, Arc<dyn Wake>),
    /// Inside [`FileLines::poll`].
    Inline,
}

/// What [`FileLines::poll`] has.
#[derive(Debug)]
pub enum Next {
    /// Some lines.
    Chunk(Chunk),
    /// The span of this index is read to its end.
    SpanEnd(usize),
    /// Nothing yet: the worker is woken when there is.
    Pending,
    /// All spans are read.
    End,
}

/// Reads the spans of one subtask, one after another. Dropping it ends its I/O thread, after the read that
/// the thread may be in.
pub struct FileLines {
    mode: Mode,
    path: Arc<Path>,
    ended: bool,
}

enum Mode {
    Threaded { filled: mpsc::Receiver<Result<Next, FileError>>, free: mpsc::Sender<Vec<u8>> },
    Inline { walk: Box<Walk>, spare: Vec<u8> },
}

impl FileLines {
    /// Begins to read `spans` in their order.
    pub fn open(
        spans: Vec<FileSpan>,
        framing: Framing,
        limits: Limits,
        access: FileAccess,
        name: &str,
    ) -> Self {
        let path = spans.first().map_or_else(|| Path::new("").into(), |span| span.path.clone());
        let ended = spans.is_empty();
        let walk = Walk { spans: spans.into_iter().enumerate().collect(), framing, limits, cutter: None };
        let mode = match access {
            FileAccess::Threaded(threads, waker) if !ended => {
                let (full, filled) = mpsc::channel();
                let (free, empty) = mpsc::channel();
                for _ in 0..CHUNKS_MAX {
                    // The receiver is alive: it is in this scope.
                    drop(free.send(Vec::new()));
                }
                threads.spawn(name.into(), move || read_ahead(walk, &empty, full, waker));
                Mode::Threaded { filled, free }
            }
            _ => Mode::Inline { walk: Box::new(walk), spare: Vec::new() },
        };
        Self { mode, path, ended }
    }

    /// What comes next. Never blocks in threaded mode.
    ///
    /// # Errors
    /// When a file cannot be opened or read; nothing follows.
    pub fn poll(&mut self) -> Result<Next, FileError> {
        if self.ended {
            return Ok(Next::End);
        }
        let next = match &mut self.mode {
            Mode::Threaded { filled, .. } => match filled.try_recv() {
                Ok(next) => next,
                Err(mpsc::TryRecvError::Empty) => Ok(Next::Pending),
                Err(mpsc::TryRecvError::Disconnected) => {
                    Err(FileError::ThreadLost { path: self.path.clone() })
                }
            },
            Mode::Inline { walk, spare } => walk.step(std::mem::take(spare)),
        };
        self.ended = matches!(next, Err(_) | Ok(Next::End));
        next
    }

    /// Gives a chunk's buffer back: the I/O thread waits when none is free.
    pub fn recycle(&mut self, chunk: Chunk) {
        let buffer = chunk.text.into_bytes();
        match &mut self.mode {
            // The thread is gone when it has read everything.
            Mode::Threaded { free, .. } => drop(free.send(buffer)),
            Mode::Inline { spare, .. } => *spare = buffer,
        }
    }
}

/// The body of the I/O thread.
fn read_ahead(
    mut walk: Walk,
    empty: &mpsc::Receiver<Vec<u8>>,
    full: mpsc::Sender<Result<Next, FileError>>,
    waker: Arc<dyn Wake>,
) {
    let mut buffer = None;
    loop {
        let Some(next) = buffer.take().or_else(|| empty.recv().ok()).map(|buffer| walk.step(buffer)) else {
            return;
        };
        let last = matches!(next, Err(_) | Ok(Next::End));
        // A span's end used no chunk up.
        if matches!(next, Ok(Next::SpanEnd(_))) {
            buffer = Some(Vec::new());
        }
        let sent = full.send(next).is_ok();
        waker.wake();
        if last || !sent {
            return;
        }
    }
}

/// Walks over spans.
struct Walk {
    spans: std::collections::VecDeque<(usize, FileSpan)>,
    framing: Framing,
    limits: Limits,
    cutter: Option<LineCutter<Input>>,
}

impl Walk {
    /// The next chunk, made in `buffer`, or the end of the present span.
    fn step(&mut self, buffer: Vec<u8>) -> Result<Next, FileError> {
        let Some((index, span)) = self.spans.front() else { return Ok(Next::End) };
        let index = *index;
        let cutter = match &mut self.cutter {
            Some(cutter) => cutter,
            vacant => vacant.insert(open_span(span, self.framing, self.limits)?),
        };
        match cutter.next(buffer) {
            Ok(Some(chunk)) => Ok(Next::Chunk(Chunk { span: index, ..chunk })),
            Ok(None) => {
                self.cutter = None;
                self.spans.pop_front();
                Ok(Next::SpanEnd(index))
            }
            Err(cause) => {
                let offset = cutter.offset();
                Err(FileError::read(&span.path, offset, cause))
            }
        }
    }
}
