//! Jobs under simulation whose newest checkpoint is damaged on the disk between two lives, by one bit.

use std::{fmt::Debug, time::Duration};

use tidemill_engine::model::watermark::WatermarkStrategy;
use tidemill_operators::{
    aggregate::Count,
    api::environment::StreamEnvironment,
    sim::{SimReport, SimSink, Simulation, csv_rows},
    sink::FileSink,
    source::from_vec,
    window::assigner::TumblingEventTime,
};

/// Seeds per job. `TIDEMILL_SIM_SEEDS` runs more.
const SEEDS: u64 = 40;
const RECORDS: u64 = 2_500;
const KEYS: u64 = 13;

fn numbers() -> Vec<u64> {
    (0..RECORDS).collect()
}

/// Checkpoints that are damaged in every kind of place are passed over where one before them is kept, and refused where not.
fn check<T, D>(expected: Vec<T>, describe: D)
where
    T: Clone + Debug + Send + 'static,
    D: Fn(&StreamEnvironment, SimSink<T>),
{
    let report = Simulation::new().seeds(SEEDS).kills_max(8).damage().check(expected.clone(), &describe);
    let SimReport { runs, damaged, went_back, refused, .. } = report;
    assert!(
        damaged >= runs / 2 && went_back >= runs / 5 && refused >= runs / 10,
        "too little was damaged: {report:?}"
    );
    // Where a remote store has them too, nothing is passed over and nothing refused.
    let report = Simulation::new().seeds(SEEDS).kills_max(6).damage().remote().check(expected, &describe);
    assert!(report.damaged >= report.runs / 8, "too little was damaged: {report:?}");
    assert_eq!((report.went_back, report.refused), (0, 0));
}

#[test]
fn a_rolling_count_goes_on_from_the_checkpoint_before_the_damaged_one() {
    let expected = numbers().into_iter().map(|number| (number % KEYS, number / KEYS + 1));
    check(expected.collect(), |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .key_by(|number| number % KEYS)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .sink("out", sink);
    });
}

#[test]
fn windows_and_their_timers_go_on_from_the_checkpoint_before_the_damaged_one() {
    const SIZE: u64 = 100;
    let expected = (0..RECORDS / SIZE).flat_map(|window| {
        let of_key =
            move |key| (window * SIZE..(window + 1) * SIZE).filter(|number| number % KEYS == key).count();
        (0..KEYS).map(move |key| (key, window * SIZE, of_key(key) as u64))
    });
    check(expected.collect(), |environment, sink| {
        let in_event_time = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(5))
            .with_timestamps(|number: &u64| *number as i64);
        environment
            .from_source("numbers", from_vec(numbers()), in_event_time)
            .key_by(|number| number % KEYS)
            .window(TumblingEventTime::of(Duration::from_millis(SIZE)))
            .aggregate(Count)
            .map(|counted| (counted.key, counted.window.start as u64, counted.value))
            .sink("out", sink);
    });
}

#[test]
fn files_have_every_row_once_when_what_is_damaged_is_brought_back() {
    let expected = numbers().into_iter().map(|number| (number % KEYS, number / KEYS + 1));
    let simulation = Simulation::new().seeds(SEEDS).kills_max(6).damage().remote();
    let report = simulation.check_files("/out", csv_rows, expected, |environment| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .key_by(|number| number % KEYS)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .sink("out", FileSink::csv("/out").columns(["key", "count"]));
    });
    assert!(report.damaged >= report.runs / 2, "too little was damaged: {report:?}");
}
