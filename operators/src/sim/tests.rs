//! A seed is a run: what happens, and what is left on disks and in stores, byte by byte.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use tidemill_engine::model::{sink::Sink, watermark::WatermarkStrategy};

use super::*;
use crate::{
    aggregate::Count, sim::life::Calm, sink::FileSink, source::from_vec, window::assigner::TumblingEventTime,
};

const RECORDS: u64 = 1_200;

/// Everything that there is to see of a run.
#[derive(Debug, PartialEq)]
struct Run {
    story: String,
    outcome: Result<(), String>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    objects: BTreeMap<String, Vec<u8>>,
    report: SimReport,
}

fn run<O: Outside>(
    simulation: &Simulation,
    seed: u64,
    calm: Calm,
    outside: &dyn Fn(&MemoryDisk) -> O,
) -> Run {
    let disk = MemoryDisk::default();
    let mut lives = Lives::new(simulation, seed, disk.clone(), outside(&disk));
    let outcome = lives.run(calm);
    let objects = lives.remote.as_ref().map(|remote| remote.objects()).unwrap_or_default();
    Run { story: lives.story(), outcome, files: lives.disk.files(), objects, report: lives.report.clone() }
}

/// Runs each of some seeds twice.
fn check<O: Outside>(simulation: Simulation, outside: impl Fn(&MemoryDisk) -> O) {
    let calm = || {
        let disk = MemoryDisk::default();
        Lives::new(&simulation, 0, disk.clone(), outside(&disk)).run_calmly()
    };
    let measured = calm();
    let mut runs = Vec::new();
    for seed in simulation.seeds.clone() {
        let one = run(&simulation, seed, measured, &outside);
        let other = run(&simulation, seed, calm(), &outside);
        assert_eq!(one.story, other.story, "under seed {seed} something else happened");
        let differing = |one: &BTreeMap<_, Vec<u8>>, other: &BTreeMap<_, Vec<u8>>| {
            let names = one.keys().chain(other.keys()).cloned();
            names.filter(|name| one.get(name) != other.get(name)).collect::<Vec<PathBuf>>()
        };
        let files = differing(&one.files, &other.files);
        assert!(files.is_empty(), "under seed {seed} these files are others: {files:?}");
        assert!(one == other, "under seed {seed} something is left that is different");
        assert_eq!(one.outcome, Ok(()));
        runs.push(one);
    }
    // There was something to compare, and seeds differ.
    let all = runs.iter().fold(SimReport::default(), |mut all, run| {
        all.add(&run.report);
        all
    });
    assert!(all.checkpoints > runs.len() as u64 && all.deaths > 0 && all.recoveries > 0, "{all:?}");
    assert!(runs.iter().all(|run| run.files.len() > 1));
    assert!(runs.windows(2).all(|two| two[0].story != two[1].story));
}

/// Counts numbers by key.
fn counts<S: Sink<(u64, u64)>>(environment: &StreamEnvironment, sink: S) {
    environment
        .from_source("numbers", from_vec((0..RECORDS).collect()), WatermarkStrategy::none())
        .key_by(|number: &u64| number % 7)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .sink("counts", sink);
}

/// Counts them by key and window.
fn windows(environment: &StreamEnvironment, sink: SimSink<(u64, i64, u64)>) {
    let in_event_time = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(5))
        .with_timestamps(|number: &u64| *number as i64);
    environment
        .from_source("numbers", from_vec((0..RECORDS).collect()), in_event_time)
        .key_by(|number: &u64| number % 7)
        .window(TumblingEventTime::of(Duration::from_millis(100)))
        .aggregate(Count)
        .map(|counted| (counted.key, counted.window.start, counted.value))
        .sink("windows", sink);
}

/// What is committed does not matter here.
fn nothing() -> Counts {
    Counts::new()
}

#[test]
fn a_seed_replays_a_job_with_its_directory_to_the_byte() {
    let expected = nothing();
    let (counts, windows) = (counts::<SimSink<(u64, u64)>>, windows);
    check(Simulation::new().seeds(8).drains(), |_| LedgerOutside::new(&expected, &counts));
    check(Simulation::new().seeds(8).damage(), |_| LedgerOutside::new(&expected, &windows));
}

#[test]
fn a_seed_replays_a_job_with_a_remote_store_to_the_byte() {
    let expected = nothing();
    let (counts, windows) = (counts::<SimSink<(u64, u64)>>, windows);
    check(Simulation::new().seeds(8).remote(), |_| LedgerOutside::new(&expected, &counts));
    check(Simulation::new().seeds(8).remote().damage(), |_| LedgerOutside::new(&expected, &windows));
}

#[test]
fn a_seed_replays_a_job_whose_operators_fail_and_that_writes_files_to_the_byte() {
    let (expected, directory) = (nothing(), Path::new("/out"));
    let describe = |environment: &StreamEnvironment| {
        counts(environment, FileSink::csv(directory).columns(["key", "count"]).roll_bytes(200));
    };
    let rows = |_: &[u8]| Ok(nothing());
    check(Simulation::new().seeds(8).operator_failures(3).drains(), |disk| {
        let guarantee = DeliveryGuarantee::ExactlyOnce;
        Files::new(disk.clone(), directory, Wanted { rows: &rows, expected: &expected, guarantee }, &describe)
    });
}
