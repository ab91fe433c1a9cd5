//! The third example as a user runs it: to its end, and from a checkpoint that is named.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const PAYMENTS: &str = "300000";

fn run(directory: &Path, flags: &[&str]) -> Output {
    // Test programs and examples are built side by side, as in `flights.rs`.
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    Command::new(path.join("examples/03_exactly_once"))
        .args(["--payments", PAYMENTS, "--directory", directory.to_str().unwrap()])
        .args(flags)
        .output()
        .unwrap_or_else(|error| panic!("the example is not built (a plain `cargo test` builds it, or `cargo build --examples`): {error}"))
}

fn done(directory: &Path, flags: &[&str]) -> String {
    let output = run(directory, flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn manifests(directory: &Path) -> Vec<PathBuf> {
    let mut manifests: Vec<PathBuf> =
        fs::read_dir(directory.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    manifests.sort();
    manifests
}

#[test]
fn a_checkpoint_is_begun_with_by_a_flag_and_every_payment_is_counted_once() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path();
    let all = format!("rows count {PAYMENTS} of {PAYMENTS} payments");
    let said = done(directory, &["--cores", "1"]);
    assert!(said.contains("began from the beginning") && said.contains(&all), "{said}");

    let (own, former) = (directory.join("checkpoints"), directory.join("former"));
    fs::rename(&own, &former).unwrap();
    let newest = manifests(&former).pop().unwrap();
    let named = ["--savepoint", newest.to_str().unwrap(), "--allow-non-restored-state", "--cores", "2"];
    for _ in 0..2 {
        let said = done(directory, &named);
        assert!(said.contains("went on from checkpoint") && said.contains(&all), "{said}");
    }
    let other = run(directory, &["--savepoint", "elsewhere"]);
    let said = String::from_utf8(other.stderr).unwrap();
    assert_eq!(other.status.code(), Some(1), "{said}");
    assert!(said.contains("/elsewhere, and") && said.contains(newest.to_str().unwrap()), "{said}");
}
