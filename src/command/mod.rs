//! The subcommands, one file each.

mod checkpoints;
mod doctor;
mod job;
mod state;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tidemill_engine::control::verify::is_of_checkpoints;
use tidemill_engine::model::savepoint::SavepointPlace;
use tidemill_engine::platform::remote::{self, RemoteConfig, RemoteStore};

/// A stream processing engine.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Checks whether this machine can run jobs, and says how to mend what is wrong.
    Doctor(doctor::Doctor),
    /// Lists the checkpoints in a job's directory or remote store, or what a savepoint holds.
    Checkpoints(checkpoints::Checkpoints),
    /// Has a running job take a checkpoint now.
    Checkpoint(job::Checkpoint),
    /// Has a running job write a savepoint, and goes on.
    Savepoint(job::Savepoint),
    /// Stops a running job behind a checkpoint or a savepoint.
    Stop(job::Stop),
    /// Stops a running job where it is.
    Cancel(job::Cancel),
    /// Looks into snapshots of state, offline.
    State(state::State),
}

impl Command {
    /// Does what was asked. The exit code is part of each subcommand's contract.
    pub fn run(self) -> ExitCode {
        match self.action {
            Action::Doctor(doctor) => doctor.run(),
            Action::Checkpoints(checkpoints) => checkpoints.run(),
            Action::Checkpoint(checkpoint) => checkpoint.run(),
            Action::Savepoint(savepoint) => savepoint.run(),
            Action::Stop(stop) => stop.run(),
            Action::Cancel(cancel) => cancel.run(),
            Action::State(state) => state.run(),
        }
    }
}

/// Says why it was not done.
fn failed(why: &str) -> ExitCode {
    eprintln!("tidemill: {why}");
    ExitCode::FAILURE
}

/// What is said of a place without checkpoints; of a directory, with those in it that have some.
fn nothing_in(place: &SavepointPlace) -> String {
    let nothing = format!("there are no checkpoints in {place}");
    match place.as_directory().map(below) {
        Some(below) if !below.is_empty() => {
            let below: Vec<_> = below.iter().map(|path| path.display().to_string()).collect();
            format!("{nothing} itself, but there are in {}: name one of them", below.join(", "))
        }
        _ => nothing,
    }
}

/// The directories in this one that hold checkpoints or a savepoint.
fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let mut below: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| is_of_checkpoints(path)).collect();
    below.sort();
    below
}

/// Opens a remote store, which is reached as the environment says.
fn open(remote: &RemoteConfig) -> Result<Arc<dyn RemoteStore>, String> {
    remote::open(remote).map_err(|error| error.to_string())
}
