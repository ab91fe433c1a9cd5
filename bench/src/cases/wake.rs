//! `wake`: a record that comes to a parked core, through the product's own path, and what a parked job costs.
//!
//! A job of one worker reads a channel; a thread outside, on another core, sends records with random gaps of 1 to
//! 3 ms, and each is timed from just before `send` to the callback at the end of the job. The worker does not spin at all
//! (`spin_us_max(0)`), so it parks some microseconds after each record; that it did is not believed but counted:
//! the kernel's count of voluntary context switches of its thread, beside the number of records.
//!
//! The peer is the least that any thread which sleeps can do: `std::thread::park`, woken by `unpark` after a push to a bare ring, on
//! the same two cores with the same gaps, in turn with ours.

use std::{
    hint,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tidemill::{
    platform::{Cores, GlommioPlatform, Random},
    prelude::*,
};

use super::Options;
use crate::{
    error::BenchError,
    floor, kernel,
    report::{Latencies, Line, Reporter},
    versus::{Rounds, Versus},
};

/// What the peer is called in reports.
const PEER: &str = "bare futex wake";

/// Shortest and longest pause between two records.
const GAP_NS: std::ops::Range<u64> = 1_000_000..3_000_000;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    if Cores::of_this_process().usable() < 2 {
        return Err(BenchError::BadOption("`wake` needs two cores: one sleeps while the other sends".into()));
    }
    let (records, rounds) = options.pick((2_000, 5), (200, 2));
    let quiet = Duration::from_millis(options.pick(2_000, 300));
    let mut noise = floor::measure(2, quiet);
    let (mut ours, mut peers) = (floor::histogram(), floor::histogram());
    let mut parks = Vec::new();
    let versus = Versus::alternate(
        rounds,
        || {
            let (recorded, sleeps) = to_a_parked_job(records)?;
            parks.push(sleeps as f64 / records as f64);
            Ok::<_, BenchError>(merge(&mut ours, &recorded))
        },
        || Ok(merge(&mut peers, &to_a_parked_thread(records)?)),
    )?;
    merge(&mut noise, &floor::measure(2, quiet));
    let records = records * (rounds as u64 + 1);
    let line = Line::new("wake", "record-to-parked-core", 1).versus(&versus, "us p50", PEER);
    reporter.print(&line.over(records, None).latencies(&ours, &noise))?;
    let mut line = Line::new("wake", "bare-futex", 1).over(records, None);
    line.latencies = Some(Latencies::of_nanos(&peers));
    reporter.print(&line)?;
    let sleeps = Line::new("wake", "sleeps-per-record", 1).rounds(&Rounds::from(parks), "sleeps");
    reporter.print(&sleeps.over(records, None))?;
    let silences = Rounds::measure(options.pick(5, 2), || {
        share_of_a_core(options.cores, Duration::from_millis(options.pick(2_000, 700)))
    })?;
    reporter.print(&Line::new("wake", "parked-job", options.cores).rounds(&silences, "% of a core"))
}

/// Adds a round to all rounds; gives the round's median in microseconds.
fn merge(all: &mut Histogram<u64>, round: &Histogram<u64>) -> f64 {
    all.add(round).expect("all histograms have the same bounds");
    round.value_at_quantile(0.5) as f64 / 1e3
}

/// One round through a job; with it, how often the worker's thread slept meanwhile.
fn to_a_parked_job(records: u64) -> Result<(Histogram<u64>, u64), BenchError> {
    let platform = GlommioPlatform::new().spin_us_max(0);
    let config = JobConfig { name: "wake".to_owned(), ..JobConfig::default() };
    let env = StreamEnvironment::on(Arc::new(platform), config);
    let (feeder, source) = channel::<u64>(1_024);
    let result = Arc::new(Mutex::new(floor::histogram()));
    let worker = Arc::new(OnceLock::<PathBuf>::new());
    let start = Instant::now();
    let (noted, its_worker) = (Arc::clone(&result), Arc::clone(&worker));
    env.from_source("records", source, WatermarkStrategy::none()).for_each(move |sent_at| {
        let late = (start.elapsed().as_nanos() as u64).saturating_sub(sent_at);
        // The first record only makes the worker known.
        if its_worker.get().is_some() {
            noted.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(late);
        } else {
            let _ = its_worker.set(kernel::this_thread());
        }
    });
    let job = env.start()?;
    let send = || feeder.send(start.elapsed().as_nanos() as u64).is_ok();
    let slept = on_the_other_core(|| {
        let mut random = Random::from_seed(records);
        let mut going_on = send();
        while going_on && worker.get().is_none() {
            thread::yield_now();
        }
        let slept = || worker.get().and_then(|thread| kernel::sleeps_of(thread)).unwrap_or_default();
        let before = slept();
        for _ in 0..records {
            pause(&mut random);
            going_on = going_on && send();
        }
        pause(&mut random);
        slept().saturating_sub(before)
    })?;
    drop(feeder);
    job.wait()?;
    let recorded = result.lock().unwrap_or_else(PoisonError::into_inner).clone();
    check(&recorded, records)?;
    Ok((recorded, slept))
}

/// One round with a thread that does nothing but sleep: what comes is in a bare ring.
fn to_a_parked_thread(records: u64) -> Result<Histogram<u64>, BenchError> {
    let (mut ring, mut inbox) = rtrb::RingBuffer::<u64>::new(1_024);
    let start = Instant::now();
    let recorded = thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            pin(0);
            let mut recorded = floor::histogram();
            while recorded.len() < records {
                match inbox.pop() {
                    Ok(sent_at) => recorded
                        .saturating_record((start.elapsed().as_nanos() as u64).saturating_sub(sent_at)),
                    Err(_) => thread::park(),
                }
            }
            recorded
        });
        let sent = on_the_other_core(|| {
            let mut random = Random::from_seed(records);
            for _ in 0..records {
                pause(&mut random);
                while ring.push(start.elapsed().as_nanos() as u64).is_err() {
                    thread::yield_now();
                }
                sleeper.thread().unpark();
            }
        });
        let recorded = sleeper.join().map_err(|_| panicked());
        sent.and(recorded)
    })?;
    check(&recorded, records)?;
    Ok(recorded)
}

/// The share of a core that this whole process uses while a job waits for its first record, in percent.
fn share_of_a_core(cores: usize, silence: Duration) -> Result<f64, BenchError> {
    let config = JobConfig { name: "silence".to_owned(), parallelism: cores, ..JobConfig::default() };
    let env = StreamEnvironment::with_config(config);
    let (feeder, source) = channel::<u64>(1_024);
    env.from_source("records", source, WatermarkStrategy::none())
        .key_by(|n| *n)
        .fold(0, |sum, _| *sum += 1)
        .for_each(drop);
    let job = env.start()?;
    thread::sleep(Duration::from_millis(50));
    let (start, before) = (Instant::now(), kernel::cpu_time_of_this_process()?);
    thread::sleep(silence);
    let used = kernel::cpu_time_of_this_process()?.saturating_sub(before);
    let share = 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64();
    drop(feeder);
    job.wait()?;
    Ok(share)
}

/// Runs the sender on a thread of its own, away from the core that sleeps.
fn on_the_other_core<R: Send>(sender: impl FnOnce() -> R + Send) -> Result<R, BenchError> {
    let sender = || {
        pin(1);
        sender()
    };
    thread::scope(|scope| scope.spawn(sender).join()).map_err(|_| panicked())
}

/// Waits awake: a sender that slept itself would add its own awakening to what it measures.
fn pause(random: &mut Random) {
    let gap = Duration::from_nanos(GAP_NS.start + random.below(GAP_NS.end - GAP_NS.start));
    let start = Instant::now();
    while start.elapsed() < gap {
        hint::spin_loop();
    }
}

/// Ties this thread to the core that a job would give to this worker.
fn pin(worker: usize) {
    if let Some(id) = Cores::of_this_process().assign(2)[worker] {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
}

fn panicked() -> BenchError {
    BenchError::Peer { peer: PEER, reason: "a thread panicked".into() }
}

/// Every record arrived.
fn check(recorded: &Histogram<u64>, records: u64) -> Result<(), BenchError> {
    if recorded.len() == records {
        return Ok(());
    }
    let difference = format!("{} records of {records} arrived", recorded.len());
    Err(BenchError::WrongAnswer { side: "a side".into(), query: "wake".into(), difference })
}
