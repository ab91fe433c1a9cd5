//! The write-ahead channel on real threads and a real disk: senders that share syncs, bounds, restarts, and what is refused.
#![allow(clippy::unwrap_used)]

mod source_kit;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    future::Future,
    io::{BufRead, BufReader},
    path::Path,
    pin::pin,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use source_kit::{CountingWake, Taken, context, drain, open};
use tidemill_engine::{
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        error::Error,
        source::{Polled, Reader, Source, SubtaskContext},
        watermark::WatermarkStrategy,
    },
    platform::SimPlatform,
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sink::{CallbackSink, CollectSink},
    source::{WriteAheadChannel, WriteAheadError, WriteAheadFeeder, WriteAheadSource},
};
use tidemill_storage::{
    record::Record,
    snapshot::disk::memory::{Faults, MemoryDisk},
};

type Channel<T> = (WriteAheadFeeder<T>, WriteAheadSource<T>);

fn channel<T: Record>(directory: &Path) -> Channel<T> {
    try_channel(directory).unwrap()
}

fn try_channel<T: Record>(directory: &Path) -> Result<Channel<T>, WriteAheadError> {
    WriteAheadChannel::new(directory)
        .log_bytes_max(0)
        .open(&StreamEnvironment::with_config(JobConfig::default()))
}

/// Polls until so many records were taken.
fn take<R: Reader>(reader: &mut R, records: usize) -> Vec<R::Item> {
    let mut taken = Taken::new(records);
    while taken.records.len() < records {
        let _more = reader.poll(&mut taken, 0).unwrap();
        thread::yield_now();
    }
    taken.records
}

#[test]
fn many_threads_send_and_each_is_read_in_its_order() {
    let place = tempfile::tempdir().unwrap();
    let (feeder, source) = WriteAheadChannel::new(place.path().join("log"))
        .open::<(u32, u32)>(&StreamEnvironment::with_config(JobConfig::default()))
        .unwrap();
    let senders: Vec<_> = (0..8_u32)
        .map(|name| {
            let feeder = feeder.clone();
            thread::spawn(move || (0..100).for_each(|count| feeder.send(&(name, count)).unwrap()))
        })
        .collect();
    let closer = thread::spawn(move || {
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        feeder.close().unwrap().wait().unwrap();
    });
    let mut taken = Taken::new(7);
    drain(&mut open(&source, &context(0, 2, false)).unwrap(), &mut taken).unwrap();
    let mut nothing = Taken::new(7);
    drain(&mut open(&source, &context(1, 2, false)).unwrap(), &mut nothing).unwrap();
    closer.join().unwrap();
    assert!(nothing.records.is_empty(), "one subtask reads");
    for name in 0..8 {
        let of_name = taken.records.iter().filter(|(of, _)| *of == name).map(|(_, count)| *count);
        assert_eq!(of_name.collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }
    assert_eq!(taken.records.len(), 800);
}

#[test]
fn a_restart_reads_on_from_a_position_or_all_of_it() {
    let place = tempfile::tempdir().unwrap();
    let (feeder, source) = channel::<String>(place.path());
    let text = |number: u32| "x".repeat(number as usize) + &number.to_string();
    feeder.send_all(&(0..30).map(text).collect::<Vec<_>>()).unwrap();
    (30..50).for_each(|number| feeder.send(&text(number)).unwrap());
    let stats = feeder.stats();
    assert_eq!((stats.first, stats.durable, stats.read, stats.pending_bytes), (0, 50, 0, 0));
    let mut reader = open(&source, &context(0, 1, false)).unwrap();
    take(&mut reader, 17);
    let position = reader.position(0);
    // An attempt fails, and the next has other workers.
    let woken = Arc::new(CountingWake::default());
    let again = SubtaskContext { waker: woken.clone(), ..context(2, 3, false) };
    drop(reader);
    let mut reader = source.open(&again, vec![position]).unwrap();
    assert_eq!(take(&mut reader, 1), [text(17)]);
    // The process ends.
    drop((feeder, source, reader));
    assert!(woken.0.load(Ordering::SeqCst) > 0, "it is the new worker that is woken");

    let (feeder, source) = channel::<String>(place.path());
    feeder.send(&text(50)).unwrap();
    assert_eq!(feeder.stats().durable, 51, "records are numbered over all starts");
    assert_eq!(source.splits(&context(1, 2, false)).unwrap(), []);
    let mut reader = open(&source, &context(0, 2, false)).unwrap();
    assert_eq!(take(&mut reader, 51), (0..51).map(text).collect::<Vec<_>>());
    assert_eq!(reader.poll(&mut Taken::new(1), 0).unwrap(), Polled::Pending(None));
    drop(reader);
    let mut reader = source.open(&context(1, 2, false), vec![position]).unwrap();
    assert_eq!(take(&mut reader, 34), (17..51).map(text).collect::<Vec<_>>());
    feeder.close().unwrap().wait().unwrap();
    drop((feeder, source, reader));

    let (feeder, source) = channel::<String>(place.path());
    assert!(matches!(feeder.send(&text(0)), Err(WriteAheadError::Closed)));
    feeder.close().unwrap().wait().unwrap();
    let mut taken = Taken::new(9);
    drain(&mut source.open(&context(0, 1, false), vec![position]).unwrap(), &mut taken).unwrap();
    assert_eq!(taken.records.len(), 34);
    drain(&mut source.open(&context(0, 1, false), vec![]).unwrap(), &mut Taken::new(1)).unwrap();
}

#[test]
fn senders_are_held_back_until_a_checkpoint_lets_the_log_be_trimmed() {
    const RECORDS: u32 = 2_000;
    let place = tempfile::tempdir().unwrap();
    let (feeder, source) = channel::<(u32, Vec<u8>)>(place.path());
    let record = |number: u32| (number, vec![number as u8; 500]);
    let mut sent = 0;
    let full = loop {
        match feeder.try_send(&record(sent)) {
            Ok(acknowledgement) => acknowledgement.wait().unwrap(),
            Err(error) => break error,
        }
        sent += 1;
    };
    assert!(matches!(full, WriteAheadError::Full), "{full}");
    assert!((50..130).contains(&sent), "{sent} records of 500 bytes in 64 KiB");
    let stats = feeder.stats();
    assert_eq!((stats.durable, stats.log_bytes_max), (u64::from(sent), 64 << 10));
    assert!(stats.log_bytes_max - stats.log_bytes < 1_024, "{stats:?}");
    let sender = thread::spawn({
        let feeder = feeder.clone();
        move || (sent..RECORDS).for_each(|number| feeder.send(&record(number)).unwrap())
    });
    let mut reader = open(&source, &context(0, 1, false)).unwrap();
    let mut read = 0;
    for checkpoint in 1.. {
        // Two checkpoints are kept: what the older needs stays.
        let mut taken = Taken::new(10);
        let _more = reader.poll(&mut taken, 0).unwrap();
        for (number, _) in taken.records {
            assert_eq!(number, read);
            read += 1;
        }
        reader.checkpoint(checkpoint);
        reader.kept(checkpoint - u64::from(checkpoint > 1));
        let bytes: u64 = fs::read_dir(place.path())
            .unwrap()
            .flatten()
            .filter_map(|file| file.metadata().ok())
            .map(|file| file.len())
            .sum();
        // And the header of a segment, and the lock.
        assert!(bytes <= (64 << 10) + 256, "{bytes} bytes on the disk");
        if read == RECORDS {
            break;
        }
        thread::yield_now();
    }
    sender.join().unwrap();
    let stats = feeder.stats();
    assert_eq!((stats.durable, stats.read), (u64::from(RECORDS), u64::from(RECORDS)));
    assert!(stats.first > 0, "{stats:?}");
}

#[test]
fn an_older_checkpoint_than_the_readers_own_keeps_everything() {
    let place = tempfile::tempdir().unwrap();
    let (feeder, source) = channel::<Vec<u8>>(place.path());
    while feeder.try_send(&vec![1; 1_000]).map(|acknowledgement| acknowledgement.wait().unwrap()).is_ok() {}
    let segments = || fs::read_dir(place.path()).unwrap().count();
    let before = segments();
    assert!(before > 3, "{before} files");
    let mut reader = open(&source, &context(0, 1, false)).unwrap();
    take(&mut reader, 50);
    reader.checkpoint(8);
    // 5 is of an earlier start, as it is kept; nobody knows what it needs.
    reader.kept(5);
    assert!(matches!(feeder.try_send(&vec![1; 1_000]), Err(WriteAheadError::Full)));
    assert_eq!(segments(), before);
    reader.kept(8);
    feeder.send(&vec![1; 1_000]).unwrap();
    assert!(segments() < before);
}

/// A job on a disk in memory, without threads.
fn simulated(disk: &MemoryDisk) -> StreamEnvironment {
    let platform = SimPlatform::new(1).disk(Arc::new(disk.clone()));
    StreamEnvironment::on(Arc::new(platform), JobConfig::default())
}

#[test]
fn a_reader_that_falls_behind_and_catches_up_again_and_again_gets_everything_in_order() {
    const BATCHES: u64 = 60;
    const TOGETHER: u64 = 40;
    let place = tempfile::tempdir().unwrap();
    let memory = MemoryDisk::default();
    let envs = [simulated(&memory), StreamEnvironment::with_config(JobConfig::default())];
    for (env, is_inline) in envs.iter().zip([true, false]) {
        let channel = WriteAheadChannel::new(place.path()).log_bytes_max(32 << 20);
        let (feeder, source) = channel.open::<(u64, Vec<u8>)>(env).unwrap();
        let mut reader = open(&source, &context(0, 1, is_inline)).unwrap();
        let mut next = 0;
        let mut check = |records: Vec<(u64, Vec<u8>)>| {
            for (number, bytes) in records {
                assert_eq!((number, bytes.len() as u64), (next, number % 9_000));
                next += 1;
            }
        };
        for batch in 0..BATCHES {
            let numbers = batch * TOGETHER..(batch + 1) * TOGETHER;
            let records: Vec<_> =
                numbers.map(|number| (number, vec![1; (number % 9_000) as usize])).collect();
            feeder.send_all(&records).unwrap();
            // Nothing for a while, so that more waits than is read ahead, then more than was sent meanwhile.
            let mut taken = Taken::new(1 + (batch % 20 * 7) as usize);
            let _more = reader.poll(&mut taken, 0).unwrap();
            check(taken.records);
        }
        feeder.close().unwrap().wait().unwrap();
        let mut rest = Taken::new(50);
        drain(&mut reader, &mut rest).unwrap();
        check(rest.records);
        assert_eq!(next, BATCHES * TOGETHER);
    }
}

#[test]
fn a_full_disk_fails_the_send_and_a_damaged_log_the_reader() {
    let disk = MemoryDisk::default();
    let env = simulated(&disk);
    let open_channel = || {
        let channel = WriteAheadChannel::new("/log").log_bytes_max(0);
        channel.open::<u64>(&env).map_err(|error| error.to_string())
    };
    let (feeder, source) = open_channel().unwrap();
    feeder.send(&0).unwrap();
    disk.set_faults(Faults { capacity_bytes: Some(150), ..Faults::default() });
    let error = feeder.send(&1).unwrap_err().to_string();
    assert!(error.contains("/log/segment-0000000000000000.wal") && error.contains("Make room"), "{error}");
    disk.set_faults(Faults::default());
    (2..2_000).for_each(|number| {
        let _full = feeder.send(&number);
    });
    assert!(matches!(feeder.send(&0), Err(WriteAheadError::Full)), "nobody could make room while it waits");
    let mut reader = open(&source, &context(0, 1, true)).unwrap();
    assert_eq!(take(&mut reader, 3), [0, 2, 3]);
    drop((feeder, source, reader));

    let damaged = Path::new("/log/segment-0000000000000002.wal");
    let mut bytes = disk.contents(damaged).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    disk.put(damaged, &bytes);
    let (_feeder, source) = open_channel().unwrap();
    let mut reader = open(&source, &context(0, 1, true)).unwrap();
    let mut taken = Taken::new(usize::MAX);
    let error = drain(&mut reader, &mut taken).unwrap_err().to_string();
    assert!(error.contains("/log/segment-0000000000000002.wal: at byte"), "{error}");
    assert!(error.contains(&format!("where record {} should be", taken.records.len())), "{error}");
    drop((_feeder, source, reader));

    // A bit of the version that has changed makes no newer release.
    bytes[8] = 2;
    disk.put(damaged, &bytes);
    let said = open_channel().err().unwrap();
    assert!(said.contains("the header's checksum is wrong, and there are records"), "{said}");
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn asynchronous_senders_wait_without_a_thread_of_their_own() {
    let place = tempfile::tempdir().unwrap();
    let (feeder, source) = channel::<Vec<u8>>(place.path());
    block_on(feeder.send_async(&vec![0])).unwrap();
    block_on(feeder.send_all_async(&[vec![1], vec![2]])).unwrap();
    block_on(feeder.send_all_async(&[])).unwrap();
    block_on(feeder.try_send(&vec![3]).unwrap()).unwrap();
    let mut reader = open(&source, &context(0, 1, false)).unwrap();
    assert_eq!(take(&mut reader, 4), [[0], [1], [2], [3]]);
    while feeder.try_send(&vec![4; 1_000]).map(|acknowledgement| acknowledgement.wait().unwrap()).is_ok() {}
    let mut waiting = pin!(feeder.send_async(&vec![5; 1_000]));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "there is no room");
    drop((reader, source));
    assert!(matches!(block_on(waiting), Err(WriteAheadError::JobEnded)));
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("log");
    let (feeder, source) = channel::<Vec<u8>>(&directory);
    assert!(matches!(feeder.send(&vec![0; 20_000]), Err(WriteAheadError::TooLong { bytes_max: 16_384, .. })));
    let told = |error: WriteAheadError| error.to_string();
    let taken = try_channel::<Vec<u8>>(&directory).err().map(told).unwrap();
    assert!(taken.contains("cannot be taken") && taken.contains("in use by process"), "{taken}");
    // Whatever it is that is kept there.
    assert!(taken.contains("cannot take the directory"), "{taken}");
    feeder.send_all(&[vec![1], vec![2]]).unwrap();
    let mut reader = open(&source, &context(0, 1, false)).unwrap();
    take(&mut reader, 2);
    let position = reader.position(0);
    drop((reader, source));
    assert!(matches!(feeder.send(&vec![1]), Err(WriteAheadError::JobEnded)));
    drop(feeder);

    let foreign = try_channel::<u32>(&directory).err().map(told).unwrap();
    assert!(foreign.contains("has records of the type `Vec<u8>`, and `u32` is to be sent"), "{foreign}");

    let (_feeder, source) = channel::<Vec<u8>>(&place.path().join("other"));
    let other = source.open(&context(0, 1, false), vec![position]).err().unwrap().to_string();
    assert!(
        other.contains("was taken of the write-ahead log") && other.contains("Name the directory"),
        "{other}"
    );
    let two = source.open(&context(0, 1, false), vec![position; 2]).err().unwrap().to_string();
    assert!(two.contains("2 places in write-ahead logs"), "{two}");

    let segment = directory.join("segment-0000000000000000.wal");
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
    let (_feeder, source) = channel::<Vec<u8>>(&directory);
    let missing = source.open(&context(0, 1, false), vec![position]).err().unwrap().to_string();
    assert!(
        missing.contains("goes on with record 2") && missing.contains("has the records 0 to 0"),
        "{missing}"
    );

    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let no_directory = try_channel::<u32>(&file).err().map(told).unwrap();
    assert!(no_directory.contains("cannot create") && no_directory.contains("file"), "{no_directory}");

    let unmounted = place.path().join("disk/log");
    let no_parent = try_channel::<u32>(&unmounted).err().map(told).unwrap();
    assert!(no_parent.contains("there is no") && no_parent.contains("mount the disk"), "{no_parent}");
    assert!(!place.path().join("disk").exists(), "nothing is made in its place");
}

#[test]
fn a_job_that_is_drained_reads_all_that_was_acknowledged_and_closes_the_channel() {
    let place = tempfile::tempdir().unwrap();
    let env = StreamEnvironment::with_config(JobConfig { name: "draining".into(), ..JobConfig::default() })
        .checkpoints(CheckpointConfig::new(place.path().join("checkpoints")));
    let (feeder, source) = WriteAheadChannel::new(place.path().join("log")).open::<u64>(&env).unwrap();
    let (sink, numbers) = CollectSink::new();
    env.from_source("numbers", source, WatermarkStrategy::none()).sink("numbers", sink);
    feeder.send_all(&(0..5_000).collect::<Vec<_>>()).unwrap();
    let job = env.start().unwrap();
    let sender = thread::spawn(move || {
        for number in 5_000.. {
            match feeder.send(&number) {
                Ok(()) => {}
                Err(WriteAheadError::Closed) => return number,
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!("there is always another number")
    });
    job.monitor().stop_with_savepoint(place.path().join("savepoint"), true).unwrap();
    job.wait().unwrap();
    let sent = sender.join().unwrap();
    assert_eq!(numbers.take(), (0..sent).collect::<Vec<_>>());
}

/// One life of a counting job: `look` is called with each number, and may panic. Returns how it ended.
fn count(
    place: &Path,
    parallelism: usize,
    counts: &Arc<Mutex<BTreeMap<u64, u64>>>,
    feed: impl FnOnce(WriteAheadFeeder<u64>),
    look: impl Fn(u64) + Clone + Send + 'static,
) -> Result<(), Error> {
    let config =
        JobConfig { name: "counting".into(), parallelism, max_parallelism: Some(16), ..JobConfig::default() };
    let checkpoints = CheckpointConfig {
        interval_ms: 2,
        retained_max: 2,
        ..CheckpointConfig::new(place.join("checkpoints"))
    };
    let env = StreamEnvironment::with_config(config).checkpoints(checkpoints);
    let channel = WriteAheadChannel::new(place.join("log")).log_bytes_max(128 << 10);
    let (feeder, source) = channel.open::<u64>(&env).unwrap();
    let seen = Arc::clone(counts);
    env.from_source("numbers", source, WatermarkStrategy::none())
        .uid("numbers")
        .inspect(move |number| look(*number))
        .key_by(|number| number % 7)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .uid("counts")
        .sink(
            "counts",
            CallbackSink::new(move |(key, count): (u64, u64)| {
                let mut counts = seen.lock().unwrap();
                let most = counts.entry(key).or_default();
                *most = count.max(*most);
            }),
        );
    let job = env.start()?;
    feed(feeder);
    job.wait().map(drop)
}

#[test]
fn a_job_that_dies_and_starts_again_counts_each_acknowledged_number_once() {
    const NUMBERS: u64 = 6_000;
    let place = tempfile::tempdir().unwrap();
    let counts = Arc::default();
    let acknowledged = Arc::new(AtomicU64::new(0));
    // Sends until the job is gone: what was not acknowledged was not sent, since the log is well.
    let feed_until_the_end = |feeder: WriteAheadFeeder<u64>| {
        while acknowledged.load(Ordering::SeqCst) < NUMBERS {
            let next = acknowledged.load(Ordering::SeqCst);
            let together: Vec<u64> = (next..(next + 1 + next % 5).min(NUMBERS)).collect();
            match feeder.send_all(&together) {
                Ok(()) => acknowledged.fetch_add(together.len() as u64, Ordering::SeqCst),
                Err(WriteAheadError::JobEnded) => return,
                Err(error) => panic!("{error}"),
            };
        }
        feeder.close().unwrap().wait().unwrap();
    };
    for (parallelism, deadly) in [(1, 10), (2, 1_700), (3, 1_701), (1, 4_000)] {
        let look = move |number| assert_ne!(number, deadly, "the test wants the job to die here");
        let outcome = count(place.path(), parallelism, &counts, feed_until_the_end, look);
        assert!(matches!(outcome, Err(Error::Operator { .. })), "{outcome:?}");
    }
    count(place.path(), 2, &counts, feed_until_the_end, |_| {}).unwrap();
    let expected: BTreeMap<u64, u64> = (0..7).map(|key| (key, (NUMBERS - key).div_ceil(7))).collect();
    assert_eq!(*counts.lock().unwrap(), expected);
    // It had come to its end, and finds that.
    count(place.path(), 1, &counts, |feeder| assert!(feeder.send(&1).is_err()), |_| {}).unwrap();
    assert_eq!(*counts.lock().unwrap(), expected);
}

#[test]
fn a_job_whose_newest_checkpoint_is_damaged_finds_in_the_log_what_the_one_before_needs() {
    const PART: u64 = 1_000;
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("checkpoints");
    let describe = |parallelism| {
        let config = JobConfig {
            name: "counting".into(),
            parallelism,
            max_parallelism: Some(16),
            ..JobConfig::default()
        };
        let checkpoints = CheckpointConfig {
            interval_ms: 3_600_000,
            retained_max: 2,
            retain_on_cancel: true,
            ..CheckpointConfig::new(&directory)
        };
        let env = StreamEnvironment::with_config(config).checkpoints(checkpoints);
        let channel = WriteAheadChannel::new(place.path().join("log")).log_bytes_max(0);
        let (feeder, source) = channel.open::<u64>(&env).unwrap();
        let most = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&most);
        env.from_source("numbers", source, WatermarkStrategy::none())
            .key_by(|_| ())
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .sink(
                "counts",
                CallbackSink::new(move |(_, count)| {
                    seen.fetch_max(count, Ordering::SeqCst);
                }),
            );
        (feeder, env.start().unwrap(), most)
    };
    let send = |feeder: &WriteAheadFeeder<u64>| {
        for from in (0..PART).step_by(50) {
            feeder.send_all(&(from..from + 50).collect::<Vec<_>>()).unwrap();
        }
    };
    let (feeder, job, most) = describe(2);
    for part in 1..=3 {
        send(&feeder);
        while most.load(Ordering::SeqCst) < part * PART {
            thread::yield_now();
        }
        job.monitor().checkpoint().unwrap();
    }
    // There is no room for this unless what only the first checkpoint needs is gone.
    send(&feeder);
    job.cancel();
    assert!(matches!(job.wait(), Err(Error::Cancelled)));
    drop(feeder);

    let mut manifests: Vec<_> =
        fs::read_dir(directory.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    manifests.sort();
    assert_eq!(manifests.len(), 2);
    let mut bytes = fs::read(&manifests[1]).unwrap();
    bytes[60] ^= 1;
    fs::write(&manifests[1], bytes).unwrap();

    let (feeder, job, most) = describe(3);
    feeder.close().unwrap().wait().unwrap();
    let restored_from = job.metrics().checkpoints.restored_from;
    job.wait().unwrap();
    assert_eq!(restored_from, Some(2), "the older one was used");
    assert_eq!(most.load(Ordering::SeqCst), 4 * PART);
}

#[test]
fn a_job_whose_checkpoints_are_gone_does_not_begin_with_what_is_left_of_the_log() {
    const PART: u64 = 2_000;
    let place = tempfile::tempdir().unwrap();
    let start = |parallelism, allows: bool| {
        let config = JobConfig {
            name: "counting".into(),
            parallelism,
            max_parallelism: Some(16),
            restart: RestartStrategy::FixedDelay { attempts_max: 1_000, delay_ms: 1 },
            ..JobConfig::default()
        };
        let checkpoints = CheckpointConfig {
            interval_ms: 3_600_000,
            ..CheckpointConfig::new(place.path().join("checkpoints"))
        };
        let env = StreamEnvironment::with_config(config).checkpoints(checkpoints);
        let channel = WriteAheadChannel::new(place.path().join("log")).log_bytes_max(0);
        let channel = if allows { channel.allow_trimmed_log() } else { channel };
        let (feeder, source) = channel.open::<u64>(&env).unwrap();
        let (sink, numbers) = CollectSink::new();
        env.from_source("numbers", source, WatermarkStrategy::none()).sink("numbers", sink);
        (feeder, env.start().unwrap(), numbers)
    };
    let (feeder, job, _numbers) = start(1, false);
    for from in (0..PART).step_by(50) {
        feeder.send_all(&(from..from + 50).collect::<Vec<_>>()).unwrap();
        let durable = feeder.stats().durable;
        while feeder.stats().read < durable {
            thread::yield_now();
        }
        job.monitor().checkpoint().unwrap();
    }
    let first = feeder.stats().first;
    assert!(first > 0, "nothing was trimmed");
    job.monitor().suspend().unwrap();
    job.wait().unwrap();
    drop(feeder);

    // With its checkpoints it goes on, with any number of workers.
    let (feeder, job, numbers) = start(3, false);
    feeder.send(&PART).unwrap();
    while feeder.stats().read <= PART {
        thread::yield_now();
    }
    job.monitor().suspend().unwrap();
    job.wait().unwrap();
    drop(feeder);
    assert_eq!(numbers.take(), [PART]);

    fs::remove_dir_all(place.path().join("checkpoints")).unwrap();
    let (feeder, job, numbers) = start(2, false);
    // One that begins all the same comes to its end, and the test with it.
    feeder.close().unwrap().wait().unwrap();
    let monitor = job.monitor();
    let said = job.wait().unwrap_err().to_string();
    assert_eq!((numbers.take(), monitor.metrics().checkpoints.restarts), (vec![], 0), "{said}");
    let first = feeder.stats().first;
    for part in [
        "`numbers`",
        &format!("begins with record {first}"),
        "directory of its checkpoints",
        "allow_trimmed_log",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    drop(feeder);

    let (_feeder, job, numbers) = start(2, true);
    job.wait().unwrap();
    assert_eq!(numbers.take(), (first..=PART).collect::<Vec<_>>());
}

/// The name of the variable that tells [`a_process_that_sends`] where to.
const CHILD: &str = "TIDEMILL_WAL_CHILD";

/// A channel with room for everything.
fn roomy_channel(directory: &Path) -> Channel<u64> {
    let env = StreamEnvironment::with_config(JobConfig::default());
    WriteAheadChannel::new(directory).open(&env).unwrap()
}

/// Sends for ever, and says so of each number that was acknowledged. Is run by the test below, as a process of its own.
#[test]
#[ignore = "is run by another test"]
fn a_process_that_sends() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let (feeder, _source) = roomy_channel(Path::new(&directory));
    let sender = |of: u64| {
        let feeder = feeder.clone();
        move || {
            for number in of << 32.. {
                feeder.send(&number).unwrap();
                println!("acknowledged {number}");
            }
        }
    };
    let id = u64::from(std::process::id()) << 2;
    let threads: Vec<_> = (0..4).map(|of| thread::spawn(sender(id | of))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn what_a_killed_process_was_told_is_there_for_the_next() {
    let place = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for lines in [1, 20, 100, 150] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "a_process_that_sends"])
            .env(CHILD, place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        // The first may stand behind what the test harness says.
        let number = |line: String| line.split_once("acknowledged ")?.1.parse::<u64>().ok();
        let mut numbers = output.lines().map_while(Result::ok).filter_map(number);
        acknowledged.extend(numbers.by_ref().take(lines));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it could still say before it was gone.
        acknowledged.extend(numbers);
    }
    assert!(acknowledged.len() >= 271, "{} numbers", acknowledged.len());
    let (feeder, source) = roomy_channel(place.path());
    feeder.close().unwrap().wait().unwrap();
    let mut taken = Taken::new(100);
    drain(&mut open(&source, &context(0, 1, false)).unwrap(), &mut taken).unwrap();
    let there: BTreeSet<u64> = taken.records.iter().copied().collect();
    assert_eq!(there.len(), taken.records.len(), "one was there twice");
    assert!(
        acknowledged.is_subset(&there),
        "lost: {:?}",
        acknowledged.difference(&there).collect::<Vec<_>>()
    );
    // In each life, each of four threads may have had one that it could not say of, and one under way.
    assert!(there.len() <= acknowledged.len() + 4 * 4 * 2, "{} of {}", acknowledged.len(), there.len());
}

/// `cargo test --release -p tidemill-operators --test source_write_ahead -- --ignored --nocapture acknowledgements`
#[test]
#[ignore = "a measurement, to be run by hand"]
fn acknowledgements_per_second() {
    let place =
        std::env::var_os("TIDEMILL_WAL_DIR").map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    for (senders, seconds) in [(1_u64, 5), (8, 5), (64, 5)] {
        let env = StreamEnvironment::with_config(JobConfig::default());
        let (feeder, source) =
            WriteAheadChannel::new(place.path().join(senders.to_string())).open::<[u64; 12]>(&env).unwrap();
        let until = Instant::now() + Duration::from_secs(seconds);
        let threads: Vec<_> = (0..senders)
            .map(|sender| {
                let feeder = feeder.clone();
                thread::spawn(move || {
                    let mut took = Vec::new();
                    while Instant::now() < until {
                        let began = Instant::now();
                        feeder.send(&[sender; 12]).unwrap();
                        took.push(began.elapsed());
                    }
                    took
                })
            })
            .collect();
        let mut took: Vec<Duration> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        took.sort_unstable();
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
        println!(
            "{senders} senders, 96 bytes: {} acknowledged/s, p50 {:?}, p99 {:?}",
            took.len() as u64 / seconds,
            at(0.5),
            at(0.99)
        );
        drop(source);
    }
}
