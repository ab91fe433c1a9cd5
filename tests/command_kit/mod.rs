//! What tests of the command share: running it, and what it says.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

pub fn tidemill(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(arguments)
        .env_remove("AWS_ENDPOINT_URL")
        .output()
        .unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a command prints that does what it is told.
pub fn done(arguments: &[&str]) -> String {
    let output = tidemill(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What a command says, in one line, that does not.
pub fn refused(arguments: &[&str]) -> String {
    let output = tidemill(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}
