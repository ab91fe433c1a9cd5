//! `beyond-memory`: state eight times as large as its memory, with keys drawn by Zipf's law (0.99) and evenly.
//!
//! The index is always in memory and not part of the budget. With the feature `peer-rocksdb`, RocksDB does the same with a
//! block cache as large as the budget; see [`rocks`](super::rocks).

use std::time::{Duration, Instant};

use tidemill::storage::store::StoreOptions;

use super::{
    Options,
    bed::{Table, pin, resident_bytes},
    counted,
    disk::{self, Probe},
    keys::{BATCH, Uniform, Zipf, key},
};
use crate::{
    cases::scratch::Scratch,
    error::BenchError,
    report::{Line, Reporter},
    versus::{Rounds, per_second},
};

const RECORD_BYTES: u64 = 40;

/// What draws numbers of keys.
enum Draw {
    Zipf(Zipf),
    Uniform(Uniform),
}

impl Draw {
    fn number(&mut self) -> u64 {
        match self {
            Self::Zipf(zipf) => zipf.number(),
            Self::Uniform(uniform) => uniform.number(),
        }
    }
}

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (bytes, budget) = options.pick((8 << 30, 1 << 30), (48_u64 << 20, 16_usize << 20));
    let keys = bytes / RECORD_BYTES;
    let (round, rounds) = (Duration::from_millis(options.pick(10_000, 200)), options.pick(5, 1));
    let scratch = Scratch::new("beyond-memory")?;
    let probe = Probe::write(scratch.path(), options.pick(4 << 30, 32 << 20))?;
    let reads = probe.random_reads(Duration::from_millis(options.pick(5_000, 100)))?;
    drop(probe);
    let options_of_store =
        StoreOptions { memory_bytes_max: budget, files: Some(disk::files(&scratch)), ..StoreOptions::new() };
    let mut ours = Table::with_options(options_of_store, keys)?;
    #[cfg(feature = "peer-rocksdb")]
    let mut peer = super::rocks::Rocks::with(scratch.path(), keys, budget)?;
    pin();
    let mut count = keys;
    let draws = [
        ("beyond-memory-zipf", Draw::Zipf(Zipf::new(keys, 0.99, 7)) as Draw),
        ("beyond-memory-uniform", Draw::Uniform(Uniform::new(keys, 8))),
    ];
    for (row, mut draw) in draws {
        let (mut our_rounds, mut peer_rounds) = (Vec::new(), Vec::<f64>::new());
        for number in 0..=rounds {
            let (updates, rate) = measure(round, &mut draw, |numbers, keys| {
                let _ = numbers;
                ours.update(keys);
                Ok(())
            })?;
            count += updates;
            #[cfg(feature = "peer-rocksdb")]
            let peer_rate = measure(round, &mut draw, |numbers, _| peer.update(numbers))?.1;
            #[cfg(not(feature = "peer-rocksdb"))]
            let peer_rate = f64::NAN;
            // The first round brings what is used often into memory.
            if number > 0 {
                our_rounds.push(rate);
                peer_rounds.push(peer_rate);
            }
        }
        let line = Line::new("state", row, 1).over(keys, None);
        let (our_rounds, peer_rounds) = (Rounds::from(our_rounds), Rounds::from(peer_rounds));
        let line = if cfg!(feature = "peer-rocksdb") {
            let versus = crate::versus::Versus { ours: our_rounds, peer: peer_rounds };
            line.versus(
                &versus,
                "updates/s",
                "RocksDB, block cache = budget, no WAL, bloom 10 bits, direct I/O",
            )
        } else {
            line.rounds(&our_rounds, "updates/s")
        };
        reporter.print(&line)?;
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for (name, value, unit) in [
        ("beyond-memory-disk", reads, "random 4 KiB reads/s"),
        ("beyond-memory-budget", mib(budget as u64), "MiB"),
        ("beyond-memory-index", mib(ours.table.bytes().1 as u64), "MiB"),
        ("beyond-memory-blocks", mib(ours.table.bytes().0 as u64), "MiB"),
        ("beyond-memory-resident", mib(resident_bytes()?), "MiB"),
    ] {
        reporter.print(&Line::new("state", name, 1).value(value, unit))?;
    }
    counted::check("beyond-memory", &mut ours.table, keys, count)?;
    #[cfg(feature = "peer-rocksdb")]
    peer.check(keys)?;
    Ok(())
}

/// Updates for so long: how many, and how many per second; drawing keys is not counted.
fn measure(
    round: Duration,
    draw: &mut Draw,
    mut update: impl FnMut(&[u64], &[u64]) -> Result<(), BenchError>,
) -> Result<(u64, f64), BenchError> {
    let (mut updates, mut elapsed) = (0, Duration::ZERO);
    let (mut numbers, mut keys) = ([0; BATCH], [0; BATCH]);
    while elapsed < round {
        numbers.fill_with(|| draw.number());
        keys.iter_mut().zip(&numbers).for_each(|(to, number)| *to = key(*number));
        let start = Instant::now();
        update(&numbers, &keys)?;
        elapsed += start.elapsed();
        updates += BATCH as u64;
    }
    Ok((updates, per_second(updates, elapsed)))
}
