//! A channel by which a service feeds a job from any thread.
//!
//! Every subtask has a bounded queue of its own. A feeder deals its records over the queues in turn, so what
//! one feeder sends to one subtask arrives in order; between subtasks, and between feeders, there is no order.
//! Before the job starts there is only the first subtask's queue. Each record wakes the worker that
//! its queue belongs to, which costs next to nothing when that worker is awake.

mod feeder;

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use async_channel::{Receiver, Sender, TryRecvError};
use tidemill_engine::{
    model::source::{BoxError, Flow, Output, Polled, Reader, Source, SubtaskContext},
    platform::{Nanos, sockets::WakerSlot},
};

pub use self::feeder::{Feeder, SendError, TrySendError};
use super::error::SourceError;

/// Makes a feeder and the source of what it sends; `capacity` is the number of records that may wait per
/// subtask.
///
/// The channel cannot be read twice: what the job took since its last checkpoint is lost when it fails, and what waits in
/// the queues is lost with the process. [`WriteAheadChannel`](super::WriteAheadChannel) loses nothing, and takes a sync of
/// the disk per send, or per many of them.
///
/// The input ends when every clone of the feeder is dropped or one of them is closed. When the job ends
/// before, sending gives the record back.
///
/// ```
/// let (feeder, source) = tidemill_operators::source::channel::<u64>(1024);
/// std::thread::spawn(move || {
///     for number in 0..10_000 {
///         if feeder.send(number).is_err() {
///             return; // The job has ended.
///         }
///     }
/// });
/// # drop(source);
/// ```
///
/// # Panics
/// When `capacity` is 0.
pub fn channel<T: Send + 'static>(capacity: usize) -> (Feeder<T>, ChannelSource<T>) {
    assert!(capacity > 0, "a channel holds at least one record");
    let queues = Arc::new(Queues {
        capacity,
        first: Lane::new(capacity),
        lanes: OnceLock::new(),
        closed: Mutex::new(false),
        ended: AtomicBool::new(false),
    });
    (Feeder::new(queues.clone()), ChannelSource { job: Arc::new(JobEnd { queues }) })
}

/// One subtask's queue.
struct Lane<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
    waker: Arc<WakerSlot>,
}

impl<T> Lane<T> {
    fn new(capacity: usize) -> Self {
        let (sender, receiver) = async_channel::bounded(capacity);
        Self { sender, receiver, waker: Arc::default() }
    }
}

impl<T> Clone for Lane<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), receiver: self.receiver.clone(), waker: self.waker.clone() }
    }
}

/// All queues of a channel.
struct Queues<T> {
    capacity: usize,
    /// The only queue before the job starts, then that of subtask 0.
    first: Lane<T>,
    lanes: OnceLock<Vec<Lane<T>>>,
    /// Guards the making of lanes against closing.
    closed: Mutex<bool>,
    /// The job is gone: what is in the queues will not be read.
    ended: AtomicBool,
}

impl<T> Queues<T> {
    /// The queues that exist.
    #[inline]
    fn lanes(&self) -> &[Lane<T>] {
        self.lanes.get().map_or(std::slice::from_ref(&self.first), Vec::as_slice)
    }

    /// Makes a queue for every subtask, once.
    fn make_lanes(&self, parallelism: usize) {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = self.lanes.get_or_init(|| {
            let others = (1..parallelism).map(|_| Lane::new(self.capacity));
            std::iter::once(self.first.clone()).chain(others).collect()
        });
        if *closed {
            close(lanes);
        }
    }

    /// No further record is taken; what waits is still read.
    fn close(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        *closed = true;
        close(self.lanes());
    }

    /// The job is gone: nothing will be read any more.
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.close();
        for lane in self.lanes() {
            while lane.receiver.try_recv().is_ok() {}
        }
    }
}

fn close<T>(lanes: &[Lane<T>]) {
    for lane in lanes {
        lane.sender.close();
        lane.waker.wake();
    }
}

/// The source of what a [`Feeder`] sends.
pub struct ChannelSource<T> {
    job: Arc<JobEnd<T>>,
}

/// Held by the source, which lives as long as the job, and by its readers. The last to go says to the feeders that nobody
/// reads any more. A job that fails and is started again goes on with what waits in the queues.
struct JobEnd<T> {
    queues: Arc<Queues<T>>,
}

impl<T> Drop for JobEnd<T> {
    fn drop(&mut self) {
        let is_read = |lane: &Lane<T>| lane.receiver.is_closed() && lane.receiver.is_empty();
        if !self.queues.lanes.get().is_some_and(|lanes| lanes.iter().all(is_read)) {
            self.queues.end();
        }
    }
}

impl<T: Send + 'static> Source for ChannelSource<T> {
    type Item = T;
    type Split = ();
    type Reader = ChannelReader<T>;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        self.job.queues.make_lanes(parallelism);
        Ok(())
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![()])
    }

    fn open(&self, context: &SubtaskContext, _splits: Vec<()>) -> Result<ChannelReader<T>, BoxError> {
        let lane = self.job.queues.lanes.get().and_then(|lanes| lanes.get(context.subtask));
        let missing = SourceError::NoShare { source_name: "ChannelSource", subtask: context.subtask };
        let lane = lane.ok_or(missing)?;
        lane.waker.set(context.waker.clone());
        Ok(ChannelReader { receiver: lane.receiver.clone(), _job: Arc::clone(&self.job), ended: false })
    }
}

/// Reads one subtask's queue.
pub struct ChannelReader<T> {
    receiver: Receiver<T>,
    /// Kept while it is read.
    _job: Arc<JobEnd<T>>,
    ended: bool,
}

impl<T: Send + 'static> Reader for ChannelReader<T> {
    type Item = T;
    type Split = ();

    fn position(&self, _split: usize) {}

    #[inline]
    fn poll<O: Output<T>>(&mut self, output: &mut O, _now: Nanos) -> Result<Polled, BoxError> {
        loop {
            match self.receiver.try_recv() {
                Ok(record) => {
                    if output.emit(0, record) == Flow::Yield {
                        return Ok(Polled::More);
                    }
                }
                Err(TryRecvError::Empty) => return Ok(Polled::Pending(None)),
                Err(TryRecvError::Closed) => {
                    if !self.ended {
                        self.ended = true;
                        output.finish_split(0);
                    }
                    return Ok(Polled::End);
                }
            }
        }
    }
}
