//! Jobs under simulation whose parts exchange nothing: when one fails it is started again, and the others go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tidemill_engine::{
    model::{checkpoint_config::RestartStrategy, config::JobConfig, watermark::WatermarkStrategy},
    platform::{SimFaults, SimPlatform},
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sim::{SimReport, SimSink, Simulation, csv_rows},
    sink::{CollectSink, FileSink},
    source::from_vec,
    window::assigner::TumblingEventTime,
};
use tidemill_storage::snapshot::disk::{Disk, memory::MemoryDisk};

/// Seeds per job. `TIDEMILL_SIM_SEEDS` runs more.
const SEEDS: u64 = 40;
const RECORDS: u64 = 1_200;
const KEYS: u64 = 11;

/// Region, key and value of a result.
type Row = (String, u64, u64);

/// So many seeds, or as many as the environment says.
fn simulated(seeds: u64) -> u64 {
    std::env::var("TIDEMILL_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(seeds)
}

fn numbers(count: u64) -> Vec<u64> {
    (0..count).collect()
}

fn counts(region: &str, count: u64) -> Vec<Row> {
    numbers(count).into_iter().map(|number| (region.to_owned(), number % KEYS, number / KEYS + 1)).collect()
}

/// A region of its own that counts numbers by key.
fn count(environment: &StreamEnvironment, region: &'static str, records: u64, sink: SimSink<Row>) {
    environment
        .from_source(region, from_vec(numbers(records)), WatermarkStrategy::none())
        .uid(&format!("{region}-numbers"))
        .key_by(|number| number % KEYS)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .uid(&format!("{region}-counts"))
        .map(move |(key, count)| (region.to_owned(), key, count))
        .sink(region, sink);
}

/// Runs a job with its directory alone, and with a remote store and machines that are lost.
fn check<D>(expected: Vec<Row>, describe: D)
where
    D: Fn(&StreamEnvironment, SimSink<Row>),
{
    let failing = || Simulation::new().seeds(SEEDS).operator_failures(3);
    was_hard(&failing().check(expected.clone(), &describe));
    let remote = failing().remote().check(expected, &describe);
    was_hard(&remote);
    assert!(remote.machines_lost >= remote.runs / 4, "too few machines were lost: {remote:?}");
}

/// Fails if the simulation was too kind to prove anything.
fn was_hard(report: &SimReport) {
    let runs = report.runs;
    let enough = report.deaths >= runs / 2
        && report.recoveries >= runs / 8
        && report.checkpoints >= runs
        && report.region_restarts >= runs / 2
        && report.restarts > report.region_restarts;
    assert!(enough, "too little went wrong: {report:?}");
}

#[test]
fn two_regions_that_fail_count_each_record_once() {
    let expected = [counts("one", RECORDS), counts("other", RECORDS)].concat();
    check(expected, |environment, sink| {
        count(environment, "one", RECORDS, sink.clone());
        count(environment, "other", RECORDS, sink);
    });
}

#[test]
fn regions_of_three_kinds_commit_each_row_once() {
    let at = |number: u64| number as i64 * 10;
    let mut windows = BTreeMap::<(u64, u64), u64>::new();
    for number in numbers(RECORDS) {
        *windows.entry((number % KEYS, (at(number) / 500) as u64)).or_default() += number;
    }
    let windows =
        windows.into_iter().map(|((key, second), sum)| ("windows".to_owned(), key * 1_000 + second, sum));
    let plain = numbers(4 * RECORDS).into_iter().map(|number| ("plain".to_owned(), number, number));
    let expected = windows.chain(plain).chain(counts("short", 40)).collect::<Vec<_>>();
    check(expected, move |environment, sink| {
        // Without an exchange, and without state.
        environment
            .from_source("plain", from_vec(numbers(4 * RECORDS)), WatermarkStrategy::none())
            .map(|number| ("plain".to_owned(), number, number))
            .sink("plain", sink.clone());
        // At its end long before the others.
        count(environment, "short", 40, sink.clone());
        let half = |name: &str, remainder| {
            let numbers = numbers(RECORDS).into_iter().filter(|number| number % 2 == remainder).collect();
            let in_time =
                WatermarkStrategy::for_monotonous_timestamps().with_timestamps(move |number| at(*number));
            environment.from_source(name, from_vec(numbers), in_time)
        };
        half("even", 0)
            .union(half("odd", 1))
            .key_by(|number| number.to_native() % KEYS)
            .window(TumblingEventTime::of(Duration::from_millis(500)))
            .reduce(|sum, number| sum + number)
            .map(|result| {
                let second = (result.window.start / 500) as u64;
                ("windows".to_owned(), result.key * 1_000 + second, result.value)
            })
            .sink("windows", sink);
    });
}

#[test]
fn rows_in_files_are_there_once_when_regions_fail() {
    let rows = |region: &str| counts(region, RECORDS).into_iter().map(|(_, key, count)| (key, count));
    let report = Simulation::new().seeds(SEEDS).operator_failures(3).check_files(
        "/one",
        csv_rows::<(u64, u64)>,
        rows("one"),
        |environment| {
            for region in ["one", "other"] {
                environment
                    .from_source(region, from_vec(numbers(RECORDS)), WatermarkStrategy::none())
                    .key_by(|number| number % KEYS)
                    .fold(0_u64, |count: &mut u64, _| *count += 1)
                    .sink(region, FileSink::csv(format!("/{region}")).columns(["key", "count"]));
            }
        },
    );
    was_hard(&report);
}

#[test]
fn where_only_operators_fail_only_regions_are_started_again() {
    let expected = [counts("one", RECORDS), counts("other", RECORDS)].concat();
    let report = Simulation::new().seeds(SEEDS).kills_max(0).operator_failures(3).check(
        expected,
        |environment, sink| {
            count(environment, "one", RECORDS, sink.clone());
            count(environment, "other", RECORDS, sink);
        },
    );
    // The whole job where the last barrier is under way.
    let of_the_job = report.restarts - report.region_restarts;
    assert!(
        report.region_restarts >= report.runs / 2 && of_the_job <= report.region_restarts / 2,
        "{report:?}"
    );
}

#[test]
fn a_job_of_one_region_goes_back_as_a_whole() {
    let failing = Simulation::new().seeds(SEEDS).operator_failures(3);
    let report =
        failing.check(counts("one", RECORDS), |environment, sink| count(environment, "one", RECORDS, sink));
    assert!(report.restarts >= report.runs / 2 && report.region_restarts == 0, "{report:?}");
}

/// Without checkpoints a region is replayed from its beginning, and its files appear at its end.
#[test]
fn a_region_is_replayed_alone_where_there_are_no_checkpoints() {
    let (mut region_restarts, mut failed) = (0, 0);
    let seeds = simulated(3 * SEEDS);
    for seed in 0..seeds {
        let disk = MemoryDisk::default();
        // The second soon after the first, and a third at some time.
        let fail_steps = vec![(seed % 97, seed % 5), (seed % 97 + seed % 31, seed % 3), (seed % 401, 0)];
        let faults = SimFaults { fail_steps, ..SimFaults::default() };
        let platform = SimPlatform::new(seed).disk(Arc::new(disk.clone())).faults(faults);
        let config = JobConfig {
            parallelism: 1 + seed as usize % 3,
            batch_records_max: [1, 7, 64][seed as usize % 3],
            channel_batches_max: [1, 8][seed as usize % 2],
            step_records_max: 16,
            restart: RestartStrategy::FixedDelay { attempts_max: 3, delay_ms: seed % 2 },
            ..JobConfig::default()
        };
        let environment = StreamEnvironment::on(Arc::new(platform), config);
        for region in ["one", "other"] {
            environment
                .from_source(region, from_vec(numbers(300)), WatermarkStrategy::none())
                .key_by(|number| number % KEYS)
                .fold(0_u64, |count: &mut u64, _| *count += 1)
                .sink(region, FileSink::csv(format!("/{region}")).columns(["key", "count"]));
        }
        // One that commits nothing, and may be at its end before the others.
        environment
            .from_source("rest", from_vec(numbers(seed % 50)), WatermarkStrategy::none())
            .for_each(drop);
        let job = environment.start().unwrap();
        let monitor = job.monitor();
        // What fails when all rows are committed is not started again: it would commit them once more.
        failed += u64::from(job.wait().is_err());
        region_restarts += monitor.metrics().checkpoints.region_restarts;
        for region in ["one", "other"] {
            let paths = disk.list(Path::new(&format!("/{region}"))).unwrap();
            let files = paths.iter().filter_map(|path| disk.contents(path));
            let mut rows: Vec<(u64, u64)> = files.flat_map(|file| csv_rows(&file).unwrap()).collect();
            let expected = counts(region, 300).into_iter().map(|(_, key, count)| (key, count));
            let mut expected: Vec<(u64, u64)> = expected.collect();
            rows.sort_unstable();
            expected.sort_unstable();
            assert!(rows == expected, "under seed {seed}: {} rows instead of {}", rows.len(), expected.len());
        }
    }
    assert!(
        region_restarts >= seeds / 3 && failed <= seeds / 12,
        "{region_restarts} restarts, {failed} of {seeds} failed"
    );
}

/// The same where nothing is committed, and so nobody waits for a last checkpoint.
#[test]
fn regions_that_fail_without_anything_to_commit_come_to_their_end() {
    for seed in 0..simulated(3 * SEEDS) {
        let fail_steps = vec![(seed % 61, seed % 5), (seed % 61 + seed % 13, seed % 3)];
        let faults = SimFaults { fail_steps, ..SimFaults::default() };
        let platform = SimPlatform::new(seed).faults(faults);
        let config = JobConfig {
            parallelism: 1 + seed as usize % 3,
            restart: RestartStrategy::FixedDelay { attempts_max: 2, delay_ms: seed % 2 },
            ..JobConfig::default()
        };
        let environment = StreamEnvironment::on(Arc::new(platform), config);
        let collected = [10 + seed % 200, 100].map(|count| {
            let (sink, collected) = CollectSink::new();
            environment
                .from_source("numbers", from_vec(numbers(count)), WatermarkStrategy::none())
                .rebalance()
                .map(|number| number.to_native())
                .sink("collected", sink);
            (count, collected)
        });
        environment.execute().unwrap_or_else(|error| panic!("under seed {seed}: {error}"));
        for (count, collected) in collected {
            let found: BTreeSet<u64> = collected.take().into_iter().collect();
            assert!(found.into_iter().eq(0..count), "under seed {seed}");
        }
    }
}
