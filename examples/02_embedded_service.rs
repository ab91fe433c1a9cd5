//! A service that embeds Tidemill: it feeds events from its own threads and gets answers by callback.
//!
//! ```sh
//! cargo run --release --example 02_embedded_service
//! cargo run --release --example 02_embedded_service -- --rate 50000 --seconds 5 --threads 2
//! ```
//!
//! The service watches card payments: for each one it wants to know at once how many there were with the same card
//! and their sum. Each event carries the time at which it was *due*, so that the printed latency counts
//! every delay, also that of a service that falls behind (an open loop).

use std::{
    io,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::Parser;
use hdrhistogram::Histogram;
use tidemill::prelude::*;

/// Feeds payments into an embedded job and measures the answers.
#[derive(Parser, Clone)]
struct Options {
    /// Payments per second, over all threads.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// How long to run.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Threads that feed.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Number of cores that the job uses.
    #[arg(long, default_value_t = 1)]
    cores: usize,
}

#[derive(Record, Clone)]
struct Payment {
    card: u64,
    cents: u64,
    /// When it was due, in nanoseconds since the service started.
    due: u64,
}

/// What is known of a card.
#[derive(Record, Clone, Default)]
struct Card {
    payments: u64,
    cents: u64,
    last_due: u64,
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let config =
        JobConfig { name: "payments".to_owned(), parallelism: options.cores, ..JobConfig::default() };
    let env = StreamEnvironment::with_config(config);
    let (feeder, payments) = channel::<Payment>(4_096);
    let started = Instant::now();
    let latencies = Arc::new(Mutex::new(Histogram::<u64>::new(3)?));
    let noted = Arc::clone(&latencies);

    env.from_source("payments", payments, WatermarkStrategy::none())
        .key_by(|payment| payment.card)
        .fold(Card::default(), |card, payment| {
            card.payments += 1;
            card.cents += payment.cents.to_native();
            card.last_due = payment.due.to_native();
        })
        .name("per card")
        .sink(
            "answers",
            CallbackSink::new(move |(_number, card): (u64, Card)| {
                let now = started.elapsed().as_nanos() as u64;
                let mut latencies = noted.lock().unwrap_or_else(PoisonError::into_inner);
                // The histogram grows as needed: there is no latency that it refuses.
                let _always_fits = latencies.record(now.saturating_sub(card.last_due));
            }),
        );

    let job = env.start()?;
    std::thread::scope(|scope| {
        for thread in 0..options.threads {
            let feeder = feeder.clone();
            scope.spawn(move || feed(&feeder, options, thread, started));
        }
    });
    drop(feeder);
    job.wait()?;

    let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
    let micros = |share: f64| latencies.value_at_quantile(share) as f64 / 1_000.0;
    println!(
        "{} payments in {:.2?}, {}/s wanted, on {} cores, from {} threads",
        latencies.len(),
        started.elapsed(),
        options.rate,
        options.cores,
        options.threads
    );
    println!(
        "from due to answer: p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, max {:.1} µs",
        micros(0.5),
        micros(0.99),
        micros(0.999),
        latencies.max() as f64 / 1_000.0
    );
    Ok(())
}

/// Feeds every payment of one thread when it is due.
fn feed(feeder: &Feeder<Payment>, options: &Options, thread: u64, started: Instant) {
    let gap = Duration::from_secs(1).as_nanos() as u64 / options.rate.max(1);
    let payments = options.rate * options.seconds;
    for n in (thread..payments).step_by(options.threads.max(1) as usize) {
        let due = n * gap;
        while (started.elapsed().as_nanos() as u64) < due {
            std::hint::spin_loop();
        }
        let payment = Payment { card: n * 7_919 % 10_000, cents: n % 5_000, due };
        if feeder.send(payment).is_err() {
            // The job has stopped; `wait` says why.
            return;
        }
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
