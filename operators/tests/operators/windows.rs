//! The window operator against a reference that keeps every record and tries every window, after each watermark.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};
use tidemill_engine::model::{
    config::JobConfig,
    operator::Signal,
    time::{Timestamp, WATERMARK_MAX},
    watermark::WatermarkStrategy,
};
use tidemill_operators::{
    aggregate::Count,
    testkit::{
        job::Setting,
        operator::{Given, OperatorTest, Seen},
        record::RecordSink,
        script::ScriptSource,
    },
    window::{
        accumulator::Accumulated,
        apply::ApplyWindow,
        assigner::{SlidingEventTime, TimeWindow},
        function::{AggregateWindow, ReduceWindow, WindowResult},
        late::DropLate,
        operator::Window,
    },
};

type Record = (u8, i64, u32);

#[derive(Clone, Copy, Debug)]
struct Windows {
    size: i64,
    slide: i64,
    offset: i64,
    lateness: i64,
}

impl Windows {
    fn assigner(&self) -> SlidingEventTime {
        let millis = |millis: i64| Duration::from_millis(millis as u64);
        SlidingEventTime::of(millis(self.size), millis(self.slide)).with_offset(millis(self.offset))
    }

    /// Every window that holds `at`.
    fn of(&self, at: i64) -> Vec<TimeWindow> {
        let starts =
            (at - self.size + 1..=at).filter(|start| (start - self.offset).rem_euclid(self.slide) == 0);
        starts.map(|start| TimeWindow { start, end: start + self.size }).collect()
    }
}

/// What windows have to do, in the slowest way: after each watermark, every window that the watermark has newly passed or
/// that got a record since it fired, and that is not gone yet, tells all its records.
struct Reference {
    windows: Windows,
    records: BTreeMap<(TimeWindow, u8), Vec<u32>>,
    watermark: Timestamp,
    /// Windows with records that no firing has told.
    changed: BTreeSet<(TimeWindow, u8)>,
    late: Vec<u32>,
}

impl Reference {
    fn new(windows: Windows) -> Self {
        let (records, changed, late) = (BTreeMap::new(), Default::default(), Vec::new());
        Self { windows, records, watermark: Timestamp::MIN, changed, late }
    }

    fn add(&mut self, (key, at, id): Record) {
        let gone =
            |window: &TimeWindow| (window.end - 1).saturating_add(self.windows.lateness) <= self.watermark;
        let open: Vec<TimeWindow> = self.windows.of(at).into_iter().filter(|window| !gone(window)).collect();
        if open.is_empty() {
            self.late.push(id);
        }
        for window in open {
            self.records.entry((window, key)).or_default().push(id);
            self.changed.insert((window, key));
        }
    }

    fn advance(&mut self, watermark: Timestamp) -> Vec<(u8, TimeWindow, Vec<u32>)> {
        self.watermark = watermark;
        // A window tells itself to every key in it, when one of them has changed.
        let due: Vec<TimeWindow> = self
            .changed
            .iter()
            .map(|(window, _)| *window)
            .filter(|window| window.end - 1 <= watermark)
            .collect();
        self.changed.retain(|(window, _)| window.end - 1 > watermark);
        let told = self.records.iter().filter(|((window, _), _)| due.contains(window));
        told.map(|((window, key), ids)| (*key, *window, sorted(ids))).collect()
    }
}

fn sorted(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

fn windows() -> impl Strategy<Value = Windows> {
    (1..25_i64).prop_flat_map(|size| {
        let lateness = prop_oneof![Just(0_i64), 0..40_i64];
        (Just(size), 1..=size, 0..30_i64, lateness).prop_map(|(size, slide, offset, lateness)| Windows {
            size,
            slide,
            offset,
            lateness,
        })
    })
}

/// Records of three keys that rise and fall, and watermarks in between that only rise.
fn input() -> impl Strategy<Value = Vec<Given<Record>>> {
    let step = prop_oneof![
        6 => (0..3_u8, -30..30_i64).prop_map(|(key, at)| (Some(key), at)),
        1 => (0..20_i64).prop_map(|by| (None, by)),
    ];
    prop::collection::vec(step, 0..80).prop_map(|steps| {
        let mut watermark = -40;
        let one = |(id, (key, by)): (usize, (Option<u8>, i64))| match key {
            Some(key) => {
                let at = watermark + 20 + by;
                Given::Record((key, at, id as u32), at)
            }
            None => {
                watermark += by;
                Given::Signal(Signal::Watermark(watermark))
            }
        };
        steps.into_iter().enumerate().map(one).collect()
    })
}

/// As [`input`], with each record for all three keys: so whatever is told again is told again for all of them.
fn input_for_all_keys() -> impl Strategy<Value = Vec<Given<Record>>> {
    let of_all = |one: Given<Record>| match one {
        Given::Record((_, at, id), _) => {
            (0..3).map(|key| Given::Record((key, at, 3 * id + u32::from(key)), at)).collect()
        }
        other => vec![other],
    };
    input().prop_map(move |input| input.into_iter().take(40).flat_map(of_all).collect())
}

/// The output that the reference has for this input, the last watermark's included.
fn expected<U>(
    windows: Windows,
    input: &[Given<Record>],
    tell: impl Fn(u8, TimeWindow, Vec<u32>) -> U,
) -> Vec<Seen<U>> {
    let mut reference = Reference::new(windows);
    let mut seen = Vec::new();
    let last = [Given::Signal(Signal::Watermark(WATERMARK_MAX))];
    for one in input.iter().chain(&last) {
        match one {
            Given::Record(record, _) => reference.add(*record),
            Given::Signal(Signal::Watermark(watermark)) => {
                for (key, window, ids) in reference.advance(*watermark) {
                    seen.push(Seen::Record(tell(key, window, ids), window.max_timestamp()));
                }
                if *watermark < WATERMARK_MAX {
                    seen.push(Seen::Signal(Signal::Watermark(*watermark)));
                }
            }
            _ => {}
        }
    }
    seen
}

/// The operator with the given function.
fn window<W>(windows: Windows, function: W) -> Window<u8, Record, W, DropLate> {
    Window::new(0, windows.assigner().into(), windows.lateness, function, DropLate)
}

/// A test that stops and goes on in a few ways. Which windows are told again for which keys is up to the number of subtasks.
fn test<U>(windows: Windows, input: &[Given<Record>], seed: u64) -> OperatorTest<Record, U> {
    let test = OperatorTest::new(input.to_vec()).restarted_by(seed);
    if windows.lateness == 0 { test } else { test.alone() }
}

proptest! {
    #![proptest_config(Config {
        cases: 150, failure_persistence: None, rng_seed: RngSeed::Fixed(3), ..Config::default()
    })]

    #[test]
    fn windows_tell_what_the_reference_tells(windows in windows(), input in input(), seed in any::<u64>()) {
        let ids = |key: u8, window: TimeWindow, records: &[Record]| {
            [(key, window, sorted(&records.iter().map(|record| record.2).collect::<Vec<_>>()))]
        };
        test(windows, &input, seed)
            .expect(expected(windows, &input, |key, window, ids| (key, window, ids)))
            .check_head(|record: &Record| record.0, window(windows, ApplyWindow::new(ids)));
    }

    #[test]
    fn windows_with_lateness_go_on_in_any_number_of_subtasks(
        windows in windows(), input in input_for_all_keys(), seed in any::<u64>(),
    ) {
        OperatorTest::new(input.clone())
            .restarted_by(seed)
            .expect(expected(windows, &input, |key, window, ids| WindowResult { key, window, value: ids.len() as u64 }))
            .check_head(|record: &Record| record.0, window(windows, Accumulated(AggregateWindow(Count))));
    }

    #[test]
    fn aggregates_and_reductions_tell_what_the_reference_tells(windows in windows(), input in input(), seed in any::<u64>()) {
        test(windows, &input, seed)
            .expect(expected(windows, &input, |key, window, ids| WindowResult { key, window, value: ids.len() as u64 }))
            .check_head(|record: &Record| record.0, window(windows, Accumulated(AggregateWindow(Count))));
        let newest = |one: Record, other: &Record| if other.2 > one.2 { *other } else { one };
        test(windows, &input, seed)
            .expect(expected(windows, &input, |key, window, ids| {
                let last = input.iter().find_map(|one| match one {
                    Given::Record(record, _) if Some(&record.2) == ids.last() => Some(*record),
                    _ => None,
                });
                WindowResult { key, window, value: last.unwrap() }
            }))
            .check_head(
                |record: &Record| record.0,
                window(windows, Accumulated(ReduceWindow::new(newest))),
            );
    }

    #[test]
    fn what_is_late_in_a_job_of_one_split_is_what_the_reference_calls_late(
        windows in windows(),
        times in prop::collection::vec((0..3_u8, -100..100_i64), 0..80),
        bound in 0..30_i64,
        seed in 0..1000_u64,
        batch_records_max in 1..20_usize,
        step_records_max in 1..20_usize,
    ) {
        let records: Vec<Record> =
            times.iter().enumerate().map(|(id, (key, at))| (*key, *at, id as u32)).collect();
        let mut reference = Reference::new(windows);
        let mut newest = Timestamp::MIN;
        for record in &records {
            newest = newest.max(record.1);
            reference.add(*record);
            reference.advance(newest - bound - 1);
        }
        let config = JobConfig { batch_records_max, step_records_max, ..JobConfig::default() };
        let environment = Setting::simulated(seed, config).environment();
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(bound as u64))
            .with_timestamps(|record: &Record| record.1);
        let ((late_sink, late), (sink, _results)) = (RecordSink::new(), RecordSink::new());
        let (in_time, late_records) = environment
            .from_source("records", ScriptSource::new([records]), strategy)
            .key_by(|record| record.0)
            .window(windows.assigner())
            .allowed_lateness(Duration::from_millis(windows.lateness as u64))
            .split_late();
        in_time.aggregate(Count).sink("results", sink);
        late_records.map(|record| record.2.to_native()).sink("late", late_sink);
        environment.execute().unwrap();
        prop_assert_eq!(late.take_records(), reference.late);
    }
}
