//! Jobs whose parts exchange nothing: when one fails it is started again, and the others go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use rkyv::Archived;
use tidemill_engine::{
    control::handle::JobHandle,
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        error::Error,
        item::Owned,
        metrics::JobMetrics,
        operator::Chain,
        source::BoxError,
        watermark::WatermarkStrategy,
    },
    platform::{SimFaults, SimPlatform},
};
use tidemill_operators::{
    api::{environment::StreamEnvironment, stream::Stream},
    keyed::process::{KeyedProcessFunction, ProcessContext, StateRegistry, ValueState},
    sim::{SimReport, SimSink, Simulation, csv_rows},
    sink::{CallbackSink, CollectSink, FileSink},
    source::{channel, from_vec},
    window::assigner::TumblingEventTime,
};

use tidemill_storage::snapshot::disk::{Disk, memory::MemoryDisk};

use super::recovery::Place;

/// Seeds per job. `TIDEMILL_SIM_SEEDS` runs more.
const SEEDS: u64 = 40;
const RECORDS: u64 = 1_200;
const KEYS: u64 = 11;
/// Longer than any test: what waits for so long is never started again.
const FOR_EVER_MS: u64 = 3_600_000;

/// Region, key and value of a result.
type Row = (String, u64, u64);

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
            restart: fixed(3, seed % 2),
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
            restart: fixed(2, seed % 2),
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

/// Counts how often the operators of a region were opened, and keeps a count per key.
struct Counting {
    count: ValueState<u64>,
}

impl KeyedProcessFunction<u64, u64> for Counting {
    type Output = (u64, u64);

    fn on_record(
        &mut self,
        _number: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, Self::Output>,
    ) -> Result<(), BoxError> {
        let count = context.update(
            self.count,
            || 0,
            |count| {
                *count += 1;
                *count
            },
        );
        let key = context.key();
        context.collect((key, count));
        Ok(())
    }
}

/// What is known from outside of a region.
#[derive(Clone, Default)]
struct Seen {
    opened: Arc<AtomicU64>,
    panics_left: Arc<AtomicU64>,
}

impl Seen {
    fn to_panic(times: u64) -> Self {
        Self { panics_left: Arc::new(AtomicU64::new(times)), ..Self::default() }
    }

    /// Panics, as long as it is to.
    fn look(&self, is_poison: bool) {
        let one_less = |left: u64| left.checked_sub(1);
        let strikes =
            || self.panics_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        assert!(!is_poison || !strikes(), "expected by the test");
    }

    fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

/// A stream of numbers, in a region that is seen, counted by key.
fn counting<C>(
    numbers: Stream<C>,
    seen: &Seen,
    poison: u64,
) -> Stream<impl Chain<Out = Owned<(u64, u64)>> + use<C>>
where
    C: Chain<Out = Owned<u64>>,
{
    let (looking, opening) = (seen.clone(), Arc::clone(&seen.opened));
    numbers.inspect(move |number| looking.look(*number == poison)).key_by(|number| number % KEYS).process(
        move |states: &mut StateRegistry<u64>| {
            opening.fetch_add(1, Ordering::Relaxed);
            Counting { count: states.value("count") }
        },
    )
}

/// So many seeds, or as many as the environment says.
fn simulated(seeds: u64) -> u64 {
    std::env::var("TIDEMILL_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(seeds)
}

fn fixed(attempts_max: u32, delay_ms: u64) -> RestartStrategy {
    RestartStrategy::FixedDelay { attempts_max, delay_ms }
}

/// Waits until the job tells so.
fn until(job: &JobHandle, what: impl Fn(&JobMetrics) -> bool) -> JobMetrics {
    loop {
        let metrics = job.metrics();
        if what(&metrics) {
            return metrics;
        }
        std::thread::yield_now();
    }
}

/// Two regions that are fed from here, of which one waits for ever when it has failed.
#[test]
fn a_region_goes_on_while_another_one_is_down() {
    let place = Place::new();
    for kept in [true, false] {
        let mut config = JobConfig { restart: fixed(1, FOR_EVER_MS), ..place.config() };
        config.checkpoints = config.checkpoints.filter(|_| kept);
        let environment = StreamEnvironment::with_config(config);
        let (fails, goes_on) = (Seen::to_panic(u64::MAX), Seen::default());
        let (feed_failing, failing) = channel::<u64>(16);
        let (feed, fed) = channel::<u64>(16);
        let (tell, told) = mpsc::channel();
        let failing = environment.from_source("failing", failing, WatermarkStrategy::none());
        counting(failing, &fails, 13).name("failing counts").for_each(drop);
        let fed = environment.from_source("fed", fed, WatermarkStrategy::none());
        counting(fed, &goes_on, u64::MAX).sink(
            "answers",
            CallbackSink::new(move |answer: (u64, u64)| {
                let _ = tell.send(answer);
            }),
        );
        let job = environment.start().unwrap();
        feed.send(3).unwrap();
        assert_eq!(told.recv().unwrap(), (3, 1));
        feed_failing.send(13).unwrap();
        let metrics = until(&job, |metrics| metrics.checkpoints.region_restarts == 1);
        assert_eq!(metrics.checkpoints.restarts, 1);
        let operators = metrics.checkpoints.last_restart_operators;
        assert_eq!(operators, ["failing", "inspect", "key_by", "failing counts", "for_each"]);
        assert!(metrics.checkpoints.last_restart.unwrap().contains("expected by the test"));
        // Its state is there, and nothing of it was built again.
        feed.send(3).unwrap();
        assert_eq!(told.recv().unwrap(), (3, 2));
        assert_eq!((fails.opened(), goes_on.opened()), (2, 2));
        let metrics = job.metrics();
        assert!(metrics.operator("fed").is_some() && metrics.operator("failing counts").is_none());
        job.cancel();
        assert!(matches!(job.wait(), Err(Error::Cancelled)));
    }
}

/// Counts numbers in two regions, each of which commits to files; returns the rows of both.
fn run_twice(
    place: &Place,
    config: JobConfig,
    seen: [&Seen; 2],
    records: [u64; 2],
) -> Result<JobMetrics, Error> {
    let environment = StreamEnvironment::with_config(config);
    for (region, (seen, records)) in ["one", "other"].into_iter().zip(seen.into_iter().zip(records)) {
        let numbers = environment.from_source(region, from_vec(numbers(records)), WatermarkStrategy::none());
        counting(numbers, seen, records - 1)
            .uid(&format!("{region}-counts"))
            .sink(region, FileSink::csv(place.0.path().join(region)).header(false));
    }
    environment.execute()
}

/// Fails unless each count is in a region's files once.
fn check_rows(place: &Place, region: &str, records: u64) {
    let mut rows = super::recovery::rows(&place.0.path().join(region));
    rows.sort_unstable();
    let mut expected: Vec<_> =
        counts(region, records).into_iter().map(|(_, key, count)| (key, count)).collect();
    expected.sort_unstable();
    assert!(rows == expected, "{} rows instead of {}", rows.len(), expected.len());
}

#[test]
fn a_region_that_panics_is_started_again_alone_and_its_files_have_each_row_once() {
    for kept in [true, false] {
        let place = Place::new();
        let mut config = JobConfig { restart: fixed(3, 1), ..place.config() };
        config.checkpoints = config.checkpoints.filter(|_| kept);
        // Where state is that no checkpoint keeps: the same place for whoever is built anew.
        config.state_dir = Some(place.0.path().join("state")).filter(|_| !kept);
        let workers = config.parallelism as u64;
        let (fails, goes_on) = (Seen::to_panic(3), Seen::default());
        let metrics = run_twice(&place, config, [&fails, &goes_on], [20_000, 150_000]).unwrap();
        let stats = metrics.checkpoints;
        assert_eq!((stats.restarts, stats.region_restarts), (3, 3), "{:?}", stats.last_restart);
        assert_eq!((fails.opened(), goes_on.opened()), (4 * workers, workers));
        check_rows(&place, "one", 20_000);
        check_rows(&place, "other", 150_000);
    }
}

#[test]
fn two_regions_that_fail_at_once_are_both_started_again() {
    for kept in [true, false] {
        let place = Place::new();
        let mut config = JobConfig { restart: fixed(6, 1), ..place.config() };
        config.checkpoints = config.checkpoints.filter(|_| kept);
        let [one, other] = [Seen::to_panic(3), Seen::to_panic(3)];
        let metrics = run_twice(&place, config, [&one, &other], [50_000, 50_000]).unwrap();
        assert_eq!(metrics.checkpoints.region_restarts, 6);
        check_rows(&place, "one", 50_000);
        check_rows(&place, "other", 50_000);
    }
}

#[test]
fn a_region_that_has_read_its_input_is_not_read_again_when_another_one_fails() {
    for kept in [true, false] {
        let place = Place::new();
        let mut config = JobConfig { restart: fixed(2, 0), ..place.config() };
        config.checkpoints = config.checkpoints.filter(|_| kept);
        let environment = StreamEnvironment::with_config(config);
        let (fails, ends) = (Seen::to_panic(2), Seen::default());
        let (feed, fed) = channel::<u64>(16);
        let failing = environment.from_source("failing", fed, WatermarkStrategy::none());
        counting(failing, &fails, 13).for_each(drop);
        let (sink, results) = CollectSink::new();
        let ending = environment.from_source("ending", from_vec(numbers(100)), WatermarkStrategy::none());
        counting(ending, &ends, u64::MAX).name("ended counts").sink("results", sink);
        let job = environment.start().unwrap();
        let has_ended = |metrics: &JobMetrics| {
            metrics.operator("ended counts").is_some_and(|own| own.watermark == i64::MAX)
        };
        until(&job, has_ended);
        for restarts in 1..=2 {
            feed.send(13).unwrap();
            until(&job, |metrics| metrics.checkpoints.region_restarts == restarts);
        }
        feed.close();
        let metrics = job.wait().unwrap();
        assert_eq!((metrics.checkpoints.restarts, ends.opened()), (2, 2));
        let results: BTreeSet<(u64, u64)> = results.take().into_iter().collect();
        let expected = counts("", 100).into_iter().map(|(_, key, count)| (key, count)).collect();
        assert_eq!(results, expected);
        assert!(metrics.operator("ended counts").unwrap().counters.records_in == 100);
    }
}

#[test]
fn a_region_that_fails_too_often_fails_the_job_with_its_own_error() {
    let place = Place::new();
    let config = JobConfig { restart: fixed(2, 1), ..place.config() };
    let (fails, goes_on) = (Seen::to_panic(u64::MAX), Seen::default());
    let error = run_twice(&place, config, [&fails, &goes_on], [20_000, 4_000_000]).unwrap_err();
    assert!(matches!(&error, Error::Operator { operator, .. } if operator == "inspect"), "{error}");
    assert_eq!((fails.opened(), goes_on.opened()), (6, 2));
    // What is wrong with the region was mended: both go on.
    let sound = Seen::default();
    run_twice(&place, place.config(), [&sound, &sound], [20_000, 4_000_000]).unwrap();
    check_rows(&place, "one", 20_000);
}

#[test]
fn without_a_restart_strategy_a_region_takes_the_job_with_it() {
    let place = Place::new();
    let fails = Seen::to_panic(1);
    let error =
        run_twice(&place, place.config(), [&fails, &Seen::default()], [2_000, 4_000_000]).unwrap_err();
    assert!(matches!(&error, Error::Operator { operator, .. } if operator == "inspect"), "{error}");
    assert_eq!(fails.opened(), 2);
}

/// A savepoint is asked for while a region is down: it is taken when the region is up again.
#[test]
fn what_is_asked_of_a_job_with_a_region_that_is_down_waits_for_the_region() {
    let place = Place::new();
    let settings =
        CheckpointConfig { interval_ms: FOR_EVER_MS, ..CheckpointConfig::new(place.checkpoints()) };
    let config = JobConfig { restart: fixed(1, 20), checkpoints: Some(settings), ..place.config() };
    let environment = StreamEnvironment::with_config(config);
    let (fails, goes_on) = (Seen::to_panic(1), Seen::default());
    let (feed, fed) = channel::<u64>(16);
    let failing = environment.from_source("failing", fed, WatermarkStrategy::none());
    counting(failing, &fails, 13).for_each(drop);
    let endless = tidemill_operators::source::from_parallel_iter(|subtask, _| subtask as u64..);
    let endless = environment.from_source("endless", endless, WatermarkStrategy::none());
    counting(endless, &goes_on, u64::MAX).for_each(drop);
    let job = environment.start().unwrap();
    let is_up = AtomicBool::new(false);
    feed.send(13).unwrap();
    until(&job, |metrics| metrics.checkpoints.region_restarts == 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let asked = job.monitor().savepoint(place.0.path().join("savepoint")).unwrap();
            is_up.store(fails.opened() == 4, Ordering::Relaxed);
            assert!(asked.exists());
        });
    });
    assert!(is_up.load(Ordering::Relaxed), "the savepoint lacks a region");
    assert!(job.monitor().suspend().is_ok());
    assert_eq!(job.wait().unwrap().checkpoints.restarts, 1);
    assert_eq!(goes_on.opened(), 2);
}
