//! `hop`: one record from core 0 to core 1 and back, through the real exchange, both workers spinning.
//!
//! A closed loop: the source on core 0 emits a record that carries its send time, an exchange brings it to core 1, a map
//! makes its answer there, a second exchange brings that back to core 0, where the job's end publishes it. Only then
//! does the source send the next one. What is recorded is the whole round trip, two exchanges, from before the
//! emission to the source's seeing the answer, with the one clock reading that each trip needs.
//!
//! The peer is what the exchange is built on and nothing else: two pinned threads that poll two bare `rtrb` rings,
//! with the same clock reading per trip. Rounds alternate; the histograms of all rounds are merged.

use std::{
    hint,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tidemill::{
    model::source::{Flow, Output, Polled, Reader, Source, SubtaskContext},
    platform::{Cores, GlommioPlatform, Nanos},
    prelude::*,
};

use super::Options;
use crate::{
    error::BenchError,
    floor,
    report::{Latencies, Line, Reporter},
    versus::Versus,
};

/// What the peer is called in reports.
const PEER: &str = "two rtrb rings";

/// Trips of a round that are not recorded: they fault pages in.
const WARM_UP: u64 = 1_000;

/// Longer than any round, so that no worker ever parks.
const SPIN_US_MAX: u64 = 60_000_000;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    if Cores::of_this_process().usable() < 2 {
        return Err(BenchError::BadOption(
            "`hop` needs two cores: with one, both ends would take turns".into(),
        ));
    }
    let (trips, rounds) = options.pick((400_000, 9), (50_000, 3));
    let quiet = Duration::from_millis(options.pick(2_000, 300));
    let mut noise = floor::measure(2, quiet);
    let (mut ours, mut peers) = (floor::histogram(), floor::histogram());
    let versus = Versus::alternate(
        rounds,
        || Ok::<_, BenchError>(merge(&mut ours, &through_the_exchange(trips)?)),
        || Ok(merge(&mut peers, &over_bare_rings(trips)?)),
    )?;
    merge(&mut noise, &floor::measure(2, quiet));
    let trips = trips * (rounds as u64 + 1);
    let line = Line::new("hop", "round-trip", 2).versus(&versus, "us p50", PEER);
    reporter.print(&line.over(trips, None).latencies(&ours, &noise))?;
    let mut line = Line::new("hop", "two-bare-rings", 2).over(trips, None);
    line.latencies = Some(Latencies::of_nanos(&peers));
    reporter.print(&line)
}

/// Adds a round to all rounds; gives the round's median in microseconds.
fn merge(all: &mut Histogram<u64>, round: &Histogram<u64>) -> f64 {
    all.add(round).expect("all histograms have the same bounds");
    round.value_at_quantile(0.5) as f64 / 1e3
}

#[derive(Record, Clone)]
struct Ping {
    number: u64,
    sent_at: u64,
}

/// One round through a job.
fn through_the_exchange(trips: u64) -> Result<Histogram<u64>, BenchError> {
    let platform = GlommioPlatform::new().spin_us_max(SPIN_US_MAX);
    let config = JobConfig { name: "hop".to_owned(), parallelism: 2, ..JobConfig::default() };
    let env = StreamEnvironment::on(Arc::new(platform), config);
    let answered = Arc::new(AtomicU64::new(0));
    let result = Arc::new(Mutex::new(floor::histogram()));
    let pings = Pings { trips, answered: Arc::clone(&answered), result: Arc::clone(&result) };
    env.from_source("pings", pings, WatermarkStrategy::none())
        .partition_custom(|_, _| 1)
        .map(|ping| Ping { number: ping.number.to_native(), sent_at: ping.sent_at.to_native() })
        .partition_custom(|_, _| 0)
        .for_each(move |pong| answered.store(pong.number.to_native(), Ordering::Relaxed));
    env.execute()?;
    let recorded = result.lock().unwrap_or_else(PoisonError::into_inner).clone();
    check(&recorded, trips)?;
    Ok(recorded)
}

/// Sends a ping when the one before it was answered. Both ends live on one core, so that what they share stays in
/// its cache.
struct Pings {
    trips: u64,
    answered: Arc<AtomicU64>,
    result: Arc<Mutex<Histogram<u64>>>,
}

impl Source for Pings {
    type Item = Ping;
    type Split = ();
    type Reader = PingReader;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![()])
    }

    fn open(&self, context: &SubtaskContext, _splits: Vec<()>) -> Result<PingReader, BoxError> {
        Ok(PingReader {
            // The other subtask's share is empty.
            trips: if context.subtask == 0 { self.trips } else { 0 },
            sent: 0,
            sent_at: 0,
            start: Instant::now(),
            answered: Arc::clone(&self.answered),
            recorded: floor::histogram(),
            result: Arc::clone(&self.result),
        })
    }
}

struct PingReader {
    trips: u64,
    sent: u64,
    sent_at: u64,
    start: Instant,
    answered: Arc<AtomicU64>,
    recorded: Histogram<u64>,
    result: Arc<Mutex<Histogram<u64>>>,
}

impl Reader for PingReader {
    type Item = Ping;
    type Split = ();

    fn position(&self, _split: usize) {}

    #[inline]
    fn poll<O: Output<Ping>>(&mut self, output: &mut O, _now: Nanos) -> Result<Polled, BoxError> {
        if self.answered.load(Ordering::Relaxed) < self.sent {
            return Ok(Polled::Pending(None));
        }
        let now = self.start.elapsed().as_nanos() as u64;
        if self.sent > WARM_UP {
            self.recorded.saturating_record(now - self.sent_at);
        }
        if self.sent == self.trips {
            merge(&mut self.result.lock().unwrap_or_else(PoisonError::into_inner), &self.recorded);
            output.finish_split(0);
            return Ok(Polled::End);
        }
        self.sent += 1;
        self.sent_at = now;
        match output.emit(0, Ping { number: self.sent, sent_at: now }) {
            Flow::Yield => Ok(Polled::More),
            Flow::Continue => Ok(Polled::Pending(None)),
        }
    }
}

/// One round over two rings between two pinned threads.
fn over_bare_rings(trips: u64) -> Result<Histogram<u64>, BenchError> {
    let cores = Cores::of_this_process().assign(2);
    let (mut out, mut there) = rtrb::RingBuffer::<Ping>::new(8);
    let (mut back, mut home) = rtrb::RingBuffer::<Ping>::new(8);
    let recorded = thread::scope(|scope| {
        scope.spawn(|| {
            pin(cores[1]);
            for _ in 0..trips {
                let ping = poll(&mut there);
                // The ring has room: one ping is under way.
                let _ = back.push(Ping { number: ping.number, sent_at: ping.sent_at });
            }
        });
        let pinger = scope.spawn(|| {
            pin(cores[0]);
            let mut recorded = floor::histogram();
            let start = Instant::now();
            let mut sent_at = 0;
            for number in 1..=trips {
                let _ = out.push(Ping { number, sent_at });
                poll(&mut home);
                let now = start.elapsed().as_nanos() as u64;
                if number > WARM_UP {
                    recorded.saturating_record(now - sent_at);
                }
                sent_at = now;
            }
            recorded
        });
        pinger.join()
    });
    let recorded =
        recorded.map_err(|_| BenchError::Peer { peer: PEER, reason: "a thread panicked".into() })?;
    check(&recorded, trips)?;
    Ok(recorded)
}

fn poll(ring: &mut rtrb::Consumer<Ping>) -> Ping {
    loop {
        match ring.pop() {
            Ok(ping) => return ping,
            Err(_) => hint::spin_loop(),
        }
    }
}

fn pin(core: Option<usize>) {
    if let Some(id) = core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
}

/// Every trip but the first ones is in the histogram.
fn check(recorded: &Histogram<u64>, trips: u64) -> Result<(), BenchError> {
    if recorded.len() + WARM_UP == trips {
        return Ok(());
    }
    let difference = format!("{} trips instead of {}", recorded.len(), trips - WARM_UP);
    Err(BenchError::WrongAnswer { side: "a side".into(), query: "hop".into(), difference })
}
