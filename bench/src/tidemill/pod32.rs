//! The keyed exchange of plain records: produce, exchange by key, count per key.

use std::{
    hint,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use ::tidemill::prelude::*;

use super::{
    NAME, environment,
    sums::{ChecksumSink, Total},
    timed,
};
use crate::{
    error::BenchError,
    peers::{
        pod32::{Pod32, count_row},
        timely::ExchangeRun,
    },
};

/// Exchanges `records` records with keys in `0..keys` between `cores` workers that all produce and consume, and counts
/// them per key. Every new count is handed on, so `counts` is the checksum of all counts there ever were.
///
/// # Errors
/// [`BenchError::Peer`] when the job fails.
pub fn run(records: u64, keys: u64, cores: usize) -> Result<ExchangeRun, BenchError> {
    let (env, total) = job(records, keys, cores);
    let elapsed = timed(env)?;
    let counts = total.get();
    Ok(ExchangeRun { counted: counts.rows, counts, elapsed })
}

fn job(records: u64, keys: u64, cores: usize) -> (StreamEnvironment, Total) {
    let env = environment(cores);
    let (sink, total) = ChecksumSink::new(|(key, count): &(u64, u64)| count_row(*key, *count));
    env.from_source(
        "records",
        from_generator(0..records, move |n| Pod32::nth(n, keys)),
        WatermarkStrategy::none(),
    )
    .key_by(|record| record.key)
    .aggregate(Count)
    .sink("counts", sink);
    (env, total)
}

/// As [`run`], while a monitor asks for the job's metrics every millisecond; returns how long it took.
///
/// # Errors
/// As [`run`].
pub fn run_watched(records: u64, keys: u64, cores: usize) -> Result<Duration, BenchError> {
    let (env, _total) = job(records, keys, cores);
    let failed = |error: Error| BenchError::Peer { peer: NAME, reason: error.to_string() };
    let start = Instant::now();
    let running = env.start().map_err(failed)?;
    let (monitor, (ended, end)) = (running.monitor(), mpsc::channel::<()>());
    let watcher = thread::spawn(move || {
        while end.recv_timeout(Duration::from_millis(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
            hint::black_box(monitor.metrics());
        }
    });
    let outcome = running.wait();
    let elapsed = start.elapsed();
    drop(ended);
    let _watched = watcher.join();
    outcome.map_err(failed)?;
    Ok(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::pod32::expected_counts;

    #[test]
    fn counts_equal_those_of_a_loop() {
        for cores in [1, 2, 3] {
            let run = run(100_000, 300, cores).unwrap();
            assert_eq!((run.counted, run.counts), (100_000, expected_counts(100_000, 300)));
        }
    }
}
