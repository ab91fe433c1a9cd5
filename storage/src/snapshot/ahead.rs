//! Reading ahead: the pages of extents, a step of some MiB at a time, in order, on threads of their own.
//!
//! ```text
//!  lane 0   read step 0 │ check │ read step 2 │ check │ …
//!  lane 1     read step 1 │ check │ read step 3 │ check │ …
//!  loader          step 0      │ step 1       │ step 2     …
//! ```
//!
//! Two *lanes* take turns, so that the disk has something to read while checksums are computed, and the loader gets pages
//! that are checked, in the core's order of things: one step after the other. What is read and not yet taken is a few steps
//! long, and buffers go back and forth. Where there is little to read, or no thread can be had, the loader reads for itself.

use std::{
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use super::{
    buffer::PageBuffer,
    disk::{Disk, OldFile, reads::Reader},
    format::{PAGE_BYTES, segment::DATA_AT},
    segment::Segment,
};
use crate::state::StateError;

/// Threads that read.
const LANES: usize = 2;
/// Steps that a lane has read and nobody has taken.
const WAITING_MAX: usize = 1;
/// Fewer steps are read by who needs them.
const STEPS_MIN: usize = 4;
/// From this much on, a segment is read past the page cache, where what was written to it never was.
const DIRECT_BYTES: u64 = 1 << 20;

/// Pages of one segment that are read at once.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) segment: Arc<Segment>,
    pub(super) pages: Range<u64>,
    /// How many extents begin in it.
    pub(super) extents: usize,
}

impl Step {
    /// Where in the file its pages begin.
    pub(super) fn start(&self) -> u64 {
        DATA_AT + self.pages.start * PAGE_BYTES as u64
    }
}

/// Reads steps one after another.
struct Lane {
    disk: Arc<dyn Disk>,
    reader: Reader,
    /// The segment that was read last, and its file.
    file: Option<(Arc<Segment>, Box<dyn OldFile>)>,
}

impl Lane {
    fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, reader: Reader::default(), file: None }
    }

    fn read(&mut self, step: &Step, into: &mut PageBuffer) -> Result<(), StateError> {
        let Step { segment, pages, .. } = step;
        let file = match self.file.take() {
            Some((open, file)) if Arc::ptr_eq(&open, segment) => file,
            _ => segment.file(&*self.disk, segment.footer.length > DIRECT_BYTES)?,
        };
        segment.read_pages(&mut self.reader, &*file, pages.clone(), into)?;
        self.file = Some((Arc::clone(segment), file));
        Ok(())
    }
}

/// The loader's end of a lane on a thread of its own, which ends when this is dropped.
struct Thread {
    filled: Receiver<Result<PageBuffer, StateError>>,
    emptied: SyncSender<PageBuffer>,
}

impl Thread {
    /// Starts a thread that reads these steps; `None` if there is none to be had.
    fn start(disk: Arc<dyn Disk>, steps: Vec<Step>) -> Option<Self> {
        let (outbox, filled) = sync_channel(WAITING_MAX);
        let (emptied, empty) = sync_channel::<PageBuffer>(WAITING_MAX + 2);
        let run = move || {
            let mut lane = Lane::new(disk);
            for step in &steps {
                let mut buffer = empty.try_recv().unwrap_or_default();
                let read = lane.read(step, &mut buffer).map(|()| buffer);
                let failed = read.is_err();
                if outbox.send(read).is_err() || failed {
                    return;
                }
            }
        };
        thread::Builder::new().name("state-reader".into()).spawn(run).ok()?;
        Some(Self { filled, emptied })
    }
}

/// Who reads.
enum By {
    Threads(Vec<Thread>),
    Loader(Box<Lane>),
}

/// Steps, and their pages as they are read.
pub(super) struct Ahead {
    steps: Vec<Step>,
    next: usize,
    by: By,
    buffer: PageBuffer,
}

impl Ahead {
    /// For these steps.
    pub(super) fn new(disk: Arc<dyn Disk>, steps: Vec<Step>) -> Self {
        let by = match threads(&disk, &steps) {
            Some(threads) => By::Threads(threads),
            None => By::Loader(Box::new(Lane::new(disk))),
        };
        Self { steps, next: 0, by, buffer: PageBuffer::default() }
    }

    /// Goes on to the next step; there must be one.
    ///
    /// # Errors
    /// When a page is damaged, and of the disk.
    pub(super) fn advance(&mut self) -> Result<&Step, StateError> {
        let (at, step) = (self.next, &self.steps[self.next]);
        self.next += 1;
        match &mut self.by {
            By::Loader(lane) => lane.read(step, &mut self.buffer)?,
            By::Threads(threads) => {
                let thread = &threads[at % LANES];
                let lane = &self.steps[at].segment;
                let filled = thread.filled.recv().map_err(|_| {
                    super::disk::failed("read", &lane.path)(std::io::Error::other(
                        "the thread that reads ahead has ended; see its panic message",
                    ))
                })??;
                let emptied = std::mem::replace(&mut self.buffer, filled);
                // To the lane that the next step comes from, if it still has something to read.
                let _ = threads[at % LANES].emptied.try_send(emptied);
            }
        }
        Ok(step)
    }

    /// The pages of the step that was gone on to last.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.bytes()
    }
}

fn threads(disk: &Arc<dyn Disk>, steps: &[Step]) -> Option<Vec<Thread>> {
    if steps.len() < STEPS_MIN {
        return None;
    }
    let of_lane = |lane| steps.iter().skip(lane).step_by(LANES).cloned().collect();
    (0..LANES).map(|lane| Thread::start(Arc::clone(disk), of_lane(lane))).collect()
}
