//! Windows of streams whose subtasks combine their own records first: the results are those of `key_by`.

use std::{collections::BTreeMap, time::Duration};

use rkyv::Archived;
use tidemill_engine::model::{config::JobConfig, time::Timestamp, watermark::WatermarkStrategy};
use tidemill_operators::{
    aggregate::{AggregateFunction, Count},
    testkit::{
        job::{Setting, configs, run, same_everywhere, settings},
        record::RecordSink,
        script::{Event, ScriptSource},
    },
    window::assigner::{SlidingEventTime, TumblingEventTime},
};
use tidemill_storage::{Record, WriteAs, record::InPlaceOf};

use crate::{
    records::{Trade, trades},
    windows::{by_window, millis, unruly, within_bound},
};

/// A window's start, a key and what the window has of it.
type Row<K> = (i64, K, i64);

fn source() -> ScriptSource<Trade> {
    ScriptSource::dealt(trades(200), 4)
}

/// What `fold` makes of the trades of each window and key.
fn rows<K: Ord>(
    trades: &[Trade],
    (size, slide, offset): (i64, i64, i64),
    key: impl Fn(&Trade) -> K,
    fold: impl Fn(Option<i64>, &Trade) -> i64,
) -> Vec<Row<K>> {
    let mut values: BTreeMap<(i64, K), i64> = BTreeMap::new();
    for ((window, _account), trades) in by_window(trades, size, slide, offset) {
        for trade in &trades {
            let at = (window.start, key(trade));
            let value = fold(values.get(&at).copied(), trade);
            values.insert(at, value);
        }
    }
    values.into_iter().map(|((start, key), value)| (start, key, value)).collect()
}

fn one_more(count: Option<i64>, _trade: &Trade) -> i64 {
    count.unwrap_or(0) + 1
}

fn counts(size: i64, slide: i64, offset: i64) -> Vec<Row<u32>> {
    rows(&trades(200), (size, slide, offset), |trade| trade.account, one_more)
}

#[test]
fn windows_of_every_shape_have_all_their_records() {
    for (size, slide, offset) in [(100, 100, 0), (70, 70, 33), (100, 25, 0), (100, 30, 7), (1, 1, 0)] {
        same_everywhere(counts(size, slide, offset), |environment, results| {
            let windows = SlidingEventTime::of(millis(size as u64), millis(slide as u64));
            environment
                .from_source("trades", source(), within_bound())
                .combine_by(|trade| trade.account)
                .window(windows.with_offset(millis(offset as u64)))
                .aggregate(Count)
                .map(|counted| (counted.window.start, counted.key, counted.value as i64))
                .sink("results", results);
        });
    }
}

#[test]
fn records_are_combined_in_place_behind_an_exchange() {
    same_everywhere(counts(100, 50, 0), |environment, results| {
        environment
            .from_source("trades", source(), within_bound())
            .rebalance()
            .combine_by(|trade: &InPlaceOf<Trade>| trade.account.to_native())
            .window(SlidingEventTime::of(millis(100), millis(50)))
            .aggregate(Count)
            .map(|counted| (counted.window.start, counted.key, counted.value as i64))
            .sink("results", results);
    });
}

#[test]
fn a_reduce_combines_results_of_subtasks() {
    let largest = |most: Option<i64>, trade: &Trade| most.unwrap_or(i64::MIN).max(trade.amount);
    let expected = rows(&trades(200), (100, 50, 0), |trade| trade.account, largest);
    same_everywhere(expected, |environment, results| {
        environment
            .from_source("trades", source(), within_bound())
            .combine_by(|trade| trade.account)
            .window(SlidingEventTime::of(millis(100), millis(50)))
            .reduce(|best, trade| if trade.amount > best.amount { *trade } else { best })
            .map(|best| (best.window.start, best.key, best.value.amount))
            .sink("results", results);
    });
}

#[derive(Clone, Record)]
struct Order {
    at: i64,
    client: String,
}

#[derive(WriteAs)]
#[write_as(Order)]
struct OrderRef {
    at: i64,
    client: &'static str,
}

const CLIENTS: [&str; 4] =
    ["", "Ann", "Annabel", "a client whose name is longer than a cache line, which names can be"];

fn client(trade: &Trade) -> &'static str {
    CLIENTS[trade.account as usize % CLIENTS.len()]
}

/// The length of all clients' names.
#[derive(Clone)]
struct Lengths;

impl AggregateFunction<Order> for Lengths {
    type Accumulator = u64;
    type Output = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, sum: &mut u64, order: &Archived<Order>) {
        *sum += order.client.len() as u64;
    }

    fn merge(&self, into: &mut u64, other: &u64) {
        *into += other;
    }

    fn result(&self, sum: &u64) -> u64 {
        *sum
    }
}

#[test]
fn wide_keys_borrowed_from_records_and_views_with_text() {
    let length = |sum: Option<i64>, trade: &Trade| sum.unwrap_or(0) + client(trade).len() as i64;
    let expected = rows(&trades(200), (100, 100, 0), |trade| client(trade).to_owned(), length);
    same_everywhere(expected.clone(), |environment, results| {
        environment
            .from_source("trades", source(), within_bound())
            .map(|trade| Order { at: trade.at, client: client(&trade).to_owned() })
            .combine_by_ref(|order| order.client.as_str())
            .window(TumblingEventTime::of(millis(100)))
            .aggregate(Lengths)
            .map(|sum| (sum.window.start, sum.key, sum.value as i64))
            .sink("results", results);
    });
    same_everywhere(expected, |environment, results| {
        environment
            .from_source("trades", source(), within_bound())
            .map(|trade| OrderRef { at: trade.at, client: client(&trade) })
            .ship_as::<Order>()
            .combine_by(|order| order.client.to_owned())
            .window(TumblingEventTime::of(millis(100)))
            .aggregate(Lengths)
            .map(|sum| (sum.window.start, sum.key, sum.value as i64))
            .sink("results", results);
    });
}

#[test]
fn more_keys_than_a_subtask_holds_leave_their_places_to_each_other() {
    let numbers = || (0..30_000_u64).map(|number| number * 7919 % 10_007);
    let mut expected = vec![0_i64; 10_007];
    numbers().for_each(|number| expected[number as usize] += 1);
    let expected: Vec<Row<u64>> = (0..).zip(expected).map(|(key, count)| (0, key, count)).collect();
    let strategy = || WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|_: &u64| 7);
    for config in configs().into_iter().filter(|config| config.batch_records_max > 2) {
        let setting = Setting::simulated(1, config);
        let mut rows: Vec<Row<u64>> = run(&setting, |environment, results| {
            environment
                .from_source("numbers", ScriptSource::dealt(numbers(), 3), strategy())
                .combine_by(|number| *number)
                .window(TumblingEventTime::of(millis(100)))
                .aggregate(Count)
                .map(|counted| (counted.window.start, counted.key, counted.value as i64))
                .sink("results", results);
        });
        rows.sort_unstable();
        assert_eq!(rows, expected, "under {}", setting.name);
    }
}

#[test]
fn what_crosses_is_one_record_per_key_slice_and_subtask() {
    for setting in settings(1) {
        let environment = setting.environment();
        let (sink, recorded) = RecordSink::new();
        let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|at: &i64| *at);
        environment
            .from_source("numbers", ScriptSource::dealt(0..1_000_i64, 2), strategy)
            .combine_by(|at| at % 5)
            .window(SlidingEventTime::of(millis(500), millis(250)))
            .aggregate(Count)
            .map(|counted| counted.value)
            .sink("counts", sink);
        let metrics = environment.execute().unwrap();
        let combine = &metrics.operator("combine").unwrap().counters;
        // Four slices of five keys, from each subtask that reads one of the two splits.
        let readers = setting.config.parallelism.min(2) as u64;
        assert_eq!(
            (combine.records_in, combine.records_out),
            (1_000, 4 * 5 * readers),
            "under {}",
            setting.name
        );
        assert_eq!(recorded.len(), 5 * 5, "under {}", setting.name);
    }
}

#[test]
fn with_lateness_enough_the_last_result_of_a_window_has_every_record() {
    let expected = rows(&unruly(), (60, 20, 0), |trade| trade.account, one_more);
    for setting in settings(2) {
        let fired: Vec<Row<u32>> = run(&setting, |environment, results| {
            environment
                .from_source("trades", ScriptSource::dealt(unruly(), 3), within_bound())
                .combine_by(|trade| trade.account)
                .window(SlidingEventTime::of(millis(60), millis(20)))
                .allowed_lateness(Duration::from_secs(3600))
                .aggregate(Count)
                .map(|counted| (counted.window.start, counted.key, counted.value as i64))
                .sink("results", results);
        });
        let mut last: BTreeMap<(i64, u32), i64> = BTreeMap::new();
        for (start, key, count) in fired {
            let before = last.insert((start, key), count).unwrap_or(0);
            assert!(before <= count, "a window lost records; under {}", setting.name);
        }
        let last: Vec<Row<u32>> = last.into_iter().map(|((start, key), count)| (start, key, count)).collect();
        assert_eq!(last, expected, "under {}", setting.name);
    }
}

#[test]
fn a_source_that_pauses_hands_on_what_it_has_before_windows_fire_without_it() {
    for seed in 0..20 {
        let setting = Setting::simulated(seed, JobConfig { parallelism: 2, ..JobConfig::default() });
        let rows: Vec<Row<i64>> = run(&setting, |environment, results| {
            let strategy = WatermarkStrategy::for_monotonous_timestamps()
                .with_timestamps(|at: &i64| *at)
                .with_idleness(millis(100));
            // The one that pauses has records of a slice that is over for the other long before it comes back.
            let pauses = [Event::Record(3), Event::Wait(Duration::from_secs(3600)), Event::Record(5_000)];
            let goes_on =
                (0..400).map(|i| if i % 2 == 0 { Event::Record(10 * i) } else { Event::Wait(millis(10)) });
            let script = ScriptSource::of_events([pauses.to_vec(), goes_on.collect()]);
            environment
                .from_source("numbers", script, strategy)
                .combine_by(|_| 0_i64)
                .window(TumblingEventTime::of(millis(1_000)))
                .aggregate(Count)
                .map(|counted| (counted.window.start, counted.key, counted.value as i64))
                .sink("results", results);
        });
        assert_eq!(
            rows,
            [(0, 0, 51), (1_000, 0, 50), (2_000, 0, 50), (3_000, 0, 50), (5_000, 0, 1)],
            "seed {seed}"
        );
    }
}

#[test]
fn a_record_without_a_timestamp_is_an_error_that_names_the_operator() {
    let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|at: &i64| *at);
    let environment =
        Setting::simulated(1, JobConfig { parallelism: 2, ..JobConfig::default() }).environment();
    environment
        .from_source("numbers", ScriptSource::new([vec![1, Timestamp::MIN, 3]]), strategy)
        .combine_by(|at| *at)
        .window(TumblingEventTime::of(millis(10)))
        .aggregate(Count)
        .for_each(drop);
    let error = environment.execute().unwrap_err().to_string();
    assert!(error.contains("combine") && error.contains("without a timestamp"), "{error}");
}
