//! `crash`: a real process is killed with `SIGKILL` at random moments and started again, and what it has committed is compared
//! with what it should have.
//!
//! A round is one job: this program starts itself again as the job ([`job`]), kills it after a random time, from at once
//! to some hundred milliseconds, so also while it starts and while it recovers, and starts it again with another number of
//! cores and other barriers; after so many kills it lets it come to its end. In every other round both cores are kept busy by others. Then every
//! committed row is read: none may be missing, there twice, or different.

mod job;

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tidemill::platform::Random;

use self::job::{CORES_VARIABLE, Committed, DIRECTORY_VARIABLE};
use super::Options;
use crate::{
    error::BenchError,
    report::{Line, Reporter},
};

/// Kills in one round.
const KILLS_PER_ROUND: u64 = 20;
/// The longest life that ends with a kill.
const LIFE_MS_MAX: u64 = 400;
/// When barriers overtake: in one life always, in another after some time, in another never.
const UNALIGNED_AFTER_MS: [Option<u64>; 3] = [None, Some(0), Some(4)];
/// A job that is left alone and does not come to its end in this time hangs.
const END_MAX: Duration = Duration::from_secs(120);

/// What all rounds came to.
#[derive(Default)]
struct Totals {
    kills: u64,
    /// Kills within the first 20 ms: while the process starts or recovers.
    early: u64,
    rows: u64,
    lost: u64,
    duplicated: u64,
    wrong: u64,
}

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    if let Ok(directory) = env::var(DIRECTORY_VARIABLE) {
        return job::run(Path::new(&directory));
    }
    let kills_wanted = options.pick(3_000, KILLS_PER_ROUND);
    let records = options.pick(job::RECORDS, job::RECORDS / 4);
    let seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id());
    let (mut random, mut totals) = (Random::from_seed(seed), Totals::default());
    for round in 0.. {
        let contended = round % 2 == 1;
        let place = Place::new(round)?;
        let busy = contended.then(|| KeepBusy::begin(options.cores));
        if let Err(error) = play(&place, records, options.cores, &mut random, &mut totals) {
            place.keep();
            return Err(error);
        }
        drop(busy);
        totals.add(&job::check(&place.0, records)?);
        eprintln!(
            "crash: {} kills, {} rows, {} lost, {} duplicated, {} wrong",
            totals.kills, totals.rows, totals.lost, totals.duplicated, totals.wrong
        );
        if totals.is_bad() || totals.kills >= kills_wanted {
            if totals.is_bad() {
                place.keep();
            }
            break;
        }
    }
    let figure = |case, value: u64, unit| Line::new("crash", case, options.cores).value(value as f64, unit);
    reporter.print(&figure("kills", totals.kills, "kills"))?;
    reporter.print(&figure("early-kills", totals.early, "kills"))?;
    reporter.print(&figure("rows", totals.rows, "rows"))?;
    reporter.print(&figure("lost", totals.lost, "rows"))?;
    reporter.print(&figure("duplicated", totals.duplicated, "rows"))?;
    reporter.print(&figure("wrong", totals.wrong, "rows"))?;
    if totals.is_bad() {
        let difference = format!(
            "{} rows lost, {} committed twice, {} wrong, of {}",
            totals.lost, totals.duplicated, totals.wrong, totals.rows
        );
        return Err(BenchError::WrongAnswer { side: "the job".into(), query: "crash".into(), difference });
    }
    Ok(())
}

impl Totals {
    fn add(&mut self, committed: &Committed) {
        self.rows += committed.rows;
        self.lost += committed.lost;
        self.duplicated += committed.duplicated;
        self.wrong += committed.wrong;
    }

    fn is_bad(&self) -> bool {
        self.lost + self.duplicated + self.wrong > 0
    }
}

/// Kills and starts one job until it has been killed often enough, then lets it come to its end.
fn play(
    place: &Place,
    records: u64,
    cores: usize,
    random: &mut Random,
    totals: &mut Totals,
) -> Result<(), BenchError> {
    for _ in 0..KILLS_PER_ROUND {
        let life = Duration::from_millis(random.below(LIFE_MS_MAX));
        let mut child = start(place, records, cores, random)?;
        thread::sleep(life);
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            return Err(died(place));
        }
        child.kill()?;
        child.wait()?;
        totals.kills += 1;
        totals.early += u64::from(life < Duration::from_millis(20));
    }
    let mut child = start(place, records, cores, random)?;
    let end = Instant::now() + END_MAX;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(_) => return Err(died(place)),
            None if Instant::now() > end => {
                child.kill()?;
                return Err(BenchError::Peer { peer: "the job", reason: format!("no end in {END_MAX:?}") });
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn start(
    place: &Place,
    records: u64,
    cores: usize,
    random: &mut Random,
) -> Result<std::process::Child, BenchError> {
    let said = File::options().create(true).append(true).open(place.said())?;
    let cores = 1 + random.below(cores as u64);
    let mut command = Command::new(env::current_exe()?);
    if let Some(unaligned_after_ms) = UNALIGNED_AFTER_MS[random.below(3) as usize] {
        command.env(job::UNALIGNED_VARIABLE, unaligned_after_ms.to_string());
    }
    Ok(command
        .arg("crash")
        .env(DIRECTORY_VARIABLE, &place.0)
        .env(CORES_VARIABLE, cores.to_string())
        .env(job::RECORDS_VARIABLE, records.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()?)
}

/// The job ended by itself, with an error: the last thing that it has said.
fn died(place: &Place) -> BenchError {
    let said = fs::read_to_string(place.said()).unwrap_or_default();
    let reason = said.trim_end().lines().next_back().unwrap_or("it has said nothing").to_owned();
    BenchError::Peer { peer: "the job", reason }
}

/// Where one job keeps everything. Removed with it.
struct Place(PathBuf);

impl Place {
    fn new(round: u64) -> Result<Self, BenchError> {
        let name = format!("tidemill-crash-{}-{round}", std::process::id());
        let place = Self(env::temp_dir().join(name));
        fs::create_dir_all(&place.0)?;
        Ok(place)
    }

    /// Leaves everything there for whoever looks for the reason.
    fn keep(self) {
        eprintln!("crash: what the job has written and said is kept in {}", self.0.display());
        std::mem::forget(self);
    }

    /// What the job has said, in all its lives.
    fn said(&self) -> PathBuf {
        self.0.join("said")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays behind is only garbage in the directory for such.
        let _ = fs::remove_dir_all(&self.0);
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
