//! Flight delays per airport and hour: a keyed, windowed job on real data, from file to table.
//!
//! ```sh
//! cargo run --release --example 01_flight_delays
//! cargo run --release --example 01_flight_delays -- --input flights.csv.gz --out delays.csv --cores 2
//! ```
//!
//! Event time is the *scheduled* departure, but the file is in the order of *actual* departure, so flights are out of
//! order by up to a day. The watermark waits for that long; an hour is printed when nothing should be missing from it.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc,
    time::{Duration, Instant},
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tidemill::{model::time::NO_TIMESTAMP, prelude::*};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Flight delays per airport and hour of scheduled departure.
#[derive(Parser)]
struct Options {
    /// CSV files with the columns of nycflights13, plain or gzip.
    #[arg(long, num_args = 1.., value_name = "FILE", default_value = "examples/data/flights_2013_01.csv")]
    input: Vec<PathBuf>,
    /// Write the figures to this CSV file instead of printing a table.
    #[arg(long, value_name = "FILE.csv")]
    out: Option<PathBuf>,
    /// Number of cores to use; all by default.
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
}

/// The columns that the job reads, of the nineteen that there are.
#[derive(Record, Deserialize, Clone)]
struct Flight {
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    origin: String,
    /// Minutes; a cancelled flight has none.
    dep_delay: Option<i32>,
}

impl Flight {
    /// Hour of scheduled departure by the airport's clock (taken as if it were UTC), in milliseconds since 1970.
    fn scheduled(&self) -> Timestamp {
        let Self { year, month, day, hour, .. } = *self;
        let scheduled =
            DateTime::new(year, month, day, hour, 0, 0, 0).and_then(|at| at.to_zoned(TimeZone::UTC));
        scheduled.map_or(NO_TIMESTAMP, |at| at.timestamp().as_millisecond())
    }
}

/// Sums up the flights of one airport and hour.
#[derive(Clone)]
struct Delays;

#[derive(Record, Clone, Default)]
struct DelaySum {
    flights: u64,
    cancelled: u64,
    delay: i64,
    delay_max: Option<i32>,
}

impl AggregateFunction<Flight> for Delays {
    type Accumulator = DelaySum;
    type Output = DelaySum;

    fn create(&self) -> DelaySum {
        DelaySum::default()
    }

    fn add(&self, sum: &mut DelaySum, flight: &Archived<Flight>) {
        sum.flights += 1;
        match flight.dep_delay.as_ref() {
            None => sum.cancelled += 1,
            Some(delay) => {
                let delay = delay.to_native();
                sum.delay += i64::from(delay);
                sum.delay_max = sum.delay_max.max(Some(delay));
            }
        }
    }

    fn merge(&self, into: &mut DelaySum, other: &DelaySum) {
        into.flights += other.flights;
        into.cancelled += other.cancelled;
        into.delay += other.delay;
        into.delay_max = into.delay_max.max(other.delay_max);
    }

    fn result(&self, sum: &DelaySum) -> DelaySum {
        sum.clone()
    }
}

/// A line of the result.
#[derive(Record, Serialize, Clone)]
struct Row {
    hour: String,
    origin: String,
    flights: u64,
    cancelled: u64,
    mean_delay: Option<f64>,
    max_delay: Option<i32>,
}

impl From<WindowResult<String, DelaySum>> for Row {
    fn from(WindowResult { key, window, value }: WindowResult<String, DelaySum>) -> Self {
        let departed = value.flights - value.cancelled;
        Self {
            hour: hour_name(window.start),
            origin: key,
            flights: value.flights,
            cancelled: value.cancelled,
            mean_delay: (departed > 0).then(|| value.delay as f64 / departed as f64),
            max_delay: value.delay_max,
        }
    }
}

/// The rows of one hour by airport. A row that was computed again because of a late flight replaces the earlier one.
fn in_order(rows: &[Row]) -> Vec<Row> {
    let mut latest = rows.iter().rev().fold(Vec::<Row>::new(), |mut latest, row| {
        if !latest.iter().any(|other| other.origin == row.origin) {
            latest.push(row.clone());
        }
        latest
    });
    latest.sort_by(|a, b| a.origin.cmp(&b.origin));
    latest
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let env = match options.cores {
        Some(parallelism) => {
            StreamEnvironment::with_config(JobConfig { parallelism, ..JobConfig::default() })
        }
        None => StreamEnvironment::new(),
    };
    let cores = env.config().parallelism;

    let flights = CsvSource::<Flight>::new(&options.input).null_text("NA");
    // The table shows an hour as soon as it should be complete; if a whole month comes late, its hours are computed
    // and shown again. A file is written once, so there every hour waits for all of the input.
    let whole_year = 366 * DAY;
    let bound = if options.out.is_some() { whole_year } else { DAY };
    let disorder = WatermarkStrategy::for_bounded_out_of_orderness(bound).with_timestamps(Flight::scheduled);

    let rows = env
        .from_source("flights", flights, disorder)
        .key_by_ref(|flight| flight.origin.as_str())
        .window(TumblingEventTime::of(HOUR))
        .allowed_lateness(whole_year)
        .aggregate(Delays)
        .name("delays per hour")
        .map(Row::from)
        // One subtask puts the airports of each hour in order, so that the output is the same on any number of cores.
        .key_by(|_| ())
        .window(TumblingEventTime::of(HOUR))
        .allowed_lateness(whole_year)
        .apply(|(), _hour, rows| in_order(rows))
        .name("in order")
        .global();

    match options.out {
        Some(path) => {
            rows.sink("csv", CsvSink::file(path));
        }
        None => {
            let header = "hour           origin  flights  cancelled  mean delay  max delay\n";
            let _closed = io::stdout().write_all(header.as_bytes());
            rows.sink("table", StdoutSink::formatted(table_line));
        }
    }

    let job = env.start()?;
    let progress = show_progress(job.monitor());
    let outcome = job.wait();
    drop(progress);
    summary(&outcome?, cores, started.elapsed());
    Ok(())
}

fn table_line(row: &Row) -> String {
    let Row { hour, origin, flights, cancelled, mean_delay, max_delay } = row;
    let mean = mean_delay.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.1}"));
    let max = max_delay.map_or_else(|| "-".to_owned(), |max| max.to_string());
    format!("{hour}  {origin:6}  {flights:7}  {cancelled:9}  {mean:>10}  {max:>9}")
}

/// Shows on stderr, if that is a terminal, how far the job has come; until what it returns is dropped.
fn show_progress(monitor: JobMonitor) -> Option<impl Drop> {
    struct Shown(Option<mpsc::Sender<()>>, Option<std::thread::JoinHandle<()>>);
    impl Drop for Shown {
        fn drop(&mut self) {
            self.0 = None;
            if let Some(thread) = self.1.take() {
                let _ended = thread.join();
            }
        }
    }
    if !io::stderr().is_terminal() {
        return None;
    }
    let (running, ended) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} flights read, {per_sec}") {
            bar.set_style(style);
        }
        let tick = Duration::from_millis(100);
        while ended.recv_timeout(tick) == Err(mpsc::RecvTimeoutError::Timeout) {
            bar.set_position(
                monitor.metrics().operator("flights").map_or(0, |source| source.counters.records_out),
            );
        }
        bar.finish_and_clear();
    });
    Some(Shown(Some(running), Some(thread)))
}

fn summary(metrics: &JobMetrics, cores: usize, elapsed: Duration) {
    let records = metrics.operator("flights").map_or(0, |source| source.counters.records_out);
    let rate = records as f64 / elapsed.as_secs_f64();
    let mut text = format!("\n{records} flights in {elapsed:.2?} on {cores} cores: {rate:.0} flights/s\n\n");
    text += "operator             records in  records out    p50 µs    p99 µs  p99.9 µs    max µs\n";
    for operator in &metrics.operators {
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        let at = |share| micros(operator.latency.quantile(share));
        text += &format!(
            "{:20} {:>10}  {:>11} {:>9.1} {:>9.1} {:>9.1} {:>9.1}\n",
            operator.info.name,
            operator.counters.records_in,
            operator.counters.records_out,
            at(0.5),
            at(0.99),
            at(0.999),
            micros(operator.latency.max()),
        );
    }
    // A reader that closed the pipe has seen enough.
    let _closed = io::stdout().write_all(text.as_bytes());
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_has_left(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the job only stopped because nobody reads its output any more, as in `… | head`.
fn reader_has_left(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(Error::Operator { cause, .. }) = error.downcast_ref() else { return false };
    matches!(cause.downcast_ref(), Some(SinkError::StdoutClosed))
}

/// A timestamp as `2013-01-31T05`.
fn hour_name(timestamp: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(timestamp).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H").to_string()
}
