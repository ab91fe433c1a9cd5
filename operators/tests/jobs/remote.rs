//! Jobs whose checkpoints outlive the machine, under simulation: the store fails, the process dies, the disk is lost.

use std::time::Duration;

use tidemill_engine::model::watermark::WatermarkStrategy;
use tidemill_operators::{
    sim::{SimReport, Simulation},
    source::from_vec,
    window::assigner::TumblingEventTime,
};

/// Seeds per job. `TIDEMILL_SIM_SEEDS` runs more.
const SEEDS: u64 = 40;
/// Records per job: enough for several checkpoints.
const RECORDS: u64 = 1_500;

fn numbers() -> Vec<u64> {
    (0..RECORDS).collect()
}

/// Fails if the simulation was too kind to prove anything.
fn was_hard(report: &SimReport) {
    let runs = report.runs;
    let enough = report.deaths >= runs / 2 && report.recoveries >= runs / 4 && report.checkpoints >= runs;
    assert!(enough && report.machines_lost >= runs / 4, "too little went wrong: {report:?}");
}

#[test]
fn a_rolling_count_counts_each_record_once_though_machines_are_lost() {
    let expected = numbers().into_iter().map(|number| (number % 13, number / 13 + 1));
    let report = Simulation::new().seeds(SEEDS).remote().check(expected, |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .key_by(|number| number % 13)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .sink("counts", sink);
    });
    was_hard(&report);
}

#[test]
fn a_job_without_state_commits_each_record_once_though_machines_are_lost() {
    let numbers = || (0..8 * RECORDS).collect::<Vec<u64>>();
    let report = Simulation::new().seeds(SEEDS).remote().check(numbers(), |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .rebalance()
            .sink("out", sink);
    });
    was_hard(&report);
}

#[test]
fn windows_fire_once_with_all_their_records_though_machines_are_lost() {
    let expected = (0..RECORDS / 50).map(|window| (window as i64 * 500, 50_u64));
    let report = Simulation::new().seeds(SEEDS).remote().check(expected, |environment, sink| {
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::ZERO);
        let strategy = strategy.with_timestamps(|number: &u64| *number as i64 * 10);
        environment
            .from_source("numbers", from_vec(numbers()), strategy)
            .key_by(|_| 0_u64)
            .window(TumblingEventTime::of(Duration::from_millis(500)))
            .apply(|_, window, records: &[u64]| Some((window.start, records.len() as u64)))
            .sink("windows", sink);
    });
    was_hard(&report);
}
