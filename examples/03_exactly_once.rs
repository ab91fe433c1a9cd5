//! A job that survives `kill -9`: payments are counted per card and minute, and each count is in a file exactly once.
//!
//! ```sh
//! cargo run --release --example 03_exactly_once
//! ```
//!
//! Kill it while it runs, with `kill -9` or Ctrl-C, and start it again, perhaps with another `--cores`: it goes on from its
//! newest checkpoint. At the end it reads its own files and checks that every payment was counted once. While it runs, another
//! terminal may ask it for a savepoint: `cargo run --release -- savepoint target/exactly-once/checkpoints saved`. Or it is
//! stopped with one, by `stop target/exactly-once/checkpoints --savepoint saved`; moved to an empty directory of checkpoints
//! (`rm -r target/exactly-once/checkpoints`), it begins with that by `--savepoint saved`.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use tidemill::prelude::*;

/// Counts payments, and survives being killed.
#[derive(Parser)]
struct Options {
    /// Where checkpoints and results are kept. Remove it to begin anew.
    #[arg(long, default_value = "target/exactly-once")]
    directory: PathBuf,
    /// Payments in all.
    #[arg(long, default_value_t = 200_000_000)]
    payments: u64,
    /// Number of cores; it may be another one in each life.
    #[arg(long, default_value_t = 2)]
    cores: usize,
    /// A savepoint to begin with, or a checkpoint that another directory has kept: DIRECTORY/checkpoints/NUMBER. Once it has begun, the job
    /// goes on from its own checkpoints.
    #[arg(long, value_name = "DIR|URL")]
    savepoint: Option<String>,
    /// Drop state in the savepoint that no operator of this job would get.
    #[arg(long)]
    allow_non_restored_state: bool,
}

const CARDS: u64 = 100;
const PAYMENTS_PER_MS: u64 = 100;

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(&options.directory)?;
    let results = options.directory.join("counts");
    let config =
        JobConfig { name: "payments".to_owned(), parallelism: options.cores, ..JobConfig::default() };
    let checkpoints = CheckpointConfig {
        interval_ms: 500,
        savepoint: options.savepoint.as_ref().map(Into::into),
        allow_non_restored_state: options.allow_non_restored_state,
        ..CheckpointConfig::new(options.directory.join("checkpoints"))
    };
    let env = StreamEnvironment::with_config(config).checkpoints(checkpoints);

    let payments = options.payments;
    let source = from_generator(0..payments, |number| number);
    let strategy = WatermarkStrategy::for_monotonous_timestamps()
        .with_timestamps(|payment: &u64| (*payment / PAYMENTS_PER_MS) as i64);
    env.from_source("payments", source, strategy)
        .key_by(|payment| payment % CARDS)
        .window(TumblingEventTime::of(Duration::from_secs(60)))
        .aggregate(Count)
        // Its state is found again by this name, also when the job has changed around it.
        .uid("counts")
        .map(|count| (count.key, count.window.start, count.value))
        .sink("counts", FileSink::csv(&results).columns(["card", "minute_ms", "payments"]));
    let metrics = env.execute()?;

    let stats = &metrics.checkpoints;
    match stats.restored_from {
        Some(checkpoint) => println!("went on from checkpoint {checkpoint}"),
        None => println!("began from the beginning"),
    }
    println!("checkpoints: {} complete, {} failed", stats.completed, stats.failed);
    let (mut rows, mut counted) = (0_u64, 0_u64);
    for entry in fs::read_dir(&results)? {
        let path = entry?.path();
        if path.is_file() {
            for row in fs::read_to_string(&path)?.lines().skip(1) {
                rows += 1;
                counted += row.rsplit(',').next().unwrap_or_default().parse::<u64>()?;
            }
        }
    }
    println!("{rows} rows count {counted} of {payments} payments");
    if counted < payments {
        println!("stopped before the end: start it again, and it goes on");
    } else if counted > payments {
        return Err(format!("{} payments were counted twice", counted - payments).into());
    }
    Ok(())
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("03_exactly_once: {error}");
            ExitCode::FAILURE
        }
    }
}
