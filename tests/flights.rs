//! The main example as a user runs it: its figures equal those of an independent computation.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn example() -> PathBuf {
    // Test programs and examples are built side by side: target/debug/deps/flights-… and target/debug/examples/.
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join("01_flight_delays")
}

fn run(arguments: &[&str]) -> Output {
    Command::new(example())
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| panic!("the example is not built (a plain `cargo test` builds it, or `cargo build --examples`): {error}"))
}

fn figures(cores: &str, input: &Path, out: &Path) -> String {
    let (input, out) = (input.to_str().unwrap(), out.to_str().unwrap());
    let output = run(&["--cores", cores, "--input", input, "--out", out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(out).unwrap()
}

#[test]
fn january_equals_the_independent_computation_on_any_number_of_cores() {
    let expected = include_str!("../examples/data/expected_2013_01.csv");
    let folder = tempfile::tempdir().unwrap();
    for cores in ["1", "2", "3", "8"] {
        let out = folder.path().join(format!("{cores}.csv"));
        let figures = figures(cores, Path::new("examples/data/flights_2013_01.csv"), &out);
        assert!(figures == expected, "the figures on {cores} cores differ from expected_2013_01.csv");
    }
}

#[test]
fn the_table_shows_every_hour_once_and_ends_with_a_summary() {
    let output = run(&["--cores", "2"]);
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("2013-01-")).count();
    assert_eq!(rows, include_str!("../examples/data/expected_2013_01.csv").lines().count() - 1);
    assert!(table.contains("\n27004 flights in "), "{table}");
    assert!(table.contains("p99.9 µs"), "{table}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut command = Command::new(example());
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("hour "), "{line}");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
}

/// All twelve months, whose order in the file is not that of the year: where the shared data is there, and Python to
/// compute the reference with.
#[test]
fn the_whole_year_equals_the_independent_computation() {
    let input = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/nycflights13/flights.csv.gz");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/expected.py");
    let python = Command::new("python3").arg(script).arg(&input).output();
    let Some(expected) = python.ok().filter(|python| input.exists() && python.status.success()) else {
        eprintln!("skipped: the data of the whole year, or Python, is not here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let figures = figures("2", &input, &folder.path().join("year.csv"));
    assert!(figures.as_bytes() == expected.stdout, "the figures of the year differ from expected.py's");
}

#[test]
fn what_is_wrong_is_said_clearly_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.csv");
    std::fs::write(&bad, "year,month,day,hour,origin,dep_delay\n2013,1,1,5,EWR,2\n2013,1,1,x,EWR,2\n")
        .unwrap();
    let (bad, folder) = (bad.to_str().unwrap(), folder.path().to_str().unwrap());
    for (arguments, told) in [
        (vec!["--cores", "0"], vec!["parallelism is 0", "1 or more"]),
        (vec!["--input", "no/such/file.csv"], vec!["no/such/file.csv"]),
        (vec!["--input", folder], vec![folder]),
        (vec!["--out", folder], vec![folder, "director"]),
        (vec!["--out", "/no/such/folder/out.csv"], vec!["/no/such/folder"]),
        (vec!["--out", "/dev/full"], vec!["/dev/full", "space"]),
        (vec!["--input", bad], vec![bad, "byte 54", "line 3"]),
        (vec!["--cores", "99999"], vec!["parallelism"]),
    ] {
        let output = run(&arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
        for word in told {
            assert!(stderr.contains(word), "{arguments:?} should say `{word}`: {stderr}");
        }
    }
}
