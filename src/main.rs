//! The `tidemill` command.

mod command;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    command::Command::parse().run()
}
