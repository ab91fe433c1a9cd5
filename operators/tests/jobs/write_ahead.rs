//! Jobs under simulation that are fed through a write-ahead channel: what was acknowledged counts once, whatever crashes.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tidemill_engine::{
    model::{
        source::{BoxError, Output, Polled, Reader, Source, SubtaskContext},
        watermark::WatermarkStrategy,
    },
    platform::Nanos,
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sim::{SimSink, Simulation},
    sink::BlackholeSink,
    source::{WriteAheadChannel, WriteAheadError, WriteAheadFeeder, WriteAheadReader, WriteAheadSplit},
};

/// Seeds per job. `TIDEMILL_SIM_SEEDS` runs more.
const SEEDS: u64 = 40;
/// Enough for more than the log may hold.
const NUMBERS: u64 = 3_000;
const KEYS: u64 = 13;
/// So small that nothing gets through unless the log is trimmed.
const LOG_BYTES_MAX: u64 = 64 << 10;
/// What a client waits for before it tries again, in virtual time.
const RETRY_NS: Nanos = 100_000;

/// A number, and which try at sending it this is.
type Sent = (u64, u64);

/// The service's client, outside of the process. It sends each number until one try was acknowledged, and then the next.
#[derive(Default)]
struct Client {
    acknowledged: Mutex<BTreeSet<Sent>>,
    tries: AtomicU64,
}

impl Client {
    fn has(&self, sent: &Sent) -> bool {
        self.acknowledged.lock().unwrap().contains(sent)
    }

    fn next(&self) -> u64 {
        self.acknowledged.lock().unwrap().len() as u64
    }

    /// Sends some; whether it was the last.
    fn send(&self, feeder: &WriteAheadFeeder<Sent>) -> Result<bool, WriteAheadError> {
        let next = self.next();
        if next == NUMBERS {
            feeder.close()?.wait()?;
            return Ok(true);
        }
        let sent_as = self.tries.fetch_add(1, Ordering::Relaxed);
        let together = (next..NUMBERS.min(next + 1 + sent_as % 3)).map(|number| (number, sent_as));
        let together: Vec<Sent> = together.collect();
        feeder.send_all(&together)?;
        self.acknowledged.lock().unwrap().extend(together);
        Ok(false)
    }
}

/// The thread of the service that the client talks to: it has a turn now and then, as all that is simulated.
struct Service {
    client: Arc<Client>,
    feeder: WriteAheadFeeder<Sent>,
}

struct ServiceReader {
    service: Option<(Arc<Client>, WriteAheadFeeder<Sent>)>,
}

impl Source for Service {
    type Item = ();
    type Split = ();
    type Reader = ServiceReader;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(if context.subtask == 0 { vec![()] } else { vec![] })
    }

    fn open(&self, _context: &SubtaskContext, splits: Vec<()>) -> Result<ServiceReader, BoxError> {
        let service = || (Arc::clone(&self.client), self.feeder.clone());
        Ok(ServiceReader { service: splits.first().map(|()| service()) })
    }
}

impl Reader for ServiceReader {
    type Item = ();
    type Split = ();

    fn splits(&self) -> usize {
        usize::from(self.service.is_some())
    }

    fn position(&self, _split: usize) {}

    fn poll<O: Output<()>>(&mut self, output: &mut O, now: Nanos) -> Result<Polled, BoxError> {
        let Some((client, feeder)) = &self.service else { return Ok(Polled::End) };
        match client.send(feeder) {
            Ok(true) => {
                output.finish_split(0);
                self.service = None;
                Ok(Polled::End)
            }
            Ok(false) => Ok(Polled::More),
            Err(WriteAheadError::Full | WriteAheadError::Log(_)) => Ok(Polled::Pending(Some(now + RETRY_NS))),
            Err(error) => Err(error.into()),
        }
    }
}

/// A process whose log could not be opened ends with that error.
struct Broken(String);

impl Source for Broken {
    type Item = Sent;
    type Split = WriteAheadSplit;
    type Reader = WriteAheadReader<Sent>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Err(self.0.clone().into())
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<WriteAheadSplit>, BoxError> {
        Err(self.0.clone().into())
    }

    fn open(&self, _: &SubtaskContext, _: Vec<WriteAheadSplit>) -> Result<Self::Reader, BoxError> {
        Err(self.0.clone().into())
    }
}

/// Counts the numbers by key, those of tries that were acknowledged.
fn describe(environment: &StreamEnvironment, sink: SimSink<(u64, u64)>) {
    let client = sink.outside::<Client>();
    let channel = WriteAheadChannel::new("/log").log_bytes_max(LOG_BYTES_MAX);
    let (feeder, source) = match channel.open::<Sent>(environment) {
        Ok(channel) => channel,
        Err(error) => {
            let broken = environment.from_source("log", Broken(error.to_string()), WatermarkStrategy::none());
            broken.map(|sent| sent).sink("counts", sink);
            return;
        }
    };
    environment
        .from_source("service", Service { client: Arc::clone(&client), feeder }, WatermarkStrategy::none())
        .sink("nowhere", BlackholeSink::new());
    environment
        .from_source("log", source, WatermarkStrategy::none())
        .filter(move |sent| client.has(sent))
        .key_by(|(number, _)| number % KEYS)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .sink("counts", sink);
}

#[test]
fn what_was_acknowledged_counts_once_whatever_crashes() {
    let expected = (0..NUMBERS).map(|number| (number % KEYS, number / KEYS + 1));
    // The service and the job are two regions: each goes on when an operator of the other fails.
    for operator_failures in [0, 3] {
        let simulation = Simulation::new().seeds(SEEDS).operator_failures(operator_failures);
        let report = simulation.check(expected.clone(), describe);
        let runs = report.runs;
        let enough = report.deaths >= runs / 2
            && report.recoveries >= runs / 4
            && report.checkpoints >= runs
            && report.region_restarts >= operator_failures * runs / 6;
        assert!(enough, "too little went wrong: {report:?}");
    }
}
