//! Your own job under simulation: every seed is another schedule with other faults, and the output must be the same.
//!
//! The whole job runs in one thread: workers, checkpoints, state and recovery are those of production, the clock is virtual,
//! the disk is in memory. A seed chooses the parallelism of each life of the process, sizes of batches and channels, the order
//! in which workers are turned, and what goes wrong: the process is killed at any turn, also while it recovers; a worker is
//! lost; operators fail ([`Simulation::operator_failures`]); a core stands still; writes and reads fail; writes are torn, damaged or lost with a
//! power cut; the disk is full; the wall clock jumps; checkpoints are damaged on the disk ([`Simulation::damage`]). Some lives end because the
//! job is asked to stop, or drained ([`Simulation::drains`]), and some begin with the savepoint behind which it was. The same seed gives
//! the same run.
//!
//! ```
//! use tidemill_operators::{sim::Simulation, source::from_vec};
//! use tidemill_engine::model::watermark::WatermarkStrategy;
//!
//! let expected = (0..100_u64).map(|number| number * 2);
//! Simulation::new().seeds(20).check(expected, |environment, sink| {
//!     environment
//!         .from_source("numbers", from_vec((0..100_u64).collect()), WatermarkStrategy::none())
//!         .map(|number| number * 2)
//!         .sink("doubled", sink);
//! });
//! ```

mod damage;
mod draw;
mod files;
mod in_place;
mod ledger;
mod life;
mod outside;
mod own;
mod report;
mod request;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, env, fmt::Debug, ops::Range, path::Path, thread};

use tidemill_engine::model::source::BoxError;
use tidemill_storage::snapshot::disk::memory::MemoryDisk;

pub use files::{csv_rows, json_rows};
pub use ledger::{SimSink, SimSinkWriter};
pub use own::SimOutside;
pub use report::SimReport;

use files::{Files, Wanted};
use in_place::InPlace;
use ledger::LedgerOutside;
use life::Lives;
use outside::Outside;
use own::OwnOutside;

use crate::{api::environment::StreamEnvironment, sink::DeliveryGuarantee};

/// Replays one seed instead of all.
const SEED_VARIABLE: &str = "TIDEMILL_SIM_SEED";
/// Overrides the number of seeds.
const SEEDS_VARIABLE: &str = "TIDEMILL_SIM_SEEDS";
/// Lines of a difference that are shown.
const SHOWN_MAX: usize = 20;

/// Runs a job under many seeds. See the [module](self).
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `check`"]
pub struct Simulation {
    seeds: Range<u64>,
    kills_max: u64,
    parallelism_max: usize,
    operator_failures_max: u64,
    remote: bool,
    guarantee: DeliveryGuarantee,
    requests_max: u64,
    drains: bool,
    damage: bool,
}

impl Default for Simulation {
    fn default() -> Self {
        Self::new()
    }
}

impl Simulation {
    /// 100 seeds, up to 3 kills each, up to 4 workers, operators that do not fail.
    pub fn new() -> Self {
        Self {
            seeds: 0..100,
            kills_max: 3,
            parallelism_max: 4,
            operator_failures_max: 0,
            remote: false,
            guarantee: DeliveryGuarantee::ExactlyOnce,
            requests_max: 3,
            drains: false,
            damage: false,
        }
    }

    /// This many seeds, from 0 on.
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = 0..seeds;
        self
    }

    /// Kills the process so many times at most per seed.
    pub fn kills_max(mut self, kills_max: u64) -> Self {
        self.kills_max = kills_max;
        self
    }

    /// Runs with up to so many workers; each life of the process may have another number.
    pub fn parallelism_max(mut self, parallelism_max: usize) -> Self {
        self.parallelism_max = parallelism_max.max(1);
        self
    }

    /// Has operators fail so many times at most in each life of the process: one panics, fails, or does not open when it is started again. The
    /// job, or the [region](tidemill_engine::model::regions) that the operator is in, goes on from its newest checkpoint.
    pub fn operator_failures(mut self, operator_failures_max: u64) -> Self {
        self.operator_failures_max = operator_failures_max;
        self
    }

    /// Keeps checkpoints in a remote store too, which fails now and then; and loses the whole machine, with its disk, instead of
    /// the process alone in half of the deaths.
    pub fn remote(mut self) -> Self {
        self.remote = true;
        self
    }

    /// What [`check_files`](Self::check_files) expects of the job's sink. Under [`DeliveryGuarantee::AtLeastOnce`] rows may be there
    /// more than once, and a file that a reader has taken may be gone after a power cut; in the end every row is in a file that
    /// is there.
    pub fn delivery_guarantee(mut self, guarantee: DeliveryGuarantee) -> Self {
        self.guarantee = guarantee;
        self
    }

    /// Drains the job now and then, as `tidemill stop --savepoint --drain` does: of the lives that end behind a savepoint half come to their end
    /// where their input has not. All windows and timers of event time fire with what they have, and the next life begins with the savepoint, or
    /// goes on from the checkpoints, and reads on. A window that had fired fires again for what comes into it then. So this is for jobs
    /// whose output does not depend on it: without state, or rolling.
    pub fn drains(mut self) -> Self {
        self.drains = true;
        self
    }

    /// Damages the newest checkpoint on the disk in most of the pauses between two lives: a bit of its manifest changes, or of another of its
    /// files. The job has to go on from the checkpoint before, or, where that is not kept, to refuse to start and name the file, which is then
    /// mended; it may never begin anew. With [`remote`](Self::remote) the file has to be brought back, and nothing else changes.
    ///
    /// What sinks had committed behind the checkpoint before comes again: that cannot be otherwise, and [`check`](Self::check) takes it back for
    /// the job. Files cannot be taken back: with [`check_files`](Self::check_files) and
    /// [`check_files_in_place`](Self::check_files_in_place) nothing is damaged but with `remote`. Nothing is damaged any more once the job
    /// has begun with a savepoint.
    pub fn damage(mut self) -> Self {
        self.damage = true;
        self
    }

    /// Runs the job that `describe` describes under every seed. What it commits to the given sink has to be `expected`, in any
    /// order. `describe` is called for each life of the process anew, as a program is started anew.
    ///
    /// With `TIDEMILL_SIM_SEED=n` in the environment only seed n runs; `TIDEMILL_SIM_SEEDS=n` runs another number of them, at least one.
    ///
    /// # Panics
    /// When something was committed twice or never, or the job does not end: with the seed, the command that replays it, and the
    /// last events.
    pub fn check<T, D>(self, expected: impl IntoIterator<Item = T>, describe: D) -> SimReport
    where
        T: Clone + Debug + Send + 'static,
        D: Fn(&StreamEnvironment, SimSink<T>),
    {
        let expected = counted(expected);
        self.run(|_| LedgerOutside::new(&expected, &describe))
    }

    /// As [`check`](Self::check), for a job that commits to files: what is in the files of `directory` on the simulated disk has
    /// to be `expected`, in any order. `rows` says what the bytes of one file hold; see [`csv_rows`] and [`json_rows`].
    ///
    /// A reader runs beside the job and takes each file when it first sees it, but for those whose names begin with a dot. A
    /// file that has been taken may not change, and has to be there whenever the job has begun, in this life and all that follow.
    /// The directory is on the machine: with [`remote`](Self::remote) no machine is lost.
    ///
    /// ```
    /// use tidemill_operators::{sim::{Simulation, csv_rows}, sink::FileSink, source::from_vec};
    /// use tidemill_engine::model::watermark::WatermarkStrategy;
    ///
    /// let expected = (0..100_u64).map(|number| number * 2);
    /// Simulation::new().seeds(20).check_files("/doubled", csv_rows, expected, |environment| {
    ///     environment
    ///         .from_source("numbers", from_vec((0..100_u64).collect()), WatermarkStrategy::none())
    ///         .map(|number| number * 2)
    ///         .sink("doubled", FileSink::csv("/doubled").columns(["number"]));
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`check`](Self::check), and when a reader sees what it may not.
    pub fn check_files<T, R, D>(
        self,
        directory: impl AsRef<Path>,
        rows: R,
        expected: impl IntoIterator<Item = T>,
        describe: D,
    ) -> SimReport
    where
        T: Debug,
        R: Fn(&[u8]) -> Result<Vec<T>, BoxError>,
        D: Fn(&StreamEnvironment),
    {
        let expected = counted(expected);
        let rows = |file: &[u8]| rows(file).map(counted);
        let guarantee = self.guarantee;
        let wanted = Wanted { rows: &rows, expected: &expected, guarantee };
        self.run(|disk| Files::new(disk.clone(), directory.as_ref(), wanted.clone(), &describe))
    }

    /// As [`check_files`](Self::check_files), for a sink that writes rows into its files as they come: [`CsvSink`](crate::sink::CsvSink) or
    /// [`JsonLinesSink`](crate::sink::JsonLinesSink). What is in the files under `directory` in the end has to be `expected`, in any order; then the
    /// power is cut once more, and it has to be there still.
    ///
    /// Meanwhile a reader may see rows twice, so only that is looked at which a complete checkpoint knows: it may not change, or be lost,
    /// whatever happens.
    ///
    /// ```
    /// use tidemill_operators::{sim::{Simulation, json_rows}, sink::JsonLinesSink, source::from_vec};
    /// use tidemill_engine::model::watermark::WatermarkStrategy;
    ///
    /// let expected = (0..100_u64).map(|number| number * 2);
    /// Simulation::new().seeds(20).check_files_in_place("/doubled", json_rows, expected, |environment| {
    ///     environment
    ///         .from_source("numbers", from_vec((0..100_u64).collect()), WatermarkStrategy::none())
    ///         .map(|number| number * 2)
    ///         .sink("doubled", JsonLinesSink::directory("/doubled"));
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`check`](Self::check), and when something is changed or lost that may not.
    pub fn check_files_in_place<T, R, D>(
        self,
        directory: impl AsRef<Path>,
        rows: R,
        expected: impl IntoIterator<Item = T>,
        describe: D,
    ) -> SimReport
    where
        T: Debug,
        R: Fn(&[u8]) -> Result<Vec<T>, BoxError>,
        D: Fn(&StreamEnvironment),
    {
        let expected = counted(expected);
        let rows = |file: &[u8]| rows(file).map(counted);
        self.run(|disk| InPlace::new(disk.clone(), directory.as_ref(), &rows, &expected, &describe))
    }

    /// As [`check`](Self::check), for a job that commits by a sink of your own: the system that it commits to is a `W`, which outlives the
    /// process and begins as [`Default`] says under each seed. What `rows` finds in it when the job has come to its end has to be
    /// `expected`, in any order.
    ///
    /// The sink reaches it by [`SimOutside::ask`], as the real one reaches a server: what it has done there stays done, also when the process
    /// is killed right behind. Nobody can take that back, so no checkpoint is [damaged](Self::damage) but with [`remote`](Self::remote). A
    /// job with other sinks beside it gives their rows to the same `W`.
    ///
    /// ```
    /// use tidemill_operators::{sim::{SimOutside, Simulation}, source::from_vec};
    /// use tidemill_engine::model::{
    ///     sink::{Sink, SinkWriter}, source::{BoxError, SubtaskContext}, time::Timestamp, watermark::WatermarkStrategy,
    /// };
    /// use std::collections::BTreeSet;
    ///
    /// /// Puts numbers into a set: each once, however often it is put.
    /// #[derive(Clone)]
    /// struct Put(SimOutside<BTreeSet<u64>>);
    ///
    /// impl Sink<u64> for Put {
    ///     type Writer = Self;
    ///     fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> { Ok(()) }
    ///     fn open(&self, _context: &SubtaskContext) -> Result<Self, BoxError> { Ok(self.clone()) }
    /// }
    ///
    /// impl SinkWriter<u64> for Put {
    ///     fn write(&mut self, number: u64, _timestamp: Timestamp) -> Result<(), BoxError> {
    ///         self.0.ask(|set| set.insert(number)).map(drop)
    ///     }
    ///     fn flush(&mut self) -> Result<(), BoxError> { Ok(()) }
    ///     fn finish(&mut self) -> Result<(), BoxError> { Ok(()) }
    /// }
    ///
    /// let rows = |set: &BTreeSet<u64>| set.iter().copied().collect();
    /// Simulation::new().seeds(20).check_outside(rows, 0..100_u64, |environment, set| {
    ///     environment
    ///         .from_source("numbers", from_vec((0..100_u64).collect()), WatermarkStrategy::none())
    ///         .sink("set", Put(set));
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`check`](Self::check).
    pub fn check_outside<W, T, R, D>(
        self,
        rows: R,
        expected: impl IntoIterator<Item = T>,
        describe: D,
    ) -> SimReport
    where
        W: Default + Send + 'static,
        T: Debug,
        R: Fn(&W) -> Vec<T>,
        D: Fn(&StreamEnvironment, SimOutside<W>),
    {
        let expected = counted(expected);
        self.run(|_| OwnOutside::new(&rows, &expected, &describe))
    }

    /// Runs every seed with an outside of its own.
    fn run<O: Outside>(self, outside: impl Fn(&MemoryDisk) -> O) -> SimReport {
        let mut report = SimReport::default();
        let seeds = match (number(SEED_VARIABLE, 0), number(SEEDS_VARIABLE, 1)) {
            (Some(seed), _) => seed..seed + 1,
            (None, Some(seeds)) => self.seeds.start..self.seeds.start + seeds,
            (None, None) => self.seeds.clone(),
        };
        let lives = |seed| {
            let disk = MemoryDisk::default();
            let outside = outside(&disk);
            Lives::new(&self, seed, disk, outside)
        };
        // How long the job takes when nothing goes wrong: faults are spread over somewhat more than that.
        // Measured under the same seed whichever are run, so that a seed alone says what happens.
        let calm = lives(0).run_calmly();
        for seed in seeds {
            let mut lives = lives(seed);
            let wrong = match lives.run(calm) {
                Ok(()) => lives.outside.wrong(),
                Err(wrong) => Some(wrong),
            };
            if let Some(wrong) = wrong {
                fail(seed, &wrong, &lives.story());
            }
            lives.report.files = lives.outside.files();
            report.add(&lives.report);
        }
        report
    }
}

#[expect(clippy::panic, reason = "this is how a test fails")]
fn fail(seed: u64, wrong: &str, story: &str) -> ! {
    let current = thread::current();
    // The thread of a test has its name; others than this one may contain it.
    let test = current.name().map(|name| format!(" {name} -- --exact")).unwrap_or_else(|| " --".to_owned());
    panic!(
        "under seed {seed}: {wrong}\nto replay: {SEED_VARIABLE}={seed} cargo test{test} --nocapture\nthe last events:\n{story}"
    );
}

/// The number in a variable of the environment, if it is set; `least` or more.
#[expect(clippy::panic, reason = "this is how a test fails")]
fn number(variable: &str, least: u64) -> Option<u64> {
    let text = env::var(variable).ok()?;
    match text.parse() {
        Ok(number) if number >= least => Some(number),
        // A test that runs nothing would pass.
        Ok(_) => panic!("{variable} is {text}: it must be at least {least}, such as {variable}=7"),
        Err(_) => {
            panic!("{variable} is `{text}`: a simulation's seeds are numbers from 0 on, such as {variable}=7")
        }
    }
}

/// How often there is what shows as this.
type Counts = BTreeMap<String, u64>;

fn counted<T: Debug>(records: impl IntoIterator<Item = T>) -> Counts {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts.entry(format!("{record:?}")).or_default() += 1;
    }
    counts
}

/// What differs, in words, if anything does.
fn difference(expected: &Counts, found: &Counts) -> Option<String> {
    let count = |counts: &Counts, record: &String| counts.get(record).copied().unwrap_or(0);
    let mut records: Vec<&String> = expected.keys().chain(found.keys()).collect();
    records.sort_unstable();
    records.dedup();
    let differing = records.into_iter().filter(|record| count(expected, record) != count(found, record));
    let lines: Vec<String> = differing
        .map(|record| {
            format!("  {record}: {} times instead of {}", count(found, record), count(expected, record))
        })
        .collect();
    if lines.is_empty() {
        return None;
    }
    let mut shown = lines.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>();
    if lines.len() > SHOWN_MAX {
        shown.push(format!("  … and {} more", lines.len() - SHOWN_MAX));
    }
    Some(format!("{} records were not committed exactly once:\n{}", lines.len(), shown.join("\n")))
}
