//! `seal`: how long a seal takes, which is how long a barrier stops its core: after all keys were touched, and after every
//! hundredth; and `-copies`: how long the copies take that it is owed, all at once, which a barrier does not wait for.

use std::time::{Duration, Instant};

use super::{
    Options,
    bed::{Table, pin},
    keys::{BATCH, key},
};
use crate::{
    error::BenchError,
    report::{Line, Reporter},
    versus::Rounds,
};

/// A stride of keys without a common factor with the numbers of keys: any order but that of insertion.
const STRIDE: u64 = 7_919;

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    pin();
    let sizes: &[_] = &[("10k", 10_000, 15), ("1m", 1_000_000, 15), ("50m", 50_000_000, 5)];
    for (name, keys, rounds) in &sizes[..options.pick(3, 2)] {
        let mut table = Table::with(*keys)?;
        drop(table.seal());
        for (touched, share) in [("all", 1), ("1pc", 100)] {
            let mut copies = Vec::new();
            let rounds = Rounds::measure(options.pick(*rounds, 3), || {
                touch(&mut table, *keys, keys / share);
                let start = Instant::now();
                let sealing = table.begin_seal();
                let sealed_after = start.elapsed();
                let sealed = table.bed.store.finish_seal(sealing);
                copies.push(micros(start.elapsed().saturating_sub(sealed_after)));
                drop(sealed);
                Ok::<_, BenchError>(micros(sealed_after))
            })?;
            for (what, rounds) in [("", rounds), ("-copies", Rounds::from(copies))] {
                let line = Line::new("state", &format!("seal-{name}-{touched}{what}"), 1);
                reporter.print(&line.rounds(&rounds, "us").over(keys / share, None))?;
            }
        }
    }
    Ok(())
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

fn touch(table: &mut Table, keys: u64, touched: u64) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut number = 0;
    for _ in 0..touched {
        batch.push(key(number));
        number = (number + STRIDE) % keys;
        if batch.len() == BATCH {
            table.update(&batch);
            batch.clear();
        }
    }
    table.update(&batch);
}
