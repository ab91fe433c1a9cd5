//! The subcommands, one file each.

mod doctor;
mod state;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    /// Looks into snapshots of state, offline.
    State(state::State),
}

impl Command {
    /// Does what was asked. The exit code is part of each subcommand's contract.
    pub fn run(self) -> ExitCode {
        match self.action {
            Action::Doctor(doctor) => doctor.run(),
            Action::State(state) => state.run(),
        }
    }
}
