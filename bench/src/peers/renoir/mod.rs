//! Renoir: Nexmark as its users would write it, in its own records and on its own windows.
//!
//! Sources hand Renoir records that hold what the query reads and nothing else. Renoir's event-time windows
//! start at the first event of each key; Nexmark's start at multiples of their slide, so a window of
//! our own stands in their place ([`aligned_window`]), written on Renoir's window traits.

mod aligned_window;
mod q0;
mod q1;
mod q2;
mod q5;
mod q8;
mod source;

use std::time::{Duration, Instant};

use renoir::{RuntimeConfig, StreamContext, operator::sink::StreamOutput};

use super::QueryRun;
use crate::{
    error::BenchError,
    nexmark::{Config, Query},
};

/// What the peer is called in reports.
pub const NAME: &str = "renoir 0.6";

/// Answers `query` over events `0..events` on `cores` cores.
///
/// # Errors
/// [`BenchError::Peer`] when Renoir gives nothing.
pub fn run(query: Query, config: Config, events: u64, cores: usize) -> Result<QueryRun, BenchError> {
    let job = Job { config, events, cores: cores as u64 };
    match query {
        Query::Q0 => q0::run(job),
        Query::Q1 => q1::run(job),
        Query::Q2 => q2::run(job),
        Query::Q5 => q5::run(job),
        Query::Q8 => q8::run(job),
    }
}

/// What every query needs to know.
#[derive(Clone, Copy)]
struct Job {
    config: Config,
    events: u64,
    cores: u64,
}

impl Job {
    /// Builds a dataflow, runs it to its end, and gives what it collected.
    fn execute<T: Send + 'static>(
        self,
        build: impl FnOnce(&StreamContext) -> StreamOutput<Vec<T>>,
    ) -> Result<(Vec<T>, Duration), BenchError> {
        let failed = |reason: String| BenchError::Peer { peer: NAME, reason };
        let context =
            StreamContext::new(RuntimeConfig::local(self.cores).map_err(|e| failed(e.to_string()))?);
        let output = build(&context);
        let start = Instant::now();
        context.execute_blocking();
        let elapsed = start.elapsed();
        Ok((output.get().ok_or_else(|| failed("it collected nothing".into()))?, elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nexmark::reference;

    #[test]
    fn answers_equal_the_reference_on_any_number_of_cores() {
        // Slow enough that windows close while events still come: 30 s of event time.
        let (config, events) = (Config::with_rate(2_000), 60_000);
        for query in Query::ALL {
            let expected = reference::answer(query, config, events);
            assert!(expected.rows() > 0, "{} gives rows", query.name());
            for cores in 1..=3 {
                let run = run(query, config, events, cores).unwrap();
                run.answer.check(NAME, query, &expected).unwrap();
            }
        }
    }
}
