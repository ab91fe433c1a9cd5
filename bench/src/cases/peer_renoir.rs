//! `peer-renoir`: the peer alone, query by query.

use super::Options;
use crate::{
    error::BenchError,
    nexmark::{Config, Query, reference},
    peers::renoir,
    report::{Line, Reporter},
    versus::{Rounds, per_second},
};

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (events, rounds) = options.pick((10_000_000, 5), (500_000, 1));
    let config = Config::default();
    for query in Query::ALL {
        let expected = reference::answer(query, config, events);
        let rounds = Rounds::measure(rounds, || {
            let run = renoir::run(query, config, events, options.cores)?;
            run.answer.check(renoir::NAME, query, &expected)?;
            Ok::<_, BenchError>(per_second(events, run.elapsed))
        })?;
        let line = Line::new("peer-renoir", query.name(), options.cores).rounds(&rounds, "events/s");
        reporter.print(&line.over(events, Some(config.rate_per_s())))?;
    }
    Ok(())
}
