//! `soak-wake`: millions of parks and wake-ups from foreign threads at random gaps, and not one may be lost.
//!
//! Four threads wake one worker that parks as soon as it is idle (`spin_us_max(0)`), with a bound on the park far beyond
//! the watchdog's patience (`park_ms_max`), so that the bound cannot hide a lost wake-up. The run is made of chunks,
//! pinned and floating workers in turn, until so many *parks* were counted: wake-ups alone would be too cheap a number,
//! since a worker that is awake anyway takes several at once. Some parks are over before the thread sleeps, since a wake-up
//! comes between the announcement and the sleep, which is where one could be lost; `sleeps` are those that the kernel
//! has seen. A chunk that does not end is a hang: the watchdog ends the process.

use std::{
    process,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use tidemill::{
    model::error::Error,
    platform::{
        GlommioPlatform,
        soak::{Soak, SoakReport},
    },
};

use super::Options;
use crate::{
    error::BenchError,
    floor, kernel,
    report::{Latencies, Line, Reporter},
};

/// A wake-up that takes longer is lost.
const WATCHDOG: Duration = Duration::from_secs(30);

/// A chunk that takes longer hangs: ten times what one takes on a busy machine, and several watchdogs.
const CHUNK_MAX: Duration = Duration::from_secs(300);

/// Far beyond both.
const PARK_MS_MAX: u64 = 600_000;

const SENDERS: usize = 4;

/// How the platform names its workers' threads, which stay after their job.
const WORKER: &str = "tidemill";

/// Longest pause of a sender between two wake-ups.
const GAP_NS_MAX: u64 = 20_000;

/// What all chunks came to.
struct Totals {
    sent: u64,
    lost: u64,
    parks: u64,
    latency_ns: hdrhistogram::Histogram<u64>,
}

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let parks_wanted = options.pick(5_000_000, 100_000);
    let cycles = options.pick(100_000, 10_000);
    let (start, alive) = (Instant::now(), watch());
    let slept = kernel::sleeps_of_threads(WORKER)?;
    let mut totals = Totals { sent: 0, lost: 0, parks: 0, latency_ns: floor::histogram() };
    for chunk in 0.. {
        let report = soak(chunk, cycles)?;
        totals.add(&report);
        // It listens until `alive` is dropped.
        let _ = alive.send(());
        if totals.lost > 0 || totals.parks >= parks_wanted {
            break;
        }
    }
    let figure = |case, value: f64, unit| Line::new("soak-wake", case, 1).value(value, unit);
    let mut cycles = figure("cycles", totals.sent as f64, "wake-ups");
    cycles.latencies = Some(Latencies::of_nanos(&totals.latency_ns));
    reporter.print(&cycles)?;
    reporter.print(&figure("parks", totals.parks as f64, "parks"))?;
    let slept = kernel::sleeps_of_threads(WORKER)? - slept;
    reporter.print(&figure("sleeps", slept as f64, "sleeps"))?;
    reporter.print(&figure("lost", totals.lost as f64, "wake-ups"))?;
    reporter.print(&figure("duration", start.elapsed().as_secs_f64(), "s"))?;
    match totals.lost {
        0 => Ok(()),
        lost => Err(BenchError::LostWakeUps { lost, patience: WATCHDOG }),
    }
}

/// One chunk; even ones with a pinned worker, odd ones with one that the kernel places.
fn soak(chunk: u64, cycles: u64) -> Result<SoakReport, BenchError> {
    let platform =
        GlommioPlatform::new().pin(chunk.is_multiple_of(2)).spin_us_max(0).park_ms_max(PARK_MS_MAX);
    let soak = Soak { senders: SENDERS, cycles, gap_ns_max: GAP_NS_MAX, watchdog: WATCHDOG, seed: chunk };
    Ok(soak.run(&platform).map_err(Error::from)?)
}

impl Totals {
    fn add(&mut self, report: &SoakReport) {
        self.sent += report.sent;
        self.lost += report.lost;
        self.parks += report.parks;
        self.latency_ns.add(&report.latency_ns).expect("no wake-up outlasts the watchdog");
    }
}

/// Ends the process when nothing is sent for [`CHUNK_MAX`]: whoever hangs cannot say so.
fn watch() -> mpsc::Sender<()> {
    let (alive, heard) = mpsc::channel();
    thread::spawn(move || {
        loop {
            match heard.recv_timeout(CHUNK_MAX) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("soak-wake: no end in {CHUNK_MAX:?}: a worker or a sender hangs");
                    process::exit(1);
                }
            }
        }
    });
    alive
}
