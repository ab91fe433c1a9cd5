//! Jobs that are drained in the middle of their input: all windows fire, and whoever goes on from there reads on.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rkyv::Archived;
use tidemill_engine::model::{
    config::JobConfig, metrics::JobMetrics, source::BoxError, watermark::WatermarkStrategy,
};
use tidemill_operators::{
    aggregate::Count,
    api::environment::StreamEnvironment,
    keyed::process::{FiredTimer, KeyedProcessFunction, ProcessContext, StateRegistry, ValueState},
    sink::FileSink,
    source::{JsonLinesSource, from_parallel_iter},
    window::assigner::TumblingEventTime,
};

use super::recovery::{Place, rows};

const KEYS: u64 = 7;
const WINDOW_MS: u64 = 1_000;

/// Names the numbers of one key in the window of a time.
fn slot(key: u64, at_ms: u64) -> u64 {
    at_ms / WINDOW_MS * KEYS + key
}

/// Counts the numbers of each slot, and tells their count by a timer at the end of the window.
struct Counting(ValueState<u64>);

impl KeyedProcessFunction<u64, u64> for Counting {
    type Output = (u64, u64);

    fn on_record(
        &mut self,
        number: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, (u64, u64)>,
    ) -> Result<(), BoxError> {
        assert!(context.watermark() < number.to_native() as i64, "a record in time");
        context.update(self.0, || 0, |count| *count += 1);
        context.register_event_timer(((number.to_native() / WINDOW_MS + 1) * WINDOW_MS - 1) as i64);
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: FiredTimer,
        context: &mut ProcessContext<'_, u64, (u64, u64)>,
    ) -> Result<(), BoxError> {
        assert!(matches!(timer, FiredTimer::EventTime(_)), "no other timer was registered");
        let count = context.get(self.0).unwrap_or_default();
        context.clear(self.0);
        let slot = context.key();
        context.collect((slot, count));
        Ok(())
    }
}

/// A job over the numbers below a limit, dealt over the subtasks, whose timestamps they are.
struct Job {
    place: Place,
    /// The greatest number that was read.
    newest: Arc<AtomicU64>,
}

impl Job {
    fn describe(&self, config: JobConfig, limit: u64) -> StreamEnvironment {
        let env = StreamEnvironment::with_config(config);
        let strategy =
            WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|number: &u64| *number as i64);
        let numbers =
            from_parallel_iter(move |subtask, parallelism| (subtask as u64..limit).step_by(parallelism));
        let newest = Arc::clone(&self.newest);
        let (to_windows, to_timers) = env
            .from_source("numbers", numbers, strategy)
            .uid("numbers")
            .inspect(move |number| {
                newest.fetch_max(*number, Ordering::Relaxed);
            })
            .fork();
        to_windows
            .key_by(|number| number % KEYS)
            .window(TumblingEventTime::of(Duration::from_millis(WINDOW_MS)))
            .aggregate(Count)
            .uid("windows")
            .map(|count| (slot(count.key, count.window.start as u64), count.value))
            .sink("windows", FileSink::csv(self.place.0.path().join("windows")).header(false));
        to_timers
            .key_by(|number| slot(number % KEYS, number.to_native()))
            .process(|states: &mut StateRegistry<u64>| Counting(states.value("count")))
            .uid("timers")
            .sink("timers", FileSink::csv(self.place.0.path().join("timers")).header(false));
        env
    }

    /// Runs it without a limit, and drains it behind some checkpoints.
    fn drain(&self, config: JobConfig, savepoint: &Path) -> JobMetrics {
        let job = self.describe(config, u64::MAX).start().unwrap();
        job.monitor().checkpoint().unwrap();
        job.monitor().stop_with_savepoint(savepoint, true).unwrap();
        job.wait().unwrap()
    }

    /// What was committed of each slot, and how often.
    fn committed(&self, sink: &str) -> (BTreeMap<u64, u64>, usize) {
        let rows = rows(&self.place.0.path().join(sink));
        let mut counts = BTreeMap::new();
        rows.iter().for_each(|(slot, count)| *counts.entry(*slot).or_default() += count);
        (counts, rows.len())
    }
}

#[test]
fn a_job_that_was_drained_half_way_reads_on_and_no_record_is_late_or_lost() {
    let job = Job { place: Place::new(), newest: Arc::default() };
    let [first, second] = ["first", "second"].map(|name| job.place.0.path().join(name));
    job.drain(job.place.config(), &first);
    let drained_at = job.newest.load(Ordering::Relaxed);
    let before = job.committed("windows");
    assert!(before.0.values().sum::<u64>() > 0);
    assert!(job.committed("timers").0 == before.0, "all windows and timers have fired");

    // From the checkpoint in its own directory, with another number of workers.
    let metrics = job.drain(JobConfig { parallelism: 3, ..job.place.config() }, &second);
    assert!(metrics.checkpoints.restored_from.is_some());
    assert!(job.newest.load(Ordering::Relaxed) > drained_at);

    // From the savepoint, elsewhere, to an end.
    let limit = job.newest.load(Ordering::Relaxed) + 5 * WINDOW_MS;
    let mut config = JobConfig { parallelism: 1, ..job.place.config() };
    let checkpoints = config.checkpoints.as_mut().unwrap();
    checkpoints.directory = job.place.0.path().join("elsewhere");
    checkpoints.savepoint = Some(second.into());
    job.describe(config.clone(), limit).execute().unwrap();
    let mut expected = BTreeMap::new();
    (0..limit).for_each(|number| *expected.entry(slot(number % KEYS, number)).or_default() += 1);
    for sink in ["windows", "timers"] {
        let (counts, rows) = job.committed(sink);
        assert!(counts == expected, "{sink}: {} of {limit}", counts.values().sum::<u64>());
        assert!(rows > expected.len(), "a window that has fired fires again with what is new");
    }
    // That was the end: nothing more comes.
    let rows = job.committed("windows").1;
    job.describe(config, limit).execute().unwrap();
    assert_eq!(job.committed("windows").1, rows);
}

#[test]
fn a_file_of_which_a_job_was_drained_is_read_to_its_end_line_by_line_once() {
    const LINES: u64 = 200_000;
    let place = Place::new();
    let input = place.0.path().join("input");
    let text: String = (0..LINES).map(|number| format!("{number}\n")).collect();
    std::fs::write(&input, text).unwrap();
    let describe = |parallelism| {
        let env = StreamEnvironment::with_config(JobConfig { parallelism, ..place.config() });
        env.from_source("lines", JsonLinesSource::<u64>::new([&input]), WatermarkStrategy::none())
            .map(|number| (number, 1_u64))
            .sink("rows", FileSink::csv(place.0.path().join("rows")).header(false));
        env
    };
    let job = describe(2).start().unwrap();
    // Wherever it is by then: on a machine that is slow to ask, at its end.
    let _taken = job.monitor().checkpoint();
    let _drained = job.monitor().stop_with_savepoint(place.0.path().join("savepoint"), true);
    job.wait().unwrap();
    describe(3).execute().unwrap();
    let mut lines: Vec<u64> =
        rows(&place.0.path().join("rows")).into_iter().map(|(number, _)| number).collect();
    lines.sort_unstable();
    assert!(lines.iter().copied().eq(0..LINES), "{} lines of {LINES}", lines.len());
}
