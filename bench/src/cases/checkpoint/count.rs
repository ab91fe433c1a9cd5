//! A rolling count by many keys: the job with the most state per record.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tidemill::prelude::*;

use super::checkpoints;
use crate::{
    cases::{Options, scratch::Scratch},
    error::BenchError,
    memory::{self, Spare},
    report::{Latencies, Line, Reporter},
    versus::{Rounds, Versus, per_second},
};

/// A record: a key, and a number that is added up.
#[derive(Record, Clone, Copy)]
struct Touch {
    key: u64,
    amount: u64,
}

/// What is kept by key: how many there were, and with more than one word, which are four, what they add up to, their exclusive
/// or and the largest.
type Sums<const WORDS: usize> = [u64; WORDS];

/// How often the memory that the records take is touched for a run, so that there is more than the state takes at its largest,
/// whatever is sealed: so much before it begins, and as much to be had when its first records are counted.
const TOUCHED: usize = 4;

/// One job, which keeps so many words of 8 bytes by key.
#[derive(Clone)]
pub(super) struct Count<const WORDS: usize> {
    /// Different keys.
    pub(super) keys: u64,
    /// Records after each key was touched once.
    pub(super) records: u64,
    /// Records after these, by which the memory of what changes no longer grows.
    pub(super) later: u64,
    /// Keys that these touch, from 0 on.
    pub(super) touched: u64,
    /// Workers.
    pub(super) cores: usize,
}

/// When the records behind the first touch of all keys began and ended, in nanoseconds since the start.
#[derive(Default)]
struct Meter {
    began: AtomicU64,
    /// When the later ones began.
    turned: AtomicU64,
    ended: AtomicU64,
    /// While this is set, more of the same records come before those that are counted.
    is_held: AtomicBool,
    /// Memory to be had when they begin.
    memory: Mutex<Option<Spare>>,
}

impl<const WORDS: usize> Count<WORDS> {
    /// The one whose cost is compared, and in how many rounds.
    pub(super) fn of_cost(options: &Options) -> (Self, usize) {
        let (keys, records, later, rounds) =
            options.pick((10_000_000, 60_000_000, 90_000_000, 3), (100_000, 1_000_000, 1_000_000, 1));
        (Self { keys, records, later, touched: keys, cores: options.cores }, rounds)
    }

    /// Adds the job to an environment; what it hands on goes to `each`.
    pub(super) fn describe(
        &self,
        env: &StreamEnvironment,
        each: impl FnMut((u64, Sums<WORDS>)) + Clone + Send + 'static,
    ) {
        self.metered(env, &Arc::default(), Instant::now(), each);
    }

    fn metered(
        &self,
        env: &StreamEnvironment,
        meter: &Arc<Meter>,
        start: Instant,
        each: impl FnMut((u64, Sums<WORDS>)) + Clone + Send + 'static,
    ) {
        let Self { keys, records, later, touched, .. } = *self;
        let meter = Arc::clone(meter);
        let source = from_parallel_iter(move |subtask, parallelism| {
            let (index, of) = (subtask as u64, parallelism as u64);
            let first = (keys * index / of..keys * (index + 1) / of).map(|key| Touch { key, amount: 1 });
            let share = |from, number| from + number * index / of..from + number * (index + 1) / of;
            let (share, rest) = (share(0, records), share(records, later));
            let (begins, held) = (Arc::clone(&meter), Arc::clone(&meter));
            let (turns, ends) = (Arc::clone(&meter), Arc::clone(&meter));
            let now = move || start.elapsed().as_nanos() as u64;
            let begin = std::iter::once_with(move || {
                drop(begins.memory.lock().unwrap_or_else(PoisonError::into_inner).take());
                let _ = begins.began.compare_exchange(0, now(), Ordering::Relaxed, Ordering::Relaxed);
                Touch { key: 0, amount: 0 }
            });
            let turn = std::iter::once_with(move || {
                turns.turned.fetch_max(now(), Ordering::Relaxed);
                Touch { key: 0, amount: 0 }
            });
            let end = std::iter::once_with(move || {
                ends.ended.fetch_max(now(), Ordering::Relaxed);
                Touch { key: 0, amount: 0 }
            });
            let touch = move |n| Touch { key: pick(n, touched), amount: n };
            let more = (0..).take_while(move |_| held.is_held.load(Ordering::Relaxed)).map(touch);
            let counted = share.map(touch).chain(turn).chain(rest.map(touch));
            first.chain(begin).chain(more).chain(counted).chain(end)
        });
        env.from_source("touches", source, WatermarkStrategy::none())
            .key_by(|touch| touch.key)
            .fold([0; WORDS], |sums: &mut Sums<WORDS>, touch| {
                sums[0] += 1;
                if let [_, sum, mixed, largest] = sums.as_mut_slice() {
                    let amount = touch.amount.to_native();
                    *sum = sum.wrapping_add(amount);
                    *mixed ^= amount;
                    *largest = amount.max(*largest);
                }
            })
            .uid("count")
            .for_each(each);
    }

    fn environment(&self, checkpoints: Option<CheckpointConfig>) -> StreamEnvironment {
        let config = JobConfig {
            name: "count".to_owned(),
            parallelism: self.cores,
            max_parallelism: Some(128),
            checkpoints,
            ..JobConfig::default()
        };
        StreamEnvironment::with_config(config)
    }

    /// Runs it, just after as much memory as it needs was touched; the times that the records took behind the first touch of all
    /// keys and the later ones behind them, and what there is to know.
    pub(super) fn run(
        &self,
        checkpoints: Option<CheckpointConfig>,
    ) -> Result<([Duration; 2], JobMetrics), BenchError> {
        let touch = || memory::touch(self.keys as usize * size_of::<(u64, Sums<WORDS>)>() * TOUCHED);
        let (at_first, later) = (touch()?, touch()?);
        drop(at_first);
        let env = self.environment(checkpoints);
        let meter = Arc::new(Meter { memory: Mutex::new(Some(later)), ..Meter::default() });
        self.metered(&env, &meter, Instant::now(), |counted| {
            std::hint::black_box(counted);
        });
        let metrics = env.execute()?;
        let [began, turned, ended] =
            [&meter.began, &meter.turned, &meter.ended].map(|time| time.load(Ordering::Relaxed));
        let took = [turned.saturating_sub(began), ended.saturating_sub(turned)];
        Ok((took.map(Duration::from_nanos), metrics))
    }

    /// Compares `ours`, which is it [run](Self::run) together with something, with the count alone: in its first records and in the
    /// later ones.
    pub(super) fn compare(
        &self,
        row: &str,
        rounds: usize,
        mut ours: impl FnMut() -> Result<[Duration; 2], BenchError>,
        alone: &'static str,
        reporter: &mut Reporter,
    ) -> Result<(), BenchError> {
        let Self { records, later, cores, .. } = *self;
        let (mut ours_later, mut alone_later) = (Vec::new(), Vec::new());
        let rates = |took: [Duration; 2], of_later: &mut Vec<f64>| {
            of_later.push(per_second(later, took[1]));
            per_second(records, took[0])
        };
        let versus = Versus::alternate(
            rounds,
            || Ok::<_, BenchError>(rates(ours()?, &mut ours_later)),
            || Ok(rates(self.run(None)?.0, &mut alone_later)),
        )?;
        let line = |row: &str| Line::new("checkpoint", row, cores);
        reporter.print(&line(row).versus(&versus, "records/s", alone).over(records, None))?;
        let [ours, peer] =
            [ours_later, alone_later].map(|mut rates| Rounds::from(rates.split_off(rates.len() - rounds)));
        let row_later = line(&format!("{row}-later"));
        reporter.print(&row_later.versus(&Versus { ours, peer }, "records/s", alone).over(later, None))
    }
}

/// The nth of numbers below `end` that have no pattern.
fn pick(n: u64, end: u64) -> u64 {
    let mixed = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    // Not the remainder: dividing would take a good part of what a record takes.
    ((u128::from(mixed ^ (mixed >> 32)) * u128::from(end)) >> 64) as u64
}

pub(super) fn cost<const WORDS: usize>(
    row: &str,
    interval_ms: u64,
    options: &Options,
    reporter: &mut Reporter,
) -> Result<(), BenchError> {
    let (count, rounds) = Count::<WORDS>::of_cost(options);
    let (mut completed, mut bytes) = (0, 0);
    let with_checkpoints = || {
        let place = Scratch::new(row)?;
        let (took, metrics) = count.run(Some(checkpoints(place.path(), interval_ms)))?;
        (completed, bytes) = (metrics.checkpoints.completed, metrics.checkpoints.bytes_written);
        Ok(took)
    };
    count.compare(row, rounds, with_checkpoints, "without checkpoints", reporter)?;
    let figure = |what: &str, value: f64, unit| {
        Line::new("checkpoint", &format!("{row}-{what}"), options.cores).value(value, unit)
    };
    reporter.print(&figure("completed", completed as f64, "checkpoints"))?;
    reporter.print(&figure("written", bytes as f64 / f64::from(1 << 20), "MiB"))
}

pub(super) fn stall(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (keys, records) = options.pick((10_000_000, 1_200_000_000), (100_000, 4_000_000));
    let count = Count::<4> { keys, records, later: 0, touched: keys, cores: options.cores };
    let place = Scratch::new("stall")?;
    let (_, metrics) = count.run(Some(checkpoints(place.path(), 100)))?;
    let stalls = &metrics.checkpoints.stalls;
    let p99 = stalls.quantile(0.99) as f64 / 1e3;
    let mut line = Line::new("checkpoint", "stall", options.cores).value(p99, "µs");
    line.latencies = Some(Latencies::of_quantiles(|quantile| stalls.quantile(quantile)));
    reporter.print(&line.over(metrics.checkpoints.completed, None))
}

pub(super) fn bytes(
    row: &str,
    percent: u64,
    options: &Options,
    reporter: &mut Reporter,
) -> Result<(), BenchError> {
    let (keys, records) = options.pick((4_000_000, 40_000_000), (100_000, 2_000_000));
    let count = Count::<4> { keys, records, later: 0, touched: keys * percent / 100, cores: options.cores };
    let place = Scratch::new(row)?;
    // Only those that are asked for, and the last.
    let env = count.environment(Some(checkpoints(place.path(), 600_000)));
    // The job must not come to its end before it was asked for both.
    let meter = Arc::new(Meter { is_held: AtomicBool::new(true), ..Meter::default() });
    count.metered(&env, &meter, Instant::now(), |counted| {
        std::hint::black_box(counted);
    });
    let job = env.start()?;
    while meter.began.load(Ordering::Relaxed) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    // Between this one and the last nothing but the chosen keys is touched, but for those of a worker that lags behind.
    job.monitor().checkpoint()?;
    job.monitor().checkpoint()?;
    meter.is_held.store(false, Ordering::Relaxed);
    let metrics = job.wait()?;
    let line = Line::new("checkpoint", row, options.cores);
    reporter.print(&line.value(metrics.checkpoints.last_bytes_written as f64 / f64::from(1 << 20), "MiB"))
}
