//! Jobs under the limits of a poor machine. Each test runs itself in a child process whose shell lowers a limit first.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};
use tidemill_engine::platform::{Drive, DriveFactory, GlommioPlatform, Nanos, Platform, PlatformError, Turn};

const CHILD: &str = "TIDEMILL_TEST_CHILD";

fn in_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the named test of this file in a child.
fn child(limits: &str, test: &str) -> Output {
    let program = std::env::current_exe().unwrap();
    Command::new("sh")
        .args(["-c", &format!("{limits}; exec \"$0\" --exact {test} --nocapture")])
        .arg(program)
        .env(CHILD, "1")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

struct Turns(u32);

impl Drive for Turns {
    fn turn(&mut self, now: Nanos) -> Turn {
        self.0 -= 1;
        if self.0 == 0 { Turn::Done } else { Turn::Busy { until: now } }
    }
}

fn job(workers: usize) -> Result<(), PlatformError> {
    let fleet = GlommioPlatform::new().prepare(workers)?;
    let factories =
        (0..workers).map(|_| Box::new(|| Box::new(Turns(1_000)) as Box<dyn Drive>) as DriveFactory).collect();
    fleet.start(factories, None)?.join()
}

#[test]
fn too_little_locked_memory_is_refused_before_anything_starts() {
    if in_child() {
        let error = job(8).expect_err("the limit is too low");
        println!("refused: {error}");
        return;
    }
    let output = child("ulimit -S -l 64", "too_little_locked_memory_is_refused_before_anything_starts");
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("refused: locked memory unfit for 8 workers: 64 KiB,"), "{said}");
    assert!(said.contains("Run `ulimit -l "), "{said}");
}

#[test]
fn eight_workers_with_the_least_locked_memory_run_or_are_refused_clearly() {
    if in_child() {
        // With the privilege to lock more they run, without it they do not.
        return match job(8) {
            Ok(()) => println!("ran"),
            Err(error) => println!("refused: {error}"),
        };
    }
    let test = "eight_workers_with_the_least_locked_memory_run_or_are_refused_clearly";
    let output = child("ulimit -S -l 512", test);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let refusal = "refused: locked memory unfit for 8 workers: 512 KiB, 2048 KiB needed";
    assert!(said.lines().any(|line| line == "ran" || line.starts_with(refusal)), "{said}");
}

#[test]
fn eight_workers_run_with_the_locked_memory_that_the_check_asks_for() {
    if in_child() {
        return job(8).expect("the limit suffices");
    }
    let output =
        child("ulimit -S -l 2048", "eight_workers_run_with_the_locked_memory_that_the_check_asks_for");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn too_few_open_files_are_refused() {
    if in_child() {
        println!("refused: {}", job(8).expect_err("the limit is too low"));
        return;
    }
    let output = child("ulimit -S -n 60", "too_few_open_files_are_refused");
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("refused: open files unfit for 8 workers: 60, 128 needed"), "{said}");
}

#[test]
fn executors_that_run_out_of_files_half_way_start_nothing_and_leave_the_process_usable() {
    if in_child() {
        let fleet = GlommioPlatform::new().prepare(8).expect("the limit suffices for the check");
        let hoard: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).take(200).collect();
        let spare: Vec<_> = hoard.into_iter().skip(10).collect();
        let factories = (0..8)
            .map(|_| Box::new(|| -> Box<dyn Drive> { unreachable!("nothing starts") }) as DriveFactory)
            .collect();
        let error = fleet.start(factories, None).err().expect("there are too few files");
        println!("refused: {error}");
        drop(spare);
        return job(2).expect("the process is usable");
    }
    let output = child(
        "ulimit -S -n 140",
        "executors_that_run_out_of_files_half_way_start_nothing_and_leave_the_process_usable",
    );
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("refused: starting a worker's io_uring executor"), "{said}");
}

#[test]
fn a_thousand_jobs_in_turn_leave_no_files_behind() {
    if in_child() {
        let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        job(3).unwrap();
        let before = files();
        for _ in 0..1_000 {
            job(3).unwrap();
        }
        assert_eq!(files(), before);
        return;
    }
    let output = child("true", "a_thousand_jobs_in_turn_leave_no_files_behind");
    assert!(output.status.success(), "{}", said(&output));
}
