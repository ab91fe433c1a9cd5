//! `exchange`: records cross cores, all cores producing and consuming: plain records against Timely, bids with strings
//! against owned structs over the same ring.

use super::{Options, Row};
use crate::{
    error::BenchError,
    peers::{
        pod32::expected_counts,
        timely::{self, Counting},
    },
    report::{Line, Reporter},
    tidemill::{NAME, bid, pod32},
    versus::{Versus, per_second},
};

const ROWS: &[Row] = &[
    ("pod32", |options, reporter| pod32("pod32", 100_000, options, reporter)),
    ("pod32-1024-keys", |options, reporter| pod32("pod32-1024-keys", 1_024, options, reporter)),
    ("bid", bid),
];

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    options.rows("exchange", ROWS)?.into_iter().try_for_each(|(_, run)| run(options, reporter))
}

fn pod32(case: &str, keys: u64, options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (records, rounds) = options.pick((100_000_000, 7), (5_000_000, 1));
    let expected = expected_counts(1_000_000, keys);
    for (side, checked) in [
        (NAME, pod32::run(1_000_000, keys, options.cores)?),
        (timely::NAME, timely::run(1_000_000, keys, Counting::PerKey, options.cores)?),
    ] {
        if checked.counts != expected {
            return Err(BenchError::WrongAnswer {
                side: side.to_owned(),
                query: case.to_owned(),
                difference: format!("{:?} instead of {expected:?}", checked.counts),
            });
        }
    }
    let versus = Versus::alternate(
        rounds,
        || {
            let run = pod32::run(records, keys, options.cores)?;
            Ok::<_, BenchError>(per_second(run.counted, run.elapsed))
        },
        || {
            let run = timely::run(records, keys, Counting::PerKey, options.cores)?;
            Ok(per_second(run.counted, run.elapsed))
        },
    )?;
    let line = Line::new("exchange", case, options.cores).versus(&versus, "records/s", timely::NAME);
    reporter.print(&line.over(records, None))
}

fn bid(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (records, rounds) = options.pick((20_000_000, 7), (1_000_000, 1));
    let versus = Versus::alternate(
        rounds,
        || Ok::<_, BenchError>(per_second(records, bid::archived(records, options.cores)?)),
        || Ok(per_second(records, bid::owned(records, options.cores)?)),
    )?;
    let line = Line::new("exchange", "bid", options.cores).versus(&versus, "records/s", bid::OWNED);
    reporter.print(&line.over(records, None))
}
