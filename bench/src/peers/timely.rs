//! Timely Dataflow: the keyed exchange of plain records.
//!
//! As its users would write it: a source operator per worker that gives a batch of records whenever it is
//! scheduled, an `Exchange` pact by key, and a sink operator with a hash map. A worker runs its sink before
//! its source gets another turn, which bounds what is in flight. As on our side every new count is a row of the result; here it
//! is summed up where it arises.

use std::{
    collections::HashMap,
    sync::mpsc,
    time::{Duration, Instant},
};

use timely::{
    WorkerConfig,
    communication::Config as Communication,
    container::CapacityContainerBuilder,
    dataflow::{
        channels::pact::Exchange,
        operators::{Operator, generic::operator::source},
    },
};

use super::pod32::{Pod32, count_row};
use crate::{error::BenchError, nexmark::Checksum};

/// What the peer is called in reports.
pub const NAME: &str = "timely 0.31";

/// Records that a source gives each time it is scheduled.
const RECORDS_PER_TURN: u64 = 1 << 14;

/// What the consuming side does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// A count per key in a hash map, and a sum of all counts that there ever were.
    PerKey,
    /// One count of all records: the exchange alone.
    Total,
}

/// One run.
#[derive(Clone, Debug)]
pub struct ExchangeRun {
    /// Records that arrived.
    pub counted: u64,
    /// Of all counts per key that there ever were; of none when only the total was counted.
    pub counts: Checksum,
    /// From starting the workers to their end, generation included.
    pub elapsed: Duration,
}

/// Exchanges `records` records with keys in `0..keys` between `workers` workers.
///
/// # Errors
/// [`BenchError::Peer`] when Timely fails.
pub fn run(records: u64, keys: u64, counting: Counting, workers: usize) -> Result<ExchangeRun, BenchError> {
    let failed = |reason| BenchError::Peer { peer: NAME, reason };
    let communication = if workers > 1 { Communication::Process(workers) } else { Communication::Thread };
    let config = timely::Config { communication, worker: WorkerConfig::default() };
    let (results, received) = mpsc::channel();
    let start = Instant::now();
    let guards = timely::execute(config, move |worker| {
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let share = records * index / peers..records * (index + 1) / peers;
        let results = results.clone();
        worker.dataflow::<u64, _, _>(|scope| {
            source(scope, "Records", |capability, info| {
                let activator = scope.activator_for(info.address);
                let (mut capability, mut numbers) = (Some(capability), share);
                move |output| {
                    let Some(held) = &capability else { return };
                    let turn = numbers.start..numbers.end.min(numbers.start + RECORDS_PER_TURN);
                    numbers.start = turn.end;
                    let mut session = output.session(held);
                    turn.for_each(|n| session.give(Pod32::nth(n, keys)));
                    drop(session);
                    if numbers.is_empty() {
                        capability = None;
                    } else {
                        activator.activate();
                    }
                }
            })
            .unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
                Exchange::new(|record: &Pod32| record.key),
                "Count",
                |_, _| {
                    let mut counts = HashMap::<u64, u64, ahash::RandomState>::default();
                    let mut result = Some((0u64, Checksum::default()));
                    move |(input, frontier), _| {
                        let Some((total, sum)) = &mut result else { return };
                        input.for_each(|_, batch| {
                            *total += batch.len() as u64;
                            if counting == Counting::PerKey {
                                for record in batch.iter() {
                                    let count = counts.entry(record.key).or_default();
                                    *count += 1;
                                    sum.add(count_row(record.key, *count));
                                }
                            }
                        });
                        if frontier.is_empty() {
                            // The receiver lives until every worker is done.
                            let _ = result.take().map(|result| results.send(result));
                        }
                    }
                },
            );
        });
    })
    .map_err(failed)?;
    for worker in guards.join() {
        worker.map_err(failed)?;
    }
    let elapsed = start.elapsed();
    // What the workers hold is gone with them, so this ends.
    let (mut counted, mut counts) = (0, Checksum::default());
    for (total, sum) in received.try_iter() {
        counted += total;
        counts.merge(sum);
    }
    if counted != records {
        return Err(failed(format!("{counted} of {records} records arrived")));
    }
    Ok(ExchangeRun { counted, counts, elapsed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::pod32::expected_counts;

    #[test]
    fn counts_equal_those_of_a_loop() {
        let expected = expected_counts(100_000, 300);
        for workers in [1, 2, 3] {
            let run = run(100_000, 300, Counting::PerKey, workers).unwrap();
            assert_eq!((run.counted, run.counts), (100_000, expected));
        }
    }
}
