//! How fast a process that was killed is back: this program starts itself as the job, kills it once a checkpoint of all its state is
//! complete, and starts it again.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tidemill::prelude::*;

use super::{checkpoints, count::Count};
use crate::{
    cases::{Options, scratch::Scratch},
    error::BenchError,
    report::{Line, Reporter},
    versus::Rounds,
};

const DIRECTORY_VARIABLE: &str = "TIDEMILL_RECOVERY_DIRECTORY";
const KEYS_VARIABLE: &str = "TIDEMILL_RECOVERY_KEYS";
const CORES_VARIABLE: &str = "TIDEMILL_RECOVERY_CORES";
/// What the job says when a checkpoint of all its state is complete, and when it has a result.
const READY: &str = "ready";
const RESULT: &str = "result";

fn number(name: &str) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Whether this process is to be the job.
pub(super) fn is_asked_for() -> bool {
    env::var_os(DIRECTORY_VARIABLE).is_some()
}

fn say(word: &str) {
    // Whoever does not listen any more has killed this process, or is about to.
    let _ = writeln!(std::io::stdout().lock(), "{word}");
}

/// The job: touches all keys, then some of them for ever.
pub(super) fn run_job() -> Result<(), BenchError> {
    let directory = PathBuf::from(env::var_os(DIRECTORY_VARIABLE).unwrap_or_default());
    let keys = number(KEYS_VARIABLE);
    let count = Count::<4> {
        keys,
        records: u64::MAX / 4,
        later: 0,
        touched: keys,
        cores: number(CORES_VARIABLE) as usize,
    };
    let config = JobConfig {
        name: "recovery".to_owned(),
        parallelism: count.cores,
        max_parallelism: Some(128),
        ..JobConfig::default()
    };
    let env = StreamEnvironment::with_config(config).checkpoints(checkpoints(&directory, 60_000));
    let mut is_first = true;
    count.describe(&env, move |counted| {
        std::hint::black_box(counted);
        if std::mem::take(&mut is_first) {
            say(RESULT);
        }
    });
    let job = env.start()?;
    let monitor = job.monitor();
    thread::spawn(move || {
        // All keys were touched once so many records were counted.
        while monitor
            .metrics()
            .operator("count")
            .is_none_or(|count| count.counters.records_in < keys + keys / 2)
        {
            thread::sleep(Duration::from_millis(20));
        }
        if monitor.checkpoint().is_ok() {
            say(READY);
        }
    });
    job.wait()?;
    Ok(())
}

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    // With its key and the store's own, a record has 40 bytes.
    let (keys, rounds) = options.pick(((1 << 30) / 40, 3), (100_000, 1));
    let place = Scratch::new("recovery")?;
    let mut process = start(&place, keys, options.cores)?;
    wait_for(READY, &mut process)?;
    let recovered = Rounds::measure(rounds, || {
        process.kill()?;
        process.wait()?;
        let killed = Instant::now();
        process = start(&place, keys, options.cores)?;
        wait_for(RESULT, &mut process)?;
        Ok::<_, BenchError>(killed.elapsed().as_secs_f64())
    });
    process.kill()?;
    process.wait()?;
    reporter
        .print(&Line::new("checkpoint", "recovery", options.cores).rounds(&recovered?, "s").over(keys, None))
}

fn start(place: &Scratch, keys: u64, cores: usize) -> Result<Child, BenchError> {
    Ok(Command::new(env::current_exe()?)
        .arg("checkpoint")
        .env(DIRECTORY_VARIABLE, place.path())
        .env(KEYS_VARIABLE, keys.to_string())
        .env(CORES_VARIABLE, cores.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?)
}

/// Waits until the job says a word.
fn wait_for(word: &str, process: &mut Child) -> Result<(), BenchError> {
    let said = process.stdout.as_mut().map(BufReader::new);
    for line in said.into_iter().flat_map(BufRead::lines) {
        if line? == word {
            return Ok(());
        }
    }
    Err(BenchError::Peer { peer: "the job", reason: format!("it ended before it said `{word}`") })
}
