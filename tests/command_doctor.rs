//! The `tidemill doctor` command as a user runs it.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

/// Runs the command in a shell that first lowers limits of its own.
fn doctor(limits: &str, arguments: &str) -> Output {
    let script = format!("{limits} exec \"$0\" doctor {arguments}");
    Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_tidemill")]).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn verdict(report: &serde_json::Value, name: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    check["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn the_exit_code_is_the_verdict() {
    let output = doctor("", "--cores 1 --json");
    let report = json(&output);
    assert_eq!(output.status.code(), Some(i32::from(report["fit"] == false)));
    for name in ["kernel", "io_uring", "locked memory", "cores", "open files", "huge pages", "disk"] {
        verdict(&report, name);
    }
}

#[test]
fn too_little_locked_memory_is_a_failure_with_its_fix() {
    let output = doctor("ulimit -S -l 64;", "--cores 1");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("fail  locked memory  64 KiB, 512 KiB needed"), "{text}");
    assert!(text.contains("ulimit -l 512"), "{text}");
    assert_eq!(verdict(&json(&doctor("ulimit -S -l 64;", "--json")), "locked memory"), "fail");
}

#[test]
fn too_few_open_files_are_a_failure() {
    let output = doctor("ulimit -S -n 40;", "--cores 8 --json");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(verdict(&json(&output), "open files"), "fail");
}

#[test]
fn a_missing_directory_is_a_failure() {
    let output = doctor("", "--directory /does/not/exist --json");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(verdict(&json(&output), "disk"), "fail");
}

#[test]
fn nonsense_on_the_command_line_is_refused() {
    for arguments in ["--cores 0", "--cores many", "--cores 1000000", "--fast"] {
        let output = doctor("", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(!output.stderr.is_empty());
    }
}
