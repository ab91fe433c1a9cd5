//! From a record's birth to the moment at which a reader of the file sink may see it: exactly-once, so behind a commit.

use std::{
    fs,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tidemill::prelude::*;

use super::checkpoints;
use crate::{
    cases::{Options, scratch::Scratch},
    error::BenchError,
    report::{Latencies, Line, Reporter},
    tidemill::NAME,
};

/// Records per second that are fed.
const RATE: u64 = 20_000;
/// Between two looks of the reader.
const LOOK: Duration = Duration::from_micros(500);

/// Room for the news of one look at least.
const NEWS_BYTES: usize = 4096;

/// Feeds records at a fixed rate, and reads the rows of every file as soon as it is visible.
pub(super) fn run(
    row: &str,
    interval_ms: u64,
    options: &Options,
    reporter: &mut Reporter,
) -> Result<(), BenchError> {
    let records = options.pick(20 * RATE, RATE / 10);
    let place = Scratch::new(row)?;
    let rows = place.path().join("rows");
    fs::create_dir_all(&rows)?;
    let news = watch(&rows)?;
    let start = Instant::now();
    let nanos = move || start.elapsed().as_nanos() as u64;
    let (feeder, source) = channel::<u64>(1 << 16);
    let env = StreamEnvironment::with_config(JobConfig {
        name: "latency".to_owned(),
        parallelism: options.cores,
        checkpoints: Some(checkpoints(place.path(), interval_ms)),
        ..JobConfig::default()
    });
    env.from_source("births", source, WatermarkStrategy::none())
        .key_by(|born| born % 64)
        .fold((0, 0), |latest: &mut (u64, u64), born| *latest = (latest.0 + 1, born.to_native()))
        .map(|(_, (_, born))| (born,))
        .sink("rows", FileSink::csv(&rows).header(false));
    let job = env.start()?;
    let over = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let over = Arc::clone(&over);
        move || read(&rows, &news, &over, nanos)
    });
    for record in 0..records {
        let due = Duration::from_nanos(record * 1_000_000_000 / RATE);
        while start.elapsed() < due {
            thread::sleep(Duration::from_micros(200));
        }
        if feeder.send(nanos()).is_err() {
            break;
        }
    }
    drop(feeder);
    let metrics = job.wait()?;
    over.store(true, Ordering::Release);
    let seen = reader.join().map_err(|_| wrong("its reader panicked".to_owned()))??;
    if seen.len() != records {
        return Err(wrong(format!("{} rows are visible of {records} records", seen.len())));
    }
    let ms = |quantile| seen.value_at_quantile(quantile) as f64 / 1e6;
    let mut line = Line::new("checkpoint", row, options.cores).value(ms(0.99), "ms");
    line.latencies = Some(Latencies::of_nanos(&seen));
    reporter.print(&line.over(records, Some(RATE)))?;
    let completed = metrics.checkpoints.completed as f64;
    let name = format!("{row}-completed");
    reporter.print(&Line::new("checkpoint", &name, options.cores).value(completed, "checkpoints"))
}

fn wrong(difference: String) -> BenchError {
    BenchError::WrongAnswer { side: NAME.to_owned(), query: "latency".to_owned(), difference }
}

/// Has the kernel tell of every file that appears in a directory. A reader that lists thousands of files at each look takes a core from
/// the job, and milliseconds for each look.
fn watch(directory: &Path) -> Result<OwnedFd, BenchError> {
    let news = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
    inotify::add_watch(&news, directory, WatchFlags::CREATE | WatchFlags::MOVED_TO)
        .map_err(std::io::Error::from)?;
    Ok(news)
}

/// How old each row is when it is first seen, in nanoseconds.
fn read(
    rows: &Path,
    news: &OwnedFd,
    over: &AtomicBool,
    nanos: impl Fn() -> u64,
) -> Result<Histogram<u64>, BenchError> {
    let mut ages = Histogram::new(3).map_err(|error| wrong(error.to_string()))?;
    let mut buffer = [MaybeUninit::uninit(); NEWS_BYTES];
    let mut news = inotify::Reader::new(news, &mut buffer);
    loop {
        let was_over = over.load(Ordering::Acquire);
        loop {
            let event = match news.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => break,
                Err(error) => return Err(std::io::Error::from(error).into()),
            };
            let name = event.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default();
            let path = rows.join(name);
            // A directory is none of the sink's files.
            if name.is_empty() || path.is_dir() {
                continue;
            }
            let seen = nanos();
            for line in fs::read_to_string(&path)?.lines() {
                let born: u64 =
                    line.parse().map_err(|_| wrong(format!("`{line}` in {} is no row", path.display())))?;
                // It grows as needed: there is no value that it refuses.
                let _always_fits = ages.record(seen.saturating_sub(born).max(1));
            }
        }
        if was_over {
            return Ok(ages);
        }
        thread::sleep(LOOK);
    }
}
