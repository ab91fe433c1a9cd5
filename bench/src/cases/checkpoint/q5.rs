//! Nexmark q5 with checkpoints.

use super::checkpoints;
use crate::{
    cases::{Options, scratch::Scratch},
    error::BenchError,
    nexmark::{Config, Query, reference},
    report::{Line, Reporter},
    tidemill::{self, NAME},
    versus::{Versus, per_second},
};

pub(super) fn cost(
    row: &str,
    interval_ms: u64,
    options: &Options,
    reporter: &mut Reporter,
) -> Result<(), BenchError> {
    let (events, rounds) = options.pick((20_000_000, 5), (500_000, 1));
    let config = Config::default();
    let expected = reference::answer(Query::Q5, config, events);
    let run = |checkpoints| {
        let run = tidemill::nexmark::run_q5(config, events, options.cores, checkpoints)?;
        run.answer.check(NAME, Query::Q5, &expected)?;
        Ok::<_, BenchError>(per_second(events, run.elapsed))
    };
    let versus = Versus::alternate(
        rounds,
        || {
            let place = Scratch::new(row)?;
            run(Some(checkpoints(place.path(), interval_ms)))
        },
        || run(None),
    )?;
    let line = Line::new("checkpoint", row, options.cores);
    reporter.print(&line.versus(&versus, "events/s", "without checkpoints").over(events, None))
}
