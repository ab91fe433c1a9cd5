//! Jobs under simulation that commit to files: a reader who takes each file when it appears has every row once in the end; or at least
//! once, where the sink promises that.

use std::{collections::BTreeMap, time::Duration};

use tidemill_engine::model::watermark::WatermarkStrategy;
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sim::{SimReport, Simulation, csv_rows, json_rows},
    sink::{DeliveryGuarantee, FileSink},
    source::from_vec,
    window::assigner::TumblingEventTime,
};

/// Seeds per job. `TIDEMILL_SIM_SEEDS` runs more.
const SEEDS: u64 = 40;
/// Records per job: enough for several checkpoints.
const RECORDS: u64 = 1_500;
const KEYS: u64 = 13;
/// Where the rows go.
const OUT: &str = "/results/rows";

fn numbers() -> Vec<u64> {
    (0..RECORDS).collect()
}

/// Fails if the simulation was too kind to prove anything; `files_min` is how many files a run has at least, on average.
fn was_hard(report: &SimReport, files_min: u64) {
    let runs = report.runs;
    let enough = report.deaths >= runs / 2
        && report.recoveries >= runs / 5
        && report.checkpoints >= runs
        && report.files >= files_min * runs;
    assert!(enough, "too little went wrong: {report:?}");
}

fn counts(environment: &StreamEnvironment, sink: FileSink) {
    environment
        .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
        .key_by(|number| number % KEYS)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .sink("counts", sink);
}

fn expected_counts() -> impl Iterator<Item = (u64, u64)> {
    numbers().into_iter().map(|number| (number % KEYS, number / KEYS + 1))
}

#[test]
fn csv_files_that_roll_by_size_have_every_count_once() {
    let sink = || FileSink::csv(OUT).columns(["key", "count"]).roll_bytes(200);
    let simulation = Simulation::new().seeds(SEEDS);
    let report = simulation.check_files(OUT, csv_rows, expected_counts(), |environment| {
        counts(environment, sink());
    });
    was_hard(&report, RECORDS / 100);
}

#[test]
fn json_files_that_roll_at_checkpoints_have_every_count_once() {
    let simulation = Simulation::new().seeds(SEEDS);
    let report = simulation.check_files(OUT, json_rows, expected_counts(), |environment| {
        counts(environment, FileSink::json_lines(OUT));
    });
    was_hard(&report, 2);
}

#[test]
fn files_of_a_job_whose_checkpoints_are_kept_elsewhere_too_have_every_count_once() {
    let simulation = Simulation::new().seeds(SEEDS).remote();
    let report = simulation.check_files(OUT, json_rows, expected_counts(), |environment| {
        counts(environment, FileSink::json_lines(OUT).roll_bytes(500));
    });
    was_hard(&report, 2);
    assert_eq!(report.machines_lost, 0, "with the machine its files would be gone");
}

#[test]
fn files_of_a_sink_that_does_not_wait_for_checkpoints_have_every_count_at_least_once() {
    let guarantee = DeliveryGuarantee::AtLeastOnce;
    let sink =
        move || FileSink::csv(OUT).columns(["key", "count"]).roll_bytes(200).delivery_guarantee(guarantee);
    let simulation = Simulation::new().seeds(SEEDS).delivery_guarantee(guarantee);
    let report = simulation.check_files(OUT, csv_rows, expected_counts(), |environment| {
        counts(environment, sink());
    });
    was_hard(&report, RECORDS / 100);
}

#[test]
fn files_of_a_job_that_is_drained_in_the_middle_of_its_input_have_every_count_once() {
    let simulation = Simulation::new().seeds(SEEDS).operator_failures(2).drains();
    let report = simulation.check_files(OUT, json_rows, expected_counts(), |environment| {
        counts(environment, FileSink::json_lines(OUT).roll_bytes(500));
    });
    was_hard(&report, 2);
    assert!(report.drained >= report.runs / 20, "{report:?}");
}

#[test]
fn json_files_of_a_job_without_state_have_every_record_once() {
    // Without state there is little to do for a record: it takes more of them until there is a checkpoint to go on from.
    let numbers = || (0..2 * RECORDS).collect::<Vec<u64>>();
    let report = Simulation::new().seeds(SEEDS).check_files(OUT, json_rows, numbers(), |environment| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .rebalance()
            .map(|number| number.to_native())
            .sink("out", FileSink::json_lines(OUT).roll_bytes(1_000));
    });
    was_hard(&report, 2);
}

/// Event time of a number: in order but for a few.
fn at(number: u64) -> i64 {
    number as i64 * 10 - (number % 7) as i64 * 5
}

const SIZE_MS: i64 = 500;

#[test]
fn csv_files_that_roll_by_time_have_every_window_once() {
    let mut sums = BTreeMap::<(u64, i64), u64>::new();
    for number in numbers() {
        let start = at(number).div_euclid(SIZE_MS) * SIZE_MS;
        *sums.entry((number % KEYS, start)).or_default() += number;
    }
    let expected = sums.into_iter().map(|((key, start), sum)| (key, start, sum));
    let report = Simulation::new().seeds(SEEDS).check_files(OUT, csv_rows, expected, |environment| {
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(40));
        let strategy = strategy.with_timestamps(|number| at(*number));
        let sink = FileSink::csv(OUT).columns(["key", "start", "sum"]).roll_after(Duration::from_micros(300));
        environment
            .from_source("numbers", from_vec(numbers()), strategy)
            .key_by(|number| number % KEYS)
            .window(TumblingEventTime::of(Duration::from_millis(SIZE_MS as u64)))
            .reduce(|sum, next| sum + next)
            .map(|result| (result.key, result.window.start, result.value))
            .sink("windows", sink);
    });
    was_hard(&report, 2);
}
