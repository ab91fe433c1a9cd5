//! Drives readers and writers without an engine: an output with a budget, and a waker that is counted.
#![allow(dead_code)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tidemill_engine::{
    model::{
        sink::{CommitContext, Sink, SinkWriter},
        source::{BoxError, Flow, Output, Polled, Reader, Source, SubtaskContext},
    },
    platform::{Clock, Nanos, Wake},
};

use tidemill_storage::snapshot::disk::os::OsDisk;

/// A clock that stands still.
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Nanos {
        0
    }

    fn wall_millis(&self) -> i64 {
        0
    }
}

/// Counts wakes.
#[derive(Default)]
pub struct CountingWake(pub AtomicUsize);

impl Wake for CountingWake {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub fn context(subtask: usize, parallelism: usize, inline_io: bool) -> SubtaskContext {
    let waker = Arc::new(CountingWake::default());
    let disk = Arc::new(OsDisk::default());
    SubtaskContext { subtask, parallelism, clock: Arc::new(StillClock), waker, disk, inline_io }
}

/// Takes so many records per poll.
pub struct Taken<T> {
    pub records: Vec<T>,
    pub skipped: u64,
    pub bytes: u64,
    pub finished: Vec<usize>,
    budget: usize,
    left: usize,
}

impl<T> Taken<T> {
    pub fn new(budget: usize) -> Self {
        Self { records: Vec::new(), skipped: 0, bytes: 0, finished: Vec::new(), budget, left: budget }
    }
}

impl<T> Taken<T> {
    /// Sets what the next poll may emit.
    pub fn allow(&mut self, records: usize) {
        self.left = records;
    }
}

impl<T> Output<T> for Taken<T> {
    fn emit(&mut self, split: usize, record: T) -> Flow {
        assert!(self.left > 0, "emitted after a yield");
        assert!(!self.finished.contains(&split), "emitted after the end of the split");
        self.records.push(record);
        self.left -= 1;
        if self.left == 0 { Flow::Yield } else { Flow::Continue }
    }

    fn emitted(&self) -> u64 {
        self.records.len() as u64
    }

    fn finish_split(&mut self, split: usize) {
        assert!(!self.finished.contains(&split), "a split ends once");
        self.finished.push(split);
    }

    fn skipped(&mut self, records: u64) {
        self.skipped += records;
    }

    fn bytes_read(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

/// Polls a reader to its end.
pub fn drain<R: Reader>(reader: &mut R, taken: &mut Taken<R::Item>) -> Result<(), BoxError> {
    loop {
        taken.left = taken.budget;
        match reader.poll(taken, 0)? {
            Polled::More => {}
            Polled::Pending(_) => std::thread::yield_now(),
            Polled::End => {
                taken.finished.sort_unstable();
                assert_eq!(
                    taken.finished,
                    (0..reader.splits().max(taken.finished.len())).collect::<Vec<_>>()
                );
                return Ok(());
            }
        }
    }
}

/// What a source gives at some parallelism: the records per subtask, and how many were skipped.
pub struct Read<T> {
    pub by_subtask: Vec<Vec<T>>,
    pub skipped: u64,
    pub bytes: u64,
}

impl<T> Read<T> {
    pub fn all(self) -> Vec<T> {
        self.by_subtask.into_iter().flatten().collect()
    }
}

/// Opens the reader of one subtask for what it reads in a fresh start.
pub fn open<S: Source>(source: &S, context: &SubtaskContext) -> Result<S::Reader, BoxError> {
    source.open(context, source.splits(context)?)
}

pub fn read<S: Source>(
    mut source: S,
    parallelism: usize,
    budget: usize,
    inline: bool,
) -> Result<Read<S::Item>, BoxError> {
    source.prepare(parallelism)?;
    let mut read = Read { by_subtask: Vec::new(), skipped: 0, bytes: 0 };
    for subtask in 0..parallelism {
        let mut taken = Taken::new(budget);
        let mut reader = open(&source, &context(subtask, parallelism, inline))?;
        drain(&mut reader, &mut taken)?;
        read.skipped += taken.skipped;
        read.bytes += taken.bytes;
        read.by_subtask.push(taken.records);
    }
    Ok(read)
}

/// The error of a source that must fail.
pub fn failure<S: Source>(source: S) -> String {
    match read(source, 1, usize::MAX, true) {
        Ok(_) => panic!("the source did not fail"),
        Err(error) => error.to_string(),
    }
}

/// Writes records, dealt in turn over subtasks.
pub fn write<T, S: Sink<T>>(
    mut sink: S,
    parallelism: usize,
    records: impl IntoIterator<Item = T>,
) -> Result<(), BoxError> {
    sink.prepare(parallelism)?;
    let (disk, connections) = (context(0, 1, false).disk, Arc::default());
    let place = CommitContext { job: "job".into(), operator: "sink".into(), disk, connections };
    let mut committer = sink.committer(&place)?;
    if let Some(committer) = &mut committer {
        committer.begin_anew()?;
        committer.recover(&[])?;
    }
    let mut writers = (0..parallelism)
        .map(|subtask| sink.open(&context(subtask, parallelism, false)))
        .collect::<Result<Vec<_>, _>>()?;
    for (index, record) in records.into_iter().enumerate() {
        writers[index % parallelism].write(record, index as i64)?;
    }
    let mut prepared = Vec::new();
    for writer in &mut writers {
        writer.flush()?;
        prepared.extend(writer.pre_commit(1)?);
    }
    if let Some(committer) = &mut committer {
        committer.secure(&prepared)?;
        committer.commit(&prepared)?;
    }
    writers.iter_mut().try_for_each(|writer| writer.finish())
}
