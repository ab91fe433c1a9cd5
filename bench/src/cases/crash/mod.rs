//! `crash`: a real process is killed with `SIGKILL` at random moments and started again, and what it has committed is compared
//! with what it should have.
//!
//! A round is one job: this program starts itself again as the job ([`job`]), kills it after a random time, from at once
//! to some hundred milliseconds, so also while it starts and while it recovers, and starts it again with another number of
//! cores and other barriers; after so many kills it lets it come to its end. The job commits every row to files and, where a PostgreSQL server
//! can be started ([`outside`]), to a table of it: by prepared transactions and by key in turn. Now and then the server is killed, too.
//! In two of four rounds all cores are kept busy by others. Then every committed row is read ([`check`]): none may be missing,
//! there twice, or different, and no prepared transaction may be left.

mod check;
mod job;
mod outside;

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tidemill::platform::Random;

use self::{
    check::{Committed, Expected},
    job::{
        CORES_VARIABLE, DIRECTORY_VARIABLE, MODE_VARIABLE, POSTGRES_VARIABLE, RECORDS_VARIABLE,
        UNALIGNED_VARIABLE,
    },
    outside::{Mode, Outside},
};
use super::{Options, scratch::Scratch};
use crate::{
    error::BenchError,
    report::{Line, Reporter},
};

/// The longest life that ends with a kill.
const LIFE_MS_MAX: u64 = 400;
/// When barriers overtake: in one life always, in another after some time, in another never.
const UNALIGNED_AFTER_MS: [Option<u64>; 3] = [None, Some(0), Some(4)];
/// A job that is left alone and completes no checkpoint in this time hangs.
const STEP_MAX: Duration = Duration::from_secs(120);

/// What all rounds came to.
#[derive(Default)]
struct Totals {
    kills: u64,
    /// Kills within the first 20 ms: while the process starts or recovers.
    early: u64,
    /// By sink.
    committed: BTreeMap<&'static str, Committed>,
    /// Prepared transactions that were neither committed nor rolled back.
    left: u64,
}

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    if let Ok(directory) = env::var(DIRECTORY_VARIABLE) {
        return job::run(Path::new(&directory));
    }
    // Both ways to write to the table have their turn.
    let (kills_wanted, kills_per_round) = options.pick((3_000, 20), (20, 10));
    let records = options.pick(job::RECORDS, job::RECORDS / 4);
    let expected = Expected::of(records);
    let seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id());
    let (mut random, mut totals) = (Random::from_seed(seed), Totals::default());
    let mut outside = Outside::start(options.cores)?;
    for number in 0.. {
        let mode = Mode::of_round(number);
        let round = Round::new(number, mode, records, options.cores, outside.as_ref())?;
        let busy = is_contended(number).then(|| KeepBusy::begin(options.cores));
        let played = round.play(kills_per_round, outside.as_mut(), &mut random, &mut totals);
        drop(busy);
        outside.iter_mut().try_for_each(|outside| outside.server.up())?;
        let checked = played.and_then(|()| totals.add(&round, &expected, outside.as_ref()));
        if checked.is_err() || totals.is_bad() {
            eprintln!("crash: what the job has written and said is kept in {}", round.place.keep().display());
        }
        checked?;
        eprintln!("crash: {}", totals.summary());
        if totals.is_bad() || totals.kills >= kills_wanted {
            break;
        }
    }
    totals.report(options, outside.as_ref(), reporter)
}

/// Whether all cores are kept busy by others in a round: in every other two, so that both ways to write to the table are played
/// with and without, and in the second of the two rounds of the quick form.
fn is_contended(round: u64) -> bool {
    matches!(round % 4, 1 | 2)
}

impl Totals {
    /// Adds what one job has committed.
    fn add(
        &mut self,
        round: &Round,
        expected: &Expected,
        outside: Option<&Outside>,
    ) -> Result<(), BenchError> {
        let files = expected.compare(check::in_files(&round.place.path().join("rows"))?);
        self.committed.entry("files").or_default().add(&files);
        if let Some(outside) = outside {
            let table = expected.compare(check::in_table(&outside.server)?);
            self.committed.entry(round.mode.sink()).or_default().add(&table);
            self.left += outside.server.prepared_transactions()?.unsigned_abs();
        }
        Ok(())
    }

    fn is_bad(&self) -> bool {
        self.left > 0 || self.committed.values().any(Committed::is_bad)
    }

    fn summary(&self) -> String {
        let of_sink = |(sink, committed): (&&str, &Committed)| {
            let Committed { rows, lost, duplicated, wrong } = committed;
            format!("; {sink}: {rows} rows, {lost} lost, {duplicated} duplicated, {wrong} wrong")
        };
        let sinks: String = self.committed.iter().map(of_sink).collect();
        format!("{} kills{sinks}; {} transactions left", self.kills, self.left)
    }

    fn report(
        &self,
        options: &Options,
        outside: Option<&Outside>,
        reporter: &mut Reporter,
    ) -> Result<(), BenchError> {
        let mut print = |case: &str, value: u64, unit| {
            reporter.print(&Line::new("crash", case, options.cores).value(value as f64, unit))
        };
        print("kills", self.kills, "kills")?;
        print("early-kills", self.early, "kills")?;
        for (sink, committed) in &self.committed {
            print(&format!("{sink}-rows"), committed.rows, "rows")?;
            print(&format!("{sink}-lost"), committed.lost, "rows")?;
            print(&format!("{sink}-duplicated"), committed.duplicated, "rows")?;
            print(&format!("{sink}-wrong"), committed.wrong, "rows")?;
        }
        if let Some(outside) = outside {
            print("postgres-kills", outside.kills, "kills")?;
            print("postgres-prepared-at-kills", outside.left_by_kills, "transactions")?;
            print("postgres-left-prepared", self.left, "transactions")?;
        }
        if self.is_bad() {
            let difference = self.summary();
            return Err(BenchError::WrongAnswer {
                side: "the job".into(),
                query: "crash".into(),
                difference,
            });
        }
        Ok(())
    }
}

/// One job.
struct Round {
    place: Scratch,
    mode: Mode,
    records: u64,
    cores: usize,
    /// How to connect to the server, if there is one.
    connection: Option<String>,
}

impl Round {
    fn new(
        number: u64,
        mode: Mode,
        records: u64,
        cores: usize,
        outside: Option<&Outside>,
    ) -> Result<Self, BenchError> {
        outside.iter().try_for_each(|outside| outside.begin(mode))?;
        let connection = outside.map(|outside| outside.server.connection());
        Ok(Self { place: Scratch::new(&format!("crash-{number}"))?, mode, records, cores, connection })
    }

    /// Kills and starts the job until it has been killed often enough, then lets it come to its end.
    fn play(
        &self,
        kills: u64,
        mut outside: Option<&mut Outside>,
        random: &mut Random,
        totals: &mut Totals,
    ) -> Result<(), BenchError> {
        for _ in 0..kills {
            let mut child = self.start_with(outside.as_deref_mut(), random)?;
            let life = Duration::from_millis(random.below(LIFE_MS_MAX));
            match &mut outside {
                Some(outside) => outside.pass(life, random)?,
                None => thread::sleep(life),
            }
            if let Some(status) = child.try_wait()? {
                return if status.success() { Ok(()) } else { Err(self.died()) };
            }
            child.kill()?;
            child.wait()?;
            if let Some(outside) = &mut outside {
                outside.note_kill()?;
            }
            totals.kills += 1;
            totals.early += u64::from(life < Duration::from_millis(20));
        }
        let mut child = self.start_with(outside, random)?;
        let (mut step, mut since) = (None, Instant::now());
        loop {
            // Manifests come and go there.
            let manifests = self.place.path().join("checkpoints/checkpoints");
            let now = fs::metadata(manifests).and_then(|at| at.modified()).ok();
            if now != step {
                (step, since) = (now, Instant::now());
            }
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => return Err(self.died()),
                None if since.elapsed() > STEP_MAX => {
                    child.kill()?;
                    return Err(BenchError::Peer {
                        peer: "the job",
                        reason: format!("no checkpoint in {STEP_MAX:?}"),
                    });
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Starts the job, and the server before or behind it if it is down.
    fn start_with(&self, outside: Option<&mut Outside>, random: &mut Random) -> Result<Child, BenchError> {
        let Some(outside) = outside else { return self.start(random) };
        if random.below(2) == 0 {
            outside.server.up()?;
            return self.start(random);
        }
        let child = self.start(random)?;
        outside.server.up()?;
        Ok(child)
    }

    fn start(&self, random: &mut Random) -> Result<Child, BenchError> {
        let said = File::options().create(true).append(true).open(self.said())?;
        let cores = 1 + random.below(self.cores as u64);
        let mut command = Command::new(env::current_exe()?);
        command
            .arg("crash")
            .env(DIRECTORY_VARIABLE, self.place.path())
            .env(CORES_VARIABLE, cores.to_string())
            .env(RECORDS_VARIABLE, self.records.to_string());
        if let Some(connection) = &self.connection {
            command.env(POSTGRES_VARIABLE, connection).env(MODE_VARIABLE, self.mode.name());
        }
        if let Some(unaligned_after_ms) = UNALIGNED_AFTER_MS[random.below(3) as usize] {
            command.env(UNALIGNED_VARIABLE, unaligned_after_ms.to_string());
        }
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn()?)
    }

    /// What the job has said, in all its lives.
    fn said(&self) -> PathBuf {
        self.place.path().join("said")
    }

    /// The job ended by itself, with an error: the last thing that it has said.
    fn died(&self) -> BenchError {
        let said = fs::read_to_string(self.said()).unwrap_or_default();
        let reason = said.trim_end().lines().next_back().unwrap_or("it has said nothing").to_owned();
        BenchError::Peer { peer: "the job", reason }
    }
}

/// Threads that keep all cores busy.
struct KeepBusy {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl KeepBusy {
    fn begin(cores: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..cores).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        });
        Self { threads: threads.collect(), stop }
    }
}

impl Drop for KeepBusy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_rounds_know_contention_and_each_mode_is_played_with_and_without() {
        assert!((0..2).any(is_contended) && !(0..2).all(is_contended));
        for mode in [Mode::Insert, Mode::Upsert] {
            let rounds = || (0..4).filter(|round| Mode::of_round(*round) == mode);
            assert!(rounds().any(is_contended) && !rounds().all(is_contended));
        }
    }
}
