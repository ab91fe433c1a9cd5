//! A channel by which a service feeds a job, and loses nothing that was acknowledged: what is sent goes to a log on the
//! disk first.
//!
//! The log is the input: the job reads it by record number, so a checkpoint keeps a place in it and recovery reads on
//! from there. One subtask reads, whatever the parallelism; which one may change from start to start. What no kept
//! checkpoint needs is removed. The log itself is [`tidemill_storage::wal`].

mod desk;
mod error;
mod feeder;
mod reader;
mod stats;
mod ticket;

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tidemill_engine::{
    model::source::{BoxError, Source, SubtaskContext},
    platform::{
        Random,
        threads::{self, Thread},
    },
};
use tidemill_storage::{
    Record,
    wal::{LogError, LogOptions, RECORD_ALIGN, WriteAheadLog},
};

use self::desk::{Desk, Limits};
pub use self::{
    error::WriteAheadError, feeder::WriteAheadFeeder, reader::WriteAheadReader, stats::WriteAheadStats,
    ticket::Acknowledgement,
};
use crate::api::environment::StreamEnvironment;

/// Bytes of a log on the disk, unless set.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// Less than this could not hold a segment to be written and one to be removed.
const LOG_BYTES_LEAST: u64 = 64 << 10;
/// Most bytes of a segment: what is removed at a time.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;
/// Most bytes that wait to be written, and so are written and synced together.
const PENDING_BYTES_MAX: u64 = 4 << 20;
/// Most bytes of one send.
const BATCH_BYTES_MAX: u64 = 16 << 20;

/// Describes a channel whose records are durable before a send returns.
///
/// ```
/// use tidemill_engine::model::{checkpoint_config::CheckpointConfig, config::JobConfig, watermark::WatermarkStrategy};
/// use tidemill_operators::{api::environment::StreamEnvironment, sink::CollectSink, source::WriteAheadChannel};
///
/// # let place = std::env::temp_dir().join(format!("tidemill-write-ahead-{}", std::process::id()));
/// # std::fs::create_dir_all(&place)?;
/// let config = JobConfig { name: "orders".into(), parallelism: 2, ..JobConfig::default() };
/// let env = StreamEnvironment::with_config(config).checkpoints(CheckpointConfig::new(place.join("checkpoints")));
/// let (feeder, orders) = WriteAheadChannel::new(place.join("orders")).open::<u64>(&env)?;
/// let (sink, sums) = CollectSink::new();
/// env.from_source("orders", orders, WatermarkStrategy::none())
///     .key_by(|_| ())
///     .fold(0_u64, |sum: &mut u64, order| *sum += order.to_native())
///     .map(|(_, sum)| sum)
///     .sink("sums", sink);
/// let job = env.start()?;
///
/// // From any thread. When it returns, the order survives `kill -9` and a power cut, and counts exactly once.
/// feeder.send(&70)?;
/// // Records that belong together: all or none of them survive.
/// feeder.send_all(&[20, 10])?;
/// // Without waiting: the answer to whoever asked can wait until this is ready.
/// let acknowledgement = feeder.try_send(&1)?;
/// acknowledgement.wait()?;
///
/// feeder.close()?.wait()?; // The input ends for good. Without this, the job goes on with the log at its next start.
/// job.wait()?;
/// assert_eq!(sums.take().last(), Some(&101));
/// # std::fs::remove_dir_all(place)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// * **What is acknowledged** is in the log, and the log is synced. A send that fails with [`WriteAheadError::Log`], or
///   whose process dies before it returns, may have come that far or not; every other error says that nothing was sent.
/// * **Exactly once** holds for what was acknowledged as it does for any source that can be read twice: the job's state
///   counts it once, and with a transactional sink so does its output. Records are read in the order in which they were
///   acknowledged.
/// * **Many senders share one sync**: while one group of records is being written, the next collects. A single sender waits for
///   one sync per send; [`send_all`](WriteAheadFeeder::send_all) and [`try_send`](WriteAheadFeeder::try_send) do better.
/// * **It needs checkpoints**: they say what of the log is needed no more. Without them all of it is kept, and read
///   again from its beginning, until [`log_bytes_max`](Self::log_bytes_max) holds the senders back for ever.
/// * **A job that starts without a checkpoint** reads the log from its first record on. If that is not there any more, since checkpoints
///   covered it that are gone now, the job fails and is not started again: see [`allow_trimmed_log`](Self::allow_trimmed_log).
/// * **The end** comes by [`close`](WriteAheadFeeder::close) only, and stays. Feeders that are dropped leave the log as
///   it is, so a service can go down at any time; the job is then to be suspended, not waited for. A job that is
///   stopped with `--drain` closes the channel, and ends when it has read all that was acknowledged.
#[derive(Clone, Debug)]
pub struct WriteAheadChannel {
    directory: PathBuf,
    log_bytes_max: u64,
    allows_trimmed: bool,
}

impl WriteAheadChannel {
    /// A channel with its log in `directory`, which is made if it is not there, but none above it. It should be on a local
    /// disk, and hold nothing else.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), log_bytes_max: LOG_BYTES_MAX, allows_trimmed: false }
    }

    /// Bytes that the log may have on the disk, 1 GiB unless set, 64 KiB at least: what the oldest checkpoint that is
    /// kept does not cover yet, in whole segments. At this bound senders wait, until a newer one is the oldest.
    pub fn log_bytes_max(mut self, bytes: u64) -> Self {
        self.log_bytes_max = bytes.max(LOG_BYTES_LEAST);
        self
    }

    /// Lets a job that begins without a checkpoint read what the log still has, though records before that were removed: what it had
    /// made of them is lost. Without this it refuses to. Meant for the one start at which the checkpoints are given up; the next
    /// loss of them would go unnoticed, too.
    pub fn allow_trimmed_log(mut self) -> Self {
        self.allows_trimmed = true;
        self
    }

    /// Opens the log on the disk of the job's platform; gives the two ends of the channel. Can be sent to at once, also
    /// before the job runs.
    ///
    /// # Errors
    /// When the directory cannot be made, read or written; when another process or channel has it; when its log is damaged,
    /// has records of another type, or is of a newer version.
    pub fn open<T: Record>(
        self,
        environment: &StreamEnvironment,
    ) -> Result<(WriteAheadFeeder<T>, WriteAheadSource<T>), WriteAheadError> {
        const { assert!(align_of::<T::Archived>() <= RECORD_ALIGN, "no record needs more") };
        let platform = environment.platform();
        let clock = platform.clock();
        let seed = (clock.wall_millis() as u64) ^ clock.now().rotate_left(32);
        let (max, allows_trimmed) = (self.log_bytes_max, self.allows_trimmed);
        // A segment in work has half of that at most, so that there is room as soon as all others are removed.
        let limits = Limits {
            log_bytes: max,
            pending_bytes: PENDING_BYTES_MAX.min(max / 8) as usize,
            batch_bytes: BATCH_BYTES_MAX.min(max / 4) as usize,
        };
        let options = LogOptions {
            schema: T::schema().into_owned(),
            number: Random::from_seed(seed).next_u64(),
            segment_bytes: SEGMENT_BYTES_MAX.min(max / 4),
        };
        let log = WriteAheadLog::open(platform.disk(), &self.directory, options)?;
        let keeper = Arc::new(Keeper::new(log, limits, !platform.inline_io())?);
        let job = Arc::new(JobEnd { keeper: Arc::clone(&keeper) });
        Ok((WriteAheadFeeder::new(keeper), WriteAheadSource { job, allows_trimmed, records: PhantomData }))
    }
}

/// Keeps a log open as long as one of its ends is there.
struct Keeper {
    desk: Arc<Desk>,
    thread: Mutex<Option<Thread<()>>>,
}

impl Keeper {
    fn new(log: WriteAheadLog, limits: Limits, is_threaded: bool) -> Result<Self, WriteAheadError> {
        let desk = Arc::new(Desk::new(log, limits, is_threaded));
        let start = || {
            let desk = Arc::clone(&desk);
            threads::start("tidemill-wal", move || desk.serve())
        };
        let thread = if is_threaded {
            Some(start().map_err(|cause| WriteAheadError::Thread { cause: Arc::new(cause) })?)
        } else {
            None
        };
        Ok(Self { desk, thread: Mutex::new(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.desk.stop();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // So that the directory is free when this returns; but a waker that the log's own thread calls may drop the last end.
        // Of its panic everyone that waited was told.
        let _panicked = thread.filter(|thread| !thread.is_current()).map(Thread::join);
    }
}

/// Held by the source, which lives as long as the job, and by its readers. The last to go says to the feeders that nobody
/// reads any more.
struct JobEnd {
    keeper: Arc<Keeper>,
}

impl Drop for JobEnd {
    fn drop(&mut self) {
        self.keeper.desk.end_job();
    }
}

/// The source of what a [`WriteAheadFeeder`] sends.
pub struct WriteAheadSource<T> {
    job: Arc<JobEnd>,
    allows_trimmed: bool,
    records: PhantomData<fn() -> T>,
}

impl<T> WriteAheadSource<T> {
    /// The directory of its log.
    pub fn directory(&self) -> &Path {
        self.job.keeper.desk.directory()
    }
}

/// A place in a write-ahead log.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[record(crate = tidemill_storage)]
pub struct WriteAheadSplit {
    /// Number of the log, drawn when it was made.
    log: u64,
    /// Number of the next record to be read.
    record: u64,
}

impl<T: Record> Source for WriteAheadSource<T> {
    type Item = T;
    type Split = WriteAheadSplit;
    type Reader = WriteAheadReader<T>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, context: &SubtaskContext) -> Result<Vec<WriteAheadSplit>, BoxError> {
        if context.subtask > 0 {
            return Ok(Vec::new());
        }
        let desk = &self.job.keeper.desk;
        let (log, record) = (desk.number(), desk.first());
        if record > 0 && !self.allows_trimmed {
            // As it is: by its type the engine knows that another attempt would find the same.
            return Err(Box::new(LogError::Trimmed {
                directory: desk.directory().to_owned(),
                first: record,
            }));
        }
        Ok(vec![WriteAheadSplit { log, record }])
    }

    fn open(
        &self,
        context: &SubtaskContext,
        splits: Vec<WriteAheadSplit>,
    ) -> Result<WriteAheadReader<T>, BoxError> {
        let desk = &self.job.keeper.desk;
        let from = match splits[..] {
            [] => None,
            [split] if split.log == desk.number() => Some(split.record),
            [split] => {
                let (directory, found) = (desk.directory().to_owned(), desk.number());
                let other = LogError::OtherLog { directory, wanted: split.log, found };
                return Err(WriteAheadError::from(other).into());
            }
            _ => return Err(WriteAheadError::Splits { splits: splits.len() }.into()),
        };
        if from.is_some() {
            desk.reader().set(Arc::clone(&context.waker));
        }
        Ok(WriteAheadReader::new(Arc::clone(&self.job), from)?)
    }
}
