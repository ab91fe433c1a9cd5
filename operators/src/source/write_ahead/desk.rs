//! Where senders, the log and the reader meet.
//!
//! ```text
//!  senders ──▶ inbox: one open group ──▶ the log's thread: write, sync ──▶ outbox: chunks ──▶ reader
//!     ▲                                       │       ▲                        ▲
//!     └────────── acknowledged ───────────────┘       └── segments, for a reader that is behind
//! ```
//!
//! While one group is being written all that is sent meanwhile collects in the next: many senders share one sync, and a
//! single one waits for nobody. The thread also reads ahead for a reader that is not at the end, and trims. Where
//! there are no threads, under simulation, whoever wants something does all of that by itself.
//!
//! Everything is bounded: what waits to be written, what waits to be read, and the log on the disk.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tidemill_engine::platform::sockets::WakerSlot;
use tidemill_storage::wal::{Chunk, Cursor, Group, LogError, WriteAheadLog};

use super::{
    error::WriteAheadError,
    stats::WriteAheadStats,
    ticket::{Acknowledgement, Unsettled},
};

/// Bytes that wait for the reader, before it is read from the files.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of a log on the disk.
    pub(super) log_bytes: u64,
    /// Bytes that wait to be written.
    pub(super) pending_bytes: usize,
    /// Bytes of one send.
    pub(super) batch_bytes: usize,
}

/// What all ends of a write-ahead channel share.
pub(super) struct Desk {
    directory: Arc<Path>,
    number: u64,
    limits: Limits,
    /// Whether a thread serves the log.
    is_threaded: bool,
    inbox: Mutex<Inbox>,
    room: Condvar,
    outbox: Mutex<Outbox>,
    reader: WakerSlot,
    rung: Mutex<bool>,
    bell: Condvar,
    files: Mutex<Files>,
}

/// The senders' side.
struct Inbox {
    group: Group,
    outcome: Unsettled,
    log_bytes: u64,
    /// The mark of the end is to be written.
    closing: Option<Unsettled>,
    is_closed: bool,
    /// Nobody reads any more.
    job_ended: bool,
    /// Nobody sends, reads or waits any more.
    stops: bool,
    /// The log's thread has panicked.
    is_abandoned: bool,
    /// Asynchronous senders that wait for room.
    waiting: Vec<Waker>,
}

/// The reader's side.
struct Outbox {
    /// The oldest record that is kept.
    first: u64,
    /// The one behind the last that is durable.
    durable: u64,
    is_ended: bool,
    /// Raised with each reader: there is one at a time.
    epoch: u64,
    is_read: bool,
    /// The record behind the last that was put here.
    next: u64,
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// The mark of the end was put here.
    is_last: bool,
    failure: Option<Arc<LogError>>,
    /// The records before this one are needed no more.
    trim: Option<u64>,
}

/// The log's side.
struct Files {
    log: WriteAheadLog,
    /// Of the reader with this epoch.
    cursor: Option<(u64, Cursor)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Whether so many bytes may come in.
    fn check(&self, bytes: usize, limits: &Limits, directory: &Path) -> Result<(), WriteAheadError> {
        if self.is_abandoned {
            return Err(LogError::Abandoned { directory: directory.to_owned() }.into());
        }
        if self.is_closed || self.closing.is_some() {
            return Err(WriteAheadError::Closed);
        }
        if self.job_ended {
            return Err(WriteAheadError::JobEnded);
        }
        let pending = if self.group.is_empty() { 0 } else { self.group.bytes() };
        let has_room = pending == 0 || pending + bytes <= limits.pending_bytes;
        let fits = self.log_bytes + (pending + bytes) as u64 <= limits.log_bytes;
        if has_room && fits { Ok(()) } else { Err(WriteAheadError::Full) }
    }
}

impl Outbox {
    /// Whether something is to be read from the files for the reader.
    fn wants(&self) -> bool {
        let is_there = self.next < self.durable || self.is_ended;
        self.is_read && is_there && !self.is_last && self.failure.is_none() && self.bytes < READ_AHEAD_BYTES
    }

    fn put(&mut self, chunk: Chunk) {
        self.next = chunk.next() + chunk.remaining();
        self.bytes += chunk.bytes();
        self.is_last = chunk.is_end();
        self.chunks.push_back(chunk);
    }
}

impl Desk {
    pub(super) fn new(log: WriteAheadLog, limits: Limits, is_threaded: bool) -> Self {
        let directory: Arc<Path> = log.directory().into();
        let inbox = Inbox {
            group: Group::default(),
            outcome: Unsettled::new(Arc::clone(&directory)),
            log_bytes: log.bytes(),
            closing: None,
            is_closed: log.is_ended(),
            job_ended: false,
            stops: false,
            is_abandoned: false,
            waiting: Vec::new(),
        };
        let outbox = Outbox {
            first: log.first(),
            durable: log.next(),
            is_ended: log.is_ended(),
            epoch: 0,
            is_read: false,
            next: 0,
            chunks: VecDeque::new(),
            bytes: 0,
            is_last: false,
            failure: None,
            trim: None,
        };
        Self {
            directory,
            number: log.number(),
            limits,
            is_threaded,
            inbox: Mutex::new(inbox),
            room: Condvar::new(),
            outbox: Mutex::new(outbox),
            reader: WakerSlot::default(),
            rung: Mutex::new(false),
            bell: Condvar::new(),
            files: Mutex::new(Files { log, cursor: None }),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Number of the log.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    // ------------------------------------------------------------------------------------------------------- senders

    /// Takes records in, if there is room.
    pub(super) fn offer(&self, batch: &Group) -> Result<Acknowledgement, WriteAheadError> {
        let inbox = lock(&self.inbox);
        inbox.check(batch.bytes(), &self.limits, &self.directory)?;
        Ok(self.take_in(inbox, batch))
    }

    /// Takes records in; waits for room on this thread. Where nobody could make any meanwhile, that there is none is an error.
    pub(super) fn put(&self, batch: &Group) -> Result<Acknowledgement, WriteAheadError> {
        let mut inbox = lock(&self.inbox);
        loop {
            match inbox.check(batch.bytes(), &self.limits, &self.directory) {
                Ok(()) => return Ok(self.take_in(inbox, batch)),
                Err(WriteAheadError::Full) if self.is_threaded => {
                    inbox = self.room.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes records in, or has the task woken when there may be room.
    pub(super) fn poll_put(
        &self,
        batch: &Group,
        context: &mut Context<'_>,
    ) -> Poll<Result<Acknowledgement, WriteAheadError>> {
        let mut inbox = lock(&self.inbox);
        match inbox.check(batch.bytes(), &self.limits, &self.directory) {
            Ok(()) => Poll::Ready(Ok(self.take_in(inbox, batch))),
            Err(WriteAheadError::Full) if self.is_threaded => {
                let waker = context.waker();
                if !inbox.waiting.iter().any(|known| known.will_wake(waker)) {
                    inbox.waiting.push(waker.clone());
                }
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Puts records, for which there is room, into the open group.
    fn take_in(&self, mut inbox: MutexGuard<'_, Inbox>, batch: &Group) -> Acknowledgement {
        let is_first = inbox.group.is_empty();
        inbox.group.append(batch);
        let ticket = inbox.outcome.ticket();
        drop(inbox);
        if is_first {
            self.ring();
        }
        ticket
    }

    /// How things stand.
    pub(super) fn stats(&self) -> WriteAheadStats {
        let inbox = lock(&self.inbox);
        let pending_bytes = if inbox.group.is_empty() { 0 } else { inbox.group.bytes() };
        let log_bytes = inbox.log_bytes;
        drop(inbox);
        let Outbox { first, durable, next, .. } = *lock(&self.outbox);
        let Limits { log_bytes: log_bytes_max, pending_bytes: pending_bytes_max, .. } = self.limits;
        let read = next.max(first);
        WriteAheadStats { first, durable, read, log_bytes, log_bytes_max, pending_bytes, pending_bytes_max }
    }

    /// The most that one send may have, in bytes.
    pub(super) fn batch_bytes_max(&self) -> usize {
        self.limits.batch_bytes
    }

    /// Has the mark of the end written, behind all that was taken in.
    pub(super) fn close(&self) -> Result<Acknowledgement, WriteAheadError> {
        let mut inbox = lock(&self.inbox);
        if inbox.is_closed {
            return Ok(Acknowledgement::of_nothing());
        }
        if inbox.is_abandoned {
            return Err(LogError::Abandoned { directory: self.directory.to_path_buf() }.into());
        }
        if let Some(closing) = &inbox.closing {
            return Ok(closing.ticket());
        }
        let closing = inbox.closing.insert(Unsettled::new(Arc::clone(&self.directory)));
        let ticket = closing.ticket();
        drop(inbox);
        self.make_room();
        self.ring();
        Ok(ticket)
    }

    /// Nobody reads any more.
    pub(super) fn end_job(&self) {
        lock(&self.inbox).job_ended = true;
        self.make_room();
    }

    /// Nobody will want anything any more.
    pub(super) fn stop(&self) {
        lock(&self.inbox).stops = true;
        self.ring();
    }

    /// Lets those that wait for room look again.
    fn make_room(&self) {
        let waiting = std::mem::take(&mut lock(&self.inbox).waiting);
        self.room.notify_all();
        waiting.into_iter().for_each(Waker::wake);
    }

    // ------------------------------------------------------------------------------------------------------ the reader

    /// What is to be woken when there is something to read. Call it before [`attach`](Self::attach).
    pub(super) fn reader(&self) -> &WakerSlot {
        &self.reader
    }

    /// The oldest record that is kept.
    pub(super) fn first(&self) -> u64 {
        lock(&self.outbox).first
    }

    /// Begins to read with record `from`; whoever read before reads no more. Returns what the new reader is known by.
    ///
    /// # Errors
    /// When that record is not in the log, or nobody serves it any more.
    pub(super) fn attach(&self, from: u64) -> Result<u64, LogError> {
        if lock(&self.inbox).is_abandoned {
            return Err(LogError::Abandoned { directory: self.directory.to_path_buf() });
        }
        let mut outbox = lock(&self.outbox);
        if from < outbox.first || from > outbox.durable {
            return Err(LogError::Elsewhere {
                directory: self.directory.to_path_buf(),
                wanted: from,
                first: outbox.first,
                end: outbox.durable,
            });
        }
        outbox.epoch += 1;
        outbox.is_read = true;
        outbox.next = from;
        outbox.chunks.clear();
        (outbox.bytes, outbox.is_last, outbox.failure) = (0, false, None);
        let epoch = outbox.epoch;
        drop(outbox);
        self.ring();
        Ok(epoch)
    }

    /// The reader with this epoch is gone.
    pub(super) fn detach(&self, epoch: u64) {
        let mut outbox = lock(&self.outbox);
        if outbox.epoch == epoch {
            outbox.is_read = false;
            outbox.chunks.clear();
            outbox.bytes = 0;
        }
    }

    /// The next records for the reader with this epoch, if they are there.
    pub(super) fn next_chunk(&self, epoch: u64) -> Result<Option<Chunk>, Arc<LogError>> {
        let mut outbox = lock(&self.outbox);
        if outbox.epoch != epoch {
            return Ok(None);
        }
        let chunk = outbox.chunks.pop_front();
        let had_room = outbox.bytes < READ_AHEAD_BYTES;
        outbox.bytes -= chunk.as_ref().map_or(0, Chunk::bytes);
        let failure = outbox.failure.clone();
        let wants = outbox.wants() && (!had_room || !self.is_threaded);
        drop(outbox);
        if wants {
            self.ring();
        }
        match (chunk, failure) {
            (Some(chunk), _) => Ok(Some(chunk)),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(None),
        }
    }

    /// The records before `before` are needed no more.
    pub(super) fn trim(&self, before: u64) {
        let mut outbox = lock(&self.outbox);
        outbox.trim = outbox.trim.max(Some(before));
        drop(outbox);
        self.ring();
    }

    // --------------------------------------------------------------------------------------------------------- the log

    /// There is something to be done: has the thread do it, or does it.
    fn ring(&self) {
        if self.is_threaded {
            *lock(&self.rung) = true;
            self.bell.notify_one();
        } else {
            let mut files = lock(&self.files);
            while self.round(&mut files) {}
        }
    }

    /// The body of the log's thread.
    pub(super) fn serve(&self) {
        /// Tells all that wait when the thread goes, which it does in good order only when nobody does.
        struct Leave<'a>(&'a Desk);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.abandon();
            }
        }
        let _leave = Leave(self);
        loop {
            let stops = lock(&self.inbox).stops;
            while self.round(&mut lock(&self.files)) {}
            if stops {
                return;
            }
            let rung = self.bell.wait_while(lock(&self.rung), |rung| !*rung);
            *rung.unwrap_or_else(PoisonError::into_inner) = false;
        }
    }

    fn abandon(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.is_abandoned = true;
        inbox.group = Group::default();
        // Whoever waits for these is told as they are dropped.
        let outcome = std::mem::replace(&mut inbox.outcome, Unsettled::new(Arc::clone(&self.directory)));
        let closing = inbox.closing.take();
        drop(inbox);
        drop((outcome, closing));
        let gone = LogError::Abandoned { directory: self.directory.to_path_buf() };
        lock(&self.outbox).failure.get_or_insert(Arc::new(gone));
        self.make_room();
        self.reader.wake();
    }

    /// Does what there is to do, each kind of it once; whether there was something.
    fn round(&self, files: &mut Files) -> bool {
        let (group, closes) = self.take_group();
        let commits = group.is_some();
        if let Some((group, outcome)) = group {
            self.commit(files, &group, outcome);
        }
        if closes {
            self.write_end(files);
        }
        let trim = lock(&self.outbox).trim.take();
        if let Some(before) = trim {
            // What could not be removed is tried again when the next checkpoint is complete.
            let _left = files.log.trim(before);
            lock(&self.outbox).first = files.log.first();
            self.note_log_bytes(files);
        }
        let reads = self.read_ahead(files);
        commits || closes || trim.is_some() || reads
    }

    /// The open group, and whether the end comes behind it.
    fn take_group(&self) -> (Option<(Group, Unsettled)>, bool) {
        let mut inbox = lock(&self.inbox);
        // Until that is written nothing else comes in.
        let closes = inbox.closing.is_some();
        if inbox.group.is_empty() {
            return (None, closes);
        }
        let group = std::mem::take(&mut inbox.group);
        let outcome = std::mem::replace(&mut inbox.outcome, Unsettled::new(Arc::clone(&self.directory)));
        // It counts as written from here on, so that the next group may be as long.
        inbox.log_bytes += group.bytes() as u64;
        drop(inbox);
        self.make_room();
        (Some((group, outcome)), closes)
    }

    /// Makes a group durable and tells its senders.
    fn commit(&self, files: &mut Files, group: &Group, outcome: Unsettled) {
        let appended = files.log.append(group);
        self.note_log_bytes(files);
        match appended {
            Ok(chunk) => {
                // First, so that whoever was told finds it counted.
                self.hand_on(files, chunk);
                outcome.settle(Ok(()));
            }
            Err(error) => outcome.settle(Err(Arc::new(error))),
        }
    }

    /// Gives a reader that is at the end what was just written.
    fn hand_on(&self, files: &mut Files, chunk: Chunk) {
        let Files { log, cursor } = files;
        let mut outbox = lock(&self.outbox);
        let is_at_end = outbox.is_read && outbox.next == outbox.durable && outbox.failure.is_none();
        outbox.durable = log.next();
        if !is_at_end || outbox.bytes >= READ_AHEAD_BYTES {
            return;
        }
        outbox.put(chunk);
        if let Some((_, cursor)) = cursor.as_mut().filter(|(epoch, _)| *epoch == outbox.epoch) {
            cursor.pass_to_end(log);
        }
        drop(outbox);
        self.reader.wake();
    }

    /// Writes the mark of the end and tells those that closed.
    fn write_end(&self, files: &mut Files) {
        let ended = files.log.end();
        self.note_log_bytes(files);
        let is_ended = files.log.is_ended();
        lock(&self.outbox).is_ended = is_ended;
        let mut inbox = lock(&self.inbox);
        inbox.is_closed = is_ended;
        let closing = inbox.closing.take();
        drop(inbox);
        if let Some(closing) = closing {
            closing.settle(ended.map_err(Arc::new));
        }
    }

    /// Reads from the files for a reader that is behind; whether there was something to do.
    fn read_ahead(&self, files: &mut Files) -> bool {
        let (epoch, from) = {
            let outbox = lock(&self.outbox);
            if !outbox.wants() {
                return false;
            }
            (outbox.epoch, outbox.next)
        };
        let Files { log, cursor } = files;
        let read = match cursor {
            Some((of, cursor)) if *of == epoch && cursor.next() == from => cursor.read(log),
            cursor => Cursor::at(log, from).and_then(|new| cursor.insert((epoch, new)).1.read(log)),
        };
        let mut outbox = lock(&self.outbox);
        if outbox.epoch == epoch {
            match read {
                Ok(Some(chunk)) => outbox.put(chunk),
                // There is nothing where there should be something: not asked again before that changes.
                Ok(None) => return false,
                Err(error) => outbox.failure = Some(Arc::new(error)),
            }
        }
        drop(outbox);
        self.reader.wake();
        true
    }

    fn note_log_bytes(&self, files: &Files) {
        lock(&self.inbox).log_bytes = files.log.bytes();
        self.make_room();
    }
}
