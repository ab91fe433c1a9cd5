//! Our side of every comparison, written on the public API as a user would.

pub mod bid;
pub mod chain;
pub mod nexmark;
pub mod pod32;
mod sums;

use std::time::{Duration, Instant};

use ::tidemill::prelude::*;

use crate::error::BenchError;

/// What our side is called in reports.
pub const NAME: &str = "tidemill";

/// An environment with the default settings on so many cores.
fn environment(cores: usize) -> StreamEnvironment {
    environment_with(cores, None)
}

/// The same with checkpoints.
fn environment_with(cores: usize, checkpoints: Option<CheckpointConfig>) -> StreamEnvironment {
    StreamEnvironment::with_config(JobConfig { parallelism: cores, checkpoints, ..JobConfig::default() })
}

/// Runs the job to its end and times it, from the start of its workers to the end of the last.
fn timed(env: StreamEnvironment) -> Result<Duration, BenchError> {
    timed_with_metrics(env).map(|(elapsed, _)| elapsed)
}

/// The same, and what the job says of itself.
fn timed_with_metrics(env: StreamEnvironment) -> Result<(Duration, JobMetrics), BenchError> {
    let start = Instant::now();
    let metrics =
        env.execute().map_err(|error| BenchError::Peer { peer: NAME, reason: error.to_string() })?;
    Ok((start.elapsed(), metrics))
}
