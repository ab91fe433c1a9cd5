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
    // Long enough for some checkpoints a second apart.
    let (events, rounds) = options.pick((200_000_000, 3), (500_000, 1));
    let config = Config::default();
    let expected = reference::answer(Query::Q5, config, events);
    let run = |checkpoints| {
        let (run, completed) = tidemill::nexmark::run_q5(config, events, options.cores, checkpoints)?;
        run.answer.check(NAME, Query::Q5, &expected)?;
        Ok::<_, BenchError>((per_second(events, run.elapsed), completed))
    };
    let mut completed = 0;
    let versus = Versus::alternate(
        rounds,
        || {
            let place = Scratch::new(row)?;
            let (rate, made) = run(Some(checkpoints(place.path(), interval_ms)))?;
            completed = made;
            Ok(rate)
        },
        || run(None).map(|(rate, _)| rate),
    )?;
    let line = Line::new("checkpoint", row, options.cores);
    reporter.print(&line.versus(&versus, "events/s", "without checkpoints").over(events, None))?;
    let line = Line::new("checkpoint", &format!("{row}-completed"), options.cores);
    reporter.print(&line.value(completed as f64, "checkpoints"))
}
