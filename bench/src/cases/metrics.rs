//! `metrics`: what it costs that metrics are always on and that somebody looks at them: the keyed exchange while a
//! monitor asks every millisecond, against the same with nobody asking. Counting itself is part of both; `chain`
//! holds it against a loop that counts nothing.

use super::Options;
use crate::{
    error::BenchError,
    report::{Line, Reporter},
    tidemill::pod32,
    versus::{Versus, per_second},
};

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (records, rounds) = options.pick((100_000_000, 7), (5_000_000, 1));
    let versus = Versus::alternate(
        rounds,
        || Ok::<_, BenchError>(per_second(records, pod32::run_watched(records, 1_024, options.cores)?)),
        || Ok(per_second(records, pod32::run(records, 1_024, options.cores)?.elapsed)),
    )?;
    let line =
        Line::new("metrics", "asked-every-ms", options.cores).versus(&versus, "records/s", "nobody asks");
    reporter.print(&line.over(records, None))
}
