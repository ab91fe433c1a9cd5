//! A job that is held up by a slow sink: how long a checkpoint takes there, when its barrier waits and when it overtakes.

use std::{
    thread,
    time::{Duration, Instant},
};

use tidemill::prelude::*;

use super::checkpoints;
use crate::{
    cases::{Options, scratch::Scratch},
    error::BenchError,
    report::{Latencies, Line, Reporter},
};

/// What the sink does with a record: 10,000 records per second and core.
const SINK_TIME: Duration = Duration::from_micros(100);
/// Keys of the two counts before the sink.
const KEYS: u64 = 1_000;
/// By then every channel is full.
const WARM_UP: Duration = Duration::from_secs(1);

/// Takes one checkpoint after the other; with `unaligned_after_ms` as the settings of checkpoints have it.
pub(super) fn duration(
    row: &str,
    unaligned_after_ms: Option<u64>,
    options: &Options,
    reporter: &mut Reporter,
) -> Result<(), BenchError> {
    let most = if unaligned_after_ms.is_some() { 200 } else { 10 };
    let taken = options.pick(most, 2);
    let place = Scratch::new(row)?;
    let config = CheckpointConfig { unaligned_after_ms, ..checkpoints(place.path(), 3_600_000) };
    let env = StreamEnvironment::with_config(JobConfig {
        name: "pressure".to_owned(),
        parallelism: options.cores,
        checkpoints: Some(config),
        ..JobConfig::default()
    });
    let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
    let count = |count: &mut u64| *count += 1;
    env.from_source("numbers", numbers, WatermarkStrategy::none())
        .key_by(|number| number % KEYS)
        .fold(0_u64, move |counted: &mut u64, _| count(counted))
        .key_by(|(_, counted)| counted % KEYS)
        .fold(0_u64, move |counted: &mut u64, _| count(counted))
        .rebalance()
        .for_each(|_| {
            let start = Instant::now();
            while start.elapsed() < SINK_TIME {}
        });
    let job = env.start()?;
    thread::sleep(options.pick(WARM_UP, WARM_UP / 20));
    let monitor = job.monitor();
    for _ in 0..taken {
        monitor.checkpoint()?;
    }
    let stats = monitor.metrics().checkpoints;
    drop(job);
    let p99 = stats.durations.quantile(0.99) as f64 / 1e6;
    let mut line = Line::new("checkpoint", row, options.cores).value(p99, "ms");
    line.latencies = Some(Latencies::of_quantiles(|quantile| stats.durations.quantile(quantile)));
    reporter.print(&line.over(stats.completed, None))?;
    let kib = stats.in_flight_bytes as f64 / 1024.0 / stats.completed.max(1) as f64;
    reporter.print(&Line::new("checkpoint", &format!("{row}-in-flight"), options.cores).value(kib, "KiB"))
}
