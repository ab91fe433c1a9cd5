//! `tidemill checkpoint`, `savepoint`, `stop` and `cancel`, which ask something of a running job, and `checkpoints`, which looks at
//! what there is: exit code 0 when it was done, 1 when it was not.

use clap::Args;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidemill_engine::control::manifest::JobManifest;
use tidemill_engine::control::remote::{Ask, ask};
use tidemill_engine::control::{list_checkpoints, read_savepoint};

/// Which job.
#[derive(Args, Debug)]
struct Job {
    /// Directory of the job's checkpoints.
    #[arg(value_name = "DIR")]
    job: PathBuf,
}

impl Job {
    /// Asks, and says what became of it.
    fn ask(&self, what: &Ask) -> ExitCode {
        match ask(&self.job, what) {
            Ok(path) => {
                // A reader that closes its pipe early has seen enough: it was done.
                let _ = writeln!(io::stdout().lock(), "{}", path.display());
                ExitCode::SUCCESS
            }
            Err(why) => failed(&why),
        }
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("tidemill: {why}");
    ExitCode::FAILURE
}

/// A directory as the job has to name it, whose own working directory may be another.
fn absolute(directory: &Path) -> Result<PathBuf, ExitCode> {
    std::path::absolute(directory).map_err(|error| failed(&format!("{}: {error}", directory.display())))
}

/// `tidemill checkpoint`.
#[derive(Args, Debug)]
pub struct Checkpoint {
    #[command(flatten)]
    job: Job,
}

impl Checkpoint {
    /// Has it taken and prints its manifest.
    pub fn run(self) -> ExitCode {
        self.job.ask(&Ask::Checkpoint)
    }
}

/// `tidemill savepoint`.
#[derive(Args, Debug)]
pub struct Savepoint {
    #[command(flatten)]
    job: Job,
    /// Directory to write it to; made if it does not exist.
    #[arg(value_name = "TARGET")]
    target: PathBuf,
}

impl Savepoint {
    /// Has it written and prints its directory.
    pub fn run(self) -> ExitCode {
        let directory = match absolute(&self.target) {
            Ok(directory) => directory,
            Err(code) => return code,
        };
        self.job.ask(&Ask::Savepoint { directory, stop: false, drain: false })
    }
}

/// `tidemill stop`.
#[derive(Args, Debug)]
pub struct Stop {
    #[command(flatten)]
    job: Job,
    /// Write a savepoint there; otherwise the job takes a checkpoint of its own, and goes on from it when it is started again.
    #[arg(long, value_name = "TARGET")]
    savepoint: Option<PathBuf>,
    /// Let all windows and event-time timers fire first, as at the end of the input. Needs --savepoint.
    #[arg(long, requires = "savepoint")]
    drain: bool,
}

impl Stop {
    /// Stops it and prints where the checkpoint or savepoint is.
    pub fn run(self) -> ExitCode {
        let Some(target) = &self.savepoint else { return self.job.ask(&Ask::Suspend) };
        let directory = match absolute(target) {
            Ok(directory) => directory,
            Err(code) => return code,
        };
        self.job.ask(&Ask::Savepoint { directory, stop: true, drain: self.drain })
    }
}

/// `tidemill cancel`.
#[derive(Args, Debug)]
pub struct Cancel {
    #[command(flatten)]
    job: Job,
}

impl Cancel {
    /// Cancels it.
    pub fn run(self) -> ExitCode {
        self.job.ask(&Ask::Cancel)
    }
}

/// `tidemill checkpoints`.
#[derive(Args, Debug)]
pub struct Checkpoints {
    /// Directory of a job's checkpoints, or a savepoint.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Checkpoints {
    /// Prints them, the newest last; damaged ones with what is wrong with them.
    pub fn run(self) -> ExitCode {
        if let Ok(savepoint) = read_savepoint(&self.directory) {
            return print(&describe("savepoint", &savepoint));
        }
        let found = match list_checkpoints(&self.directory) {
            Ok(found) if found.is_empty() => {
                return failed(&format!("there are no checkpoints in {}", self.directory.display()));
            }
            Ok(found) => found,
            Err(error) => return failed(&error.to_string()),
        };
        let sound = found.iter().all(Result::is_ok);
        let text = found.iter().map(|checkpoint| match checkpoint {
            Ok(manifest) => describe("checkpoint", manifest),
            Err(error) => format!("unusable: {error}\n"),
        });
        let printed = print(&text.collect::<String>());
        if sound { printed } else { ExitCode::FAILURE }
    }
}

fn print(text: &str) -> ExitCode {
    // A reader that closes its pipe early has seen enough.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn describe(kind: &str, manifest: &JobManifest) -> String {
    let JobManifest { job, checkpoint, wall_millis, max_parallelism, operators, .. } = manifest;
    let at = jiff::Timestamp::from_millisecond(*wall_millis).map(|at| at.to_string()).unwrap_or_default();
    let mut text = format!("{kind} {checkpoint} of `{job}`, {at}, {max_parallelism} key groups\n");
    for (id, operator) in operators {
        let (mut splits, mut committables, mut bytes) = (0, 0, 0);
        for subtask in &operator.subtasks {
            splits += subtask.splits.as_ref().map_or(0, Vec::len);
            committables += subtask.committables.len();
            bytes += subtask.bytes.as_ref().map_or(0, Vec::len);
        }
        let parts = operator.manifests().len();
        let subtasks = operator.subtasks.len();
        let name = &operator.name;
        text += &format!("  {id} ({name}): {subtasks} subtasks");
        for (count, what) in [
            (splits, "splits to read on"),
            (parts, "parts of keyed state"),
            (committables, "things to commit"),
            (bytes, "bytes of its own"),
        ] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text.push('\n');
    }
    text
}
