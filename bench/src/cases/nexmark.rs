//! `nexmark`: q0, q1, q2, q5 and q8 on the typed API against Renoir, with the generator's own speed beside.

use std::{hint, thread, time::Instant};

use super::{Options, Row};
use crate::{
    error::BenchError,
    nexmark::{Config, Generator, Query, Split, fields, reference},
    peers::renoir,
    report::{Line, Reporter},
    tidemill::{self, NAME},
    versus::{Rounds, Versus, per_second},
};

const ROWS: &[Row] = &[
    ("q0", |options, reporter| query(Query::Q0, options, reporter)),
    ("q1", |options, reporter| query(Query::Q1, options, reporter)),
    ("q2", |options, reporter| query(Query::Q2, options, reporter)),
    ("q5", |options, reporter| query(Query::Q5, options, reporter)),
    ("q8", |options, reporter| query(Query::Q8, options, reporter)),
];

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    options.rows("nexmark", ROWS)?.into_iter().try_for_each(|(_, run)| run(options, reporter))
}

fn query(query: Query, options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (events, rounds) = options.pick((10_000_000, 9), (500_000, 1));
    let config = Config::default();
    let expected = reference::answer(query, config, events);
    let versus = Versus::alternate(
        rounds,
        || {
            let run = tidemill::nexmark::run(query, config, events, options.cores)?;
            run.answer.check(NAME, query, &expected)?;
            Ok::<_, BenchError>(per_second(events, run.elapsed))
        },
        || {
            let run = renoir::run(query, config, events, options.cores)?;
            run.answer.check(renoir::NAME, query, &expected)?;
            Ok(per_second(events, run.elapsed))
        },
    )?;
    let line = Line::new("nexmark", query.name(), options.cores).versus(&versus, "events/s", renoir::NAME);
    reporter.print(&line.over(events, Some(config.rate_per_s())))?;
    let generator =
        Rounds::measure(rounds.min(3), || Ok::<_, BenchError>(generate(query, config, events, options)))?;
    let line = Line::new("nexmark", &format!("{}-generator-alone", query.name()), options.cores);
    reporter.print(&line.rounds(&generator, "events/s").over(events, Some(config.rate_per_s())))
}

/// Events per second when all cores generate what the query reads, and nothing else.
fn generate(query: Query, config: Config, events: u64, options: &Options) -> f64 {
    let generate = match query {
        Query::Q0 => drain::<{ fields::Q0 }>,
        Query::Q1 => drain::<{ fields::Q1 }>,
        Query::Q2 => drain::<{ fields::Q2 }>,
        Query::Q5 => drain::<{ fields::Q5 }>,
        Query::Q8 => drain::<{ fields::Q8 }>,
    };
    let cores = options.cores as u64;
    let start = Instant::now();
    thread::scope(|scope| {
        for core in 0..cores {
            scope.spawn(move || generate(config, Split::interleaved(0..events, core, cores)));
        }
    });
    per_second(events, start.elapsed())
}

fn drain<const FIELDS: u32>(config: Config, split: Split) {
    Generator::<FIELDS>::new(config, split).for_each(|event| {
        hint::black_box(event);
    });
}
