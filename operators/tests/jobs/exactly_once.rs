//! Jobs under simulation with crashes: what is committed is what a run without them commits.

use std::{collections::BTreeMap, fmt::Debug, ops::Range, time::Duration};

use rkyv::Archived;
use tidemill_engine::model::{source::BoxError, watermark::WatermarkStrategy};
use tidemill_operators::{
    aggregate::AggregateFunction,
    api::environment::StreamEnvironment,
    keyed::process::{
        FiredTimer, KeyedProcessFunction, ListState, MapState, ProcessContext, StateRegistry, ValueState,
    },
    sim::{SimReport, SimSink, Simulation},
    source::from_vec,
    testkit::script::{Event, ScriptSource},
    window::assigner::{SlidingEventTime, TumblingEventTime},
};

/// Seeds per job. `TIDEMILL_SIM_SEEDS` runs more.
const SEEDS: u64 = 40;
/// Records per job: enough for several checkpoints.
const RECORDS: u64 = 2_500;

fn numbers() -> Vec<u64> {
    (0..RECORDS).collect()
}

/// Event time of a number: in order but for a few.
fn at(number: u64) -> i64 {
    number as i64 * 10 - (number % 7) as i64 * 5
}

fn in_event_time() -> WatermarkStrategy<impl tidemill_engine::model::watermark::AssignTimestamps<u64>> {
    WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(40))
        .with_timestamps(|number| at(*number))
}

/// Runs a job with its directory alone, and with a remote store and machines that are lost.
fn check<T, D>(expected: Vec<T>, describe: D)
where
    T: Clone + Debug + Send + 'static,
    D: Fn(&StreamEnvironment, SimSink<T>),
{
    let here = Simulation::new().seeds(SEEDS).check(expected.clone(), &describe);
    was_hard(&here);
    assert!(here.begun_with_savepoint >= here.runs / 20, "too few began with a savepoint: {here:?}");
    let remote = Simulation::new().seeds(SEEDS).remote().check(expected, &describe);
    was_hard(&remote);
    assert!(remote.machines_lost >= remote.runs / 4, "too few machines were lost: {remote:?}");
}

/// Fails if the simulation was too kind to prove anything.
fn was_hard(report: &SimReport) {
    let runs = report.runs;
    let enough = report.deaths >= runs / 2
        && report.recoveries >= runs / 5
        && report.checkpoints >= runs
        && report.checkpoints_failed >= runs / 4
        && report.stops >= runs / 10
        && report.savepoints >= runs / 10
        && report.in_flight_bytes >= 300 * runs;
    assert!(enough, "too little went wrong: {report:?}");
}

#[test]
fn a_job_without_state_commits_each_record_once() {
    // Without state there is little to do for a record: it takes more of them until there is a checkpoint to go on from.
    let numbers = || (0..8 * RECORDS).collect::<Vec<u64>>();
    check(numbers(), |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .rebalance()
            .sink("out", sink);
    });
}

#[test]
fn a_rolling_count_counts_each_record_once() {
    let expected = numbers().into_iter().map(|number| (number % 13, number / 13 + 1));
    check(expected.collect(), |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .key_by(|number| number % 13)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .sink("counts", sink);
    });
}

/// Counts numbers in one part of the job, and hands them on in another; half of the lives that end behind a savepoint are drained.
fn counted_and_handed_on(simulation: Simulation, records: u64) -> SimReport {
    let numbers = || (0..records).collect::<Vec<u64>>();
    let expected = numbers().into_iter().map(|number| (number % 13, number / 13 + 1));
    let expected = expected.chain(numbers().into_iter().map(|number| (number, 0)));
    simulation.drains().check(expected, |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .key_by(|number| number % 13)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .sink("counts", sink.clone());
        environment
            .from_source("others", from_vec(numbers()), WatermarkStrategy::none())
            .rebalance()
            .map(|number| (number.to_native(), 0))
            .sink("out", sink);
    })
}

#[test]
fn a_job_that_is_drained_in_the_middle_of_its_input_reads_on_and_commits_each_record_once() {
    let here = counted_and_handed_on(Simulation::new().seeds(SEEDS), RECORDS);
    let failing = counted_and_handed_on(Simulation::new().seeds(SEEDS).operator_failures(3), RECORDS);
    let remote = counted_and_handed_on(Simulation::new().seeds(SEEDS).remote(), RECORDS);
    for report in [here, failing, remote] {
        let runs = report.runs;
        let enough =
            report.drained >= runs / 20 && report.stops > report.drained && report.deaths >= runs / 2;
        assert!(enough, "too little went wrong: {report:?}");
    }
}

/// Every other store under simulation does with its records what only a large table of small records does otherwise, if they
/// fill some blocks. Counts so many numbers by so many keys.
fn count_in_blocks<const WORDS: usize, const KEYS: u64>(numbers: Range<u64>) {
    let counted = || numbers.clone().collect::<Vec<u64>>();
    let expected = counted().into_iter().map(|number| (number % KEYS, number / KEYS + 1));
    let report = Simulation::new().seeds(SEEDS).parallelism_max(2).check(expected, |environment, sink| {
        environment
            .from_source("numbers", from_vec(counted()), WatermarkStrategy::none())
            .key_by(|number| number % KEYS)
            .fold([0_u64; WORDS], |counts: &mut [u64; WORDS], _| {
                let [first, .., last] = counts.as_mut_slice() else { return };
                (*first, *last) = (*first + 1, *last + 1);
            })
            .map(|(key, counts)| (key, (counts[0] + counts[WORDS - 1]) / 2))
            .sink("counts", sink);
    });
    was_hard(&report);
}

#[test]
fn records_that_change_in_place_count_once() {
    count_in_blocks::<500, 300>(0..3 * RECORDS);
}

#[test]
fn records_that_are_copied_behind_a_barrier_count_once() {
    count_in_blocks::<100, 700>(0..4 * RECORDS);
}

const KEYS: u64 = 11;

/// Windows of `size` milliseconds every `slide` with the sums of their numbers by key.
fn windowed(size: i64, slide: i64) -> Vec<(u64, i64, u64)> {
    let mut sums = BTreeMap::<(u64, i64), u64>::new();
    for number in numbers() {
        let last = at(number).div_euclid(slide) * slide;
        let starts = (0..size / slide).map(|back| last - back * slide);
        for start in starts {
            *sums.entry((number % KEYS, start)).or_default() += number;
        }
    }
    sums.into_iter().map(|((key, start), sum)| (key, start, sum)).collect()
}

#[test]
fn tumbling_windows_fire_once_with_all_their_records() {
    check(windowed(500, 500), |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), in_event_time())
            .key_by(|number| number % KEYS)
            .window(TumblingEventTime::of(Duration::from_millis(500)))
            .aggregate(Sum)
            .map(|result| (result.key, result.window.start, result.value))
            .sink("windows", sink);
    });
}

#[test]
fn sliding_windows_and_all_records_of_a_window_survive() {
    check(windowed(600, 200), |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), in_event_time())
            .key_by(|number| number % KEYS)
            .window(SlidingEventTime::of(Duration::from_millis(600), Duration::from_millis(200)))
            .apply(|key, window, records: &[u64]| Some((key, window.start, records.iter().sum::<u64>())))
            .sink("windows", sink);
    });
}

#[test]
fn what_subtasks_combine_before_they_exchange_it_is_neither_lost_nor_counted_twice() {
    check(windowed(600, 200), |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), in_event_time())
            .combine_by(|number| number % KEYS)
            .window(SlidingEventTime::of(Duration::from_millis(600), Duration::from_millis(200)))
            .aggregate(Sum)
            .map(|result| (result.key, result.window.start, result.value))
            .sink("windows", sink);
    });
}

/// The number of windows by key that end together, and the sum of their numbers.
#[test]
fn united_streams_and_windows_of_windows_survive() {
    let mut expected = BTreeMap::<i64, (u64, u64)>::new();
    for (_, start, sum) in windowed(500, 500) {
        let of_all = expected.entry(start).or_default();
        *of_all = (of_all.0 + 1, of_all.1 + sum);
    }
    let expected = expected.into_iter().map(|(start, (windows, sum))| (start, windows, sum));
    let report = Simulation::new().seeds(SEEDS).check(expected, |environment, sink| {
        let of = |name: &str, remainder: u64| {
            let numbers = numbers().into_iter().filter(|number| number % 2 == remainder).collect();
            environment.from_source(name, from_vec(numbers), in_event_time())
        };
        let tumbling = || TumblingEventTime::of(Duration::from_millis(500));
        of("even", 0)
            .union(of("odd", 1))
            .key_by(|number| number.to_native() % KEYS)
            .window(tumbling())
            .aggregate(Sum)
            .map(|result| (result.window.start, result.value))
            .rebalance()
            .key_by(|result| result.0.to_native())
            .fold((0_u64, 0_u64), |all: &mut (u64, u64), result| {
                *all = (all.0 + 1, all.1 + result.1.to_native());
            })
            .key_by(|(start, _)| *start)
            .window(tumbling())
            .reduce(|last, next| if next.1.0 > last.1.0 { *next } else { last })
            .map(|result| (result.key, result.value.1.0, result.value.1.1))
            .sink("windows", sink);
    });
    was_hard(&report);
}

/// Sums numbers up.
#[derive(Clone)]
struct Sum;

impl AggregateFunction<u64> for Sum {
    type Accumulator = u64;
    type Output = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, sum: &mut u64, number: &Archived<u64>) {
        *sum += number.to_native();
    }

    fn merge(&self, into: &mut u64, other: &u64) {
        *into += other;
    }

    fn result(&self, sum: &u64) -> u64 {
        *sum
    }
}

/// Keeps each number in a list and a map, and tells at a timer of event time what it has of the second before.
struct Seconds {
    last: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u64, u64>,
}

const SECOND_MS: i64 = 1_000;

impl KeyedProcessFunction<u64, u64> for Seconds {
    type Output = (u64, i64, u64, u64);

    fn on_record(
        &mut self,
        number: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, Self::Output>,
    ) -> Result<(), BoxError> {
        let number = number.to_native();
        let second = at(number).div_euclid(SECOND_MS);
        context.register_event_timer((second + 1) * SECOND_MS);
        context.update(self.last, || 0, |last| *last = (*last).max(number));
        context.list(self.list).add(number);
        context.map(self.map).put(&number, number * 2);
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: FiredTimer,
        context: &mut ProcessContext<'_, u64, Self::Output>,
    ) -> Result<(), BoxError> {
        let FiredTimer::EventTime(end) = timer else { return Err("no such timer was registered".into()) };
        let in_second = |number: &u64| at(*number) >= end - SECOND_MS && at(*number) < end;
        let listed: u64 = context.list(self.list).get().iter().filter(|number| in_second(number)).sum();
        let mut mapped = 0;
        context.map(self.map).for_each(|number, double| {
            if in_second(&number) {
                mapped += double.to_native();
            }
        });
        let key = context.key();
        context.collect((key, end, listed, mapped));
        Ok(())
    }
}

#[test]
fn process_functions_keep_values_lists_maps_and_timers() {
    let expected = windowed(SECOND_MS, SECOND_MS);
    let expected = expected.into_iter().map(|(key, start, sum)| (key, start + SECOND_MS, sum, 2 * sum));
    check(expected.collect(), |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), in_event_time())
            .key_by(|number| number % KEYS)
            .process(|states: &mut StateRegistry<u64>| Seconds {
                last: states.value("last"),
                list: states.list("list"),
                map: states.map("map"),
            })
            .sink("seconds", sink);
    });
}

#[test]
fn a_job_that_restarts_before_its_first_record_goes_on() {
    let records = (0..60_u64).map(|number| (number % KEYS, number / KEYS + 1));
    let report = Simulation::new().seeds(SEEDS).kills_max(8).check(records, |environment, sink| {
        // Silent over many checkpoints; and one split has nothing ever.
        let silent = [Event::Wait(Duration::from_millis(60))].into_iter();
        let script = ScriptSource::of_events([silent.chain((0..60).map(Event::Record)).collect(), vec![]]);
        environment
            .from_source("numbers", script, WatermarkStrategy::none())
            .key_by(|number| number % KEYS)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .sink("counts", sink);
    });
    let runs = report.runs;
    let enough = report.deaths >= runs && report.recoveries >= runs && report.checkpoints >= 10 * runs;
    assert!(enough, "too little went wrong: {report:?}");
}

#[test]
fn what_an_input_prepared_that_ended_long_before_the_others_is_committed() {
    let input = |length: u64, of: u64| (0..length).map(move |number| number * 3 + of).collect::<Vec<u64>>();
    let inputs = || [input(0, 0), input(20, 1), input(RECORDS, 2)];
    let report = Simulation::new().seeds(SEEDS).check(inputs().concat(), |environment, sink| {
        let [none, few, many] = inputs().map(from_vec);
        let from = |name, source| environment.from_source(name, source, WatermarkStrategy::none());
        // Without an exchange behind it, the sink's own input has come to its end.
        from("many", many)
            .union(from("none", none))
            .union(from("few", few).rebalance().map(|number| number.to_native()))
            .map(|number| number.to_native())
            .sink("out", sink);
    });
    let runs = report.runs;
    let enough = report.deaths >= runs / 2 && report.recoveries >= runs / 5 && report.checkpoints >= runs;
    assert!(enough, "too little went wrong: {report:?}");
}

#[test]
fn records_under_way_on_every_kind_of_exchange_survive_another_number_of_workers() {
    let expected = numbers().into_iter().flat_map(|number| {
        let before = 2 * (number / KEYS);
        [1, 2].map(|copy| (number % KEYS, before + copy))
    });
    let report = Simulation::new().seeds(SEEDS).check(expected, |environment, sink| {
        let numbers = environment.from_source("numbers", from_vec(numbers()), WatermarkStrategy::none());
        let (one, other) = numbers.rescale().map(|number| number.to_native()).fork();
        let other = other.partition_custom(|number, subtasks| number.to_native() as usize % subtasks);
        one.map(|number| number.to_native())
            .forward()
            .map(|number| number.to_native())
            .rebalance()
            .map(|number| number.to_native())
            .union(other.map(|number| number.to_native()))
            .global()
            .key_by(|number| number.to_native() % KEYS)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .sink("counts", sink);
    });
    was_hard(&report);
}
