//! `tidemill checkpoint`, `savepoint`, `stop` and `cancel`, which ask something of a running job: exit code 0 when it was done, 1 when it
//! was not.

use clap::Args;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use tidemill_engine::control::remote::{Ask, ask};
use tidemill_engine::model::savepoint::SavepointPlace;

use super::failed;

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
            Ok(place) => {
                // A reader that closes its pipe early has seen enough: it was done.
                let _ = writeln!(io::stdout().lock(), "{place}");
                ExitCode::SUCCESS
            }
            Err(why) => failed(&why),
        }
    }
}

/// Where a savepoint is to go, as the job has to be told it: its own working directory may be another.
fn target(text: &str) -> Result<String, ExitCode> {
    let place = SavepointPlace::from(text);
    place.check("the place of the savepoint").map_err(|error| failed(&error.to_string()))?;
    let Some(directory) = place.as_directory() else { return Ok(text.to_owned()) };
    let absolute = std::path::absolute(directory).map_err(|error| failed(&format!("{text}: {error}")))?;
    let unnamed = || failed(&format!("{} is not text: name another directory", absolute.display()));
    absolute.to_str().map(str::to_owned).ok_or_else(unnamed)
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
    /// Directory to write it to, made if it does not exist; or a URL, s3://BUCKET/PREFIX or file:///DIRECTORY. The job reaches a store as
    /// it reaches that of its own checkpoints, if it has one.
    #[arg(value_name = "TARGET")]
    target: String,
}

impl Savepoint {
    /// Has it written and prints where it is.
    pub fn run(self) -> ExitCode {
        match target(&self.target) {
            Ok(target) => self.job.ask(&Ask::Savepoint { target, stop: false, drain: false }),
            Err(code) => code,
        }
    }
}

/// `tidemill stop`.
#[derive(Args, Debug)]
pub struct Stop {
    #[command(flatten)]
    job: Job,
    /// Write a savepoint there, to a directory or a URL; otherwise the job takes a checkpoint of its own, and goes on from it when it is started again.
    #[arg(long, value_name = "TARGET")]
    savepoint: Option<String>,
    /// Let all windows and event-time timers fire first, as at the end of the input. Needs --savepoint. A job that is started from there
    /// reads on, and fires a window again for what comes into it then: for a job that is to end for good, or that is to begin with other windows.
    #[arg(long, requires = "savepoint")]
    drain: bool,
}

impl Stop {
    /// Stops it and prints where the checkpoint or savepoint is.
    pub fn run(self) -> ExitCode {
        match self.savepoint.as_deref().map(target) {
            None => self.job.ask(&Ask::Suspend),
            Some(Ok(target)) => self.job.ask(&Ask::Savepoint { target, stop: true, drain: self.drain }),
            Some(Err(code)) => code,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_handed_on_as_it_is_and_a_directory_is_made_absolute() {
        for url in ["s3://bucket/prefix", "file:///mnt/savepoints"] {
            assert_eq!(target(url).ok().as_deref(), Some(url));
        }
        let here = std::path::absolute("savepoint").unwrap();
        assert_eq!(target("savepoint").ok().as_deref(), here.to_str());
        assert!(target("gs://bucket").is_err() && target("s3://").is_err());
    }
}
