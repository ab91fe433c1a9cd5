//! Event time never stalls silently, never runs ahead of records that are in time, and does not overflow.

use std::{sync::Arc, time::Duration};

use rkyv::Archived;
use tidemill_engine::{
    model::{
        config::JobConfig,
        source::{BoxError, Output, Polled, Reader, Source, SubtaskContext},
        time::Timestamp,
        watermark::{TimestampFn, WatermarkStrategy},
    },
    platform::{Clock, Nanos, Platform, SimPlatform},
};
use tidemill_operators::{
    aggregate::Count,
    api::environment::StreamEnvironment,
    keyed::process::{FiredTimer, KeyedProcessFunction, ProcessContext},
    testkit::{
        record::RecordSink,
        script::{Event, ScriptSource},
    },
    window::assigner::{SlidingEventTime, TumblingEventTime},
};

const SECOND: Nanos = 1_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A world of its own with few workers.
fn world(seed: u64, parallelism: usize) -> (StreamEnvironment, Arc<dyn Clock>) {
    let platform = SimPlatform::new(seed);
    let clock = platform.clock();
    let config = JobConfig { parallelism, ..JobConfig::default() };
    (StreamEnvironment::on(Arc::new(platform), config), clock)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Records are their own timestamps.
fn by_itself() -> WatermarkStrategy<TimestampFn<fn(&i64) -> Timestamp>> {
    WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|at: &i64| *at)
}

/// Window ends and counts, with the virtual time at which each arrived.
fn windows_of(
    environment: StreamEnvironment,
    clock: Arc<dyn Clock>,
    source: impl Source<Item = i64>,
    idle_after: Option<Duration>,
) -> (Vec<(Timestamp, u64, Nanos)>, u64) {
    let (sink, recorded) = RecordSink::new();
    let strategy = idle_after.map_or_else(by_itself, |timeout| by_itself().with_idleness(timeout));
    environment
        .from_source("times", source, strategy)
        .key_by(|_at| 0_u8)
        .window(TumblingEventTime::of(Duration::from_millis(10)))
        .aggregate(Count)
        .name("windows")
        .map(move |result| (result.window.end, result.value, clock.now()))
        .sink("results", sink);
    let metrics = environment.execute().unwrap();
    (recorded.take_records(), metrics.operator("windows").unwrap().counters.late)
}

#[test]
fn a_silent_split_holds_windows_back_only_until_it_counts_as_idle() {
    for seed in 0..20 {
        for parallelism in [1, 2, 3] {
            let source = || {
                let busy = (0..50).map(Event::Record).collect();
                ScriptSource::of_events([busy, vec![Event::Wait(HOUR), Event::Record(1000)]])
            };
            let (environment, clock) = world(seed, parallelism);
            let (fired, late) = windows_of(environment, clock, source(), None);
            assert!(fired.iter().all(|(_, _, at)| *at > 3599 * SECOND), "{fired:?}");
            let (environment, clock) = world(seed, parallelism);
            let (fired_early, late_early) = windows_of(environment, clock, source(), Some(seconds(2)));
            let early = fired_early.iter().filter(|(_, _, at)| *at < 10 * SECOND).count();
            assert_eq!(early, 4, "seed {seed} at parallelism {parallelism}: {fired_early:?}");
            assert_eq!((late, late_early), (0, 0));
            let total =
                |fired: &[(Timestamp, u64, Nanos)]| fired.iter().map(|(_, count, _)| count).sum::<u64>();
            assert_eq!((total(&fired), total(&fired_early)), (51, 51));
        }
    }
}

#[test]
fn an_input_that_ends_does_not_make_the_records_of_an_idle_one_late() {
    for seed in 0..20 {
        for parallelism in [1, 2, 3] {
            // Ends before the other is idle, or behind it.
            let last = if seed % 2 == 0 { Event::Record(100) } else { Event::Wait(seconds(5)) };
            let ends = (0..100).map(Event::Record).chain([last]).collect();
            let pauses = [Event::Record(50), Event::Wait(seconds(10))]
                .into_iter()
                .chain((120..150).map(Event::Record));
            let source = ScriptSource::of_events([ends, pauses.collect()]);
            let (environment, clock) = world(seed, parallelism);
            let (fired, late) = windows_of(environment, clock, source, Some(seconds(1)));
            let total: u64 = fired.iter().map(|(_, count, _)| count).sum();
            assert_eq!(
                (total, late),
                (132 - seed % 2, 0),
                "at parallelism {parallelism}, seed {seed}: {fired:?}"
            );
        }
    }
}

/// Subtask 0 counts to a hundred; the others have no split and are open for an hour all the same.
struct OneTalks;

struct Talker {
    talks: bool,
    next: i64,
}

impl Source for OneTalks {
    type Item = i64;
    type Split = ();
    type Reader = Talker;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![(); usize::from(context.subtask == 0)])
    }

    fn open(&self, context: &SubtaskContext, _splits: Vec<()>) -> Result<Talker, BoxError> {
        Ok(Talker { talks: context.subtask == 0, next: 0 })
    }
}

impl Reader for Talker {
    type Item = i64;
    type Split = ();

    fn position(&self, _split: usize) {}

    fn splits(&self) -> usize {
        usize::from(self.talks)
    }

    fn poll<O: Output<i64>>(&mut self, output: &mut O, now: Nanos) -> Result<Polled, BoxError> {
        if self.talks && self.next < 100 {
            let _flow = output.emit(0, self.next);
            self.next += 1;
            return Ok(Polled::More);
        }
        Ok(if now > 3600 * SECOND { Polled::End } else { Polled::Pending(Some(now + 600 * SECOND)) })
    }
}

#[test]
fn a_subtask_without_splits_does_not_hold_event_time_back() {
    for seed in 0..20 {
        let (environment, clock) = world(seed, 3);
        let (fired, _late) = windows_of(environment, clock, OneTalks, None);
        let early = fired.iter().filter(|(_, _, at)| *at < SECOND).count();
        assert_eq!(early, 9, "{fired:?}");
    }
}

/// Answers a record by a processing-time timer 10 seconds later.
struct Answer;

impl KeyedProcessFunction<u8, i64> for Answer {
    type Output = i64;

    fn on_record(
        &mut self,
        _record: &Archived<i64>,
        context: &mut ProcessContext<'_, u8, i64>,
    ) -> Result<(), BoxError> {
        context.register_processing_timer(context.processing_time() + 10_000);
        Ok(())
    }

    fn on_timer(
        &mut self,
        _timer: FiredTimer,
        context: &mut ProcessContext<'_, u8, i64>,
    ) -> Result<(), BoxError> {
        context.collect(-1);
        Ok(())
    }
}

/// Hands on when the watermark reached a record's timestamp.
struct WhenReached(Arc<dyn Clock>);

impl KeyedProcessFunction<u8, i64> for WhenReached {
    type Output = (Timestamp, Nanos);

    fn on_record(
        &mut self,
        record: &Archived<i64>,
        context: &mut ProcessContext<'_, u8, Self::Output>,
    ) -> Result<(), BoxError> {
        if record.to_native() >= 0 {
            context.register_event_timer(record.to_native());
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        _timer: FiredTimer,
        context: &mut ProcessContext<'_, u8, Self::Output>,
    ) -> Result<(), BoxError> {
        context.collect((context.timestamp(), self.0.now()));
        Ok(())
    }
}

#[test]
fn what_a_timer_emits_on_an_idle_stream_does_not_stop_event_time_behind_it() {
    for seed in 0..10 {
        let (environment, clock) = world(seed, 2);
        let (sink, recorded) = RecordSink::new();
        let idle = by_itself().with_idleness(seconds(1));
        let quiet = ScriptSource::of_events([vec![Event::Record(50_000), Event::Wait(HOUR)]]);
        let busy = (0..100).flat_map(|second| [Event::Record(second * 1000), Event::Wait(seconds(1))]);
        let answers =
            environment.from_source("quiet", quiet, idle).key_by(|_at| 0_u8).process(|_states| Answer);
        environment
            .from_source(
                "busy",
                ScriptSource::of_events([busy.collect()]),
                by_itself().with_idleness(seconds(5)),
            )
            .union(answers)
            .key_by(|_at| 0_u8)
            .process(move |_states| WhenReached(clock))
            .sink("results", sink);
        environment.execute().unwrap();
        let reached = recorded.take_records();
        let stalled: Vec<_> =
            reached.iter().filter(|(record, at)| *record < 99_000 && *at > 200 * SECOND).collect();
        assert_eq!((reached.len(), stalled.len()), (100, 0), "seed {seed}: {stalled:?}");
    }
}

#[test]
fn records_at_the_ends_of_time_are_in_a_window() {
    let extremes = [
        Timestamp::MIN + 1,
        Timestamp::MIN + 2,
        Timestamp::MIN + 9,
        Timestamp::MIN + 10,
        Timestamp::MIN + 11,
    ]
    .into_iter()
    .chain([-21, -11, -10, -1, 0, 1, 9, 10])
    .chain([
        Timestamp::MAX - 12,
        Timestamp::MAX - 8,
        Timestamp::MAX - 7,
        Timestamp::MAX - 1,
        Timestamp::MAX,
    ]);
    let times: Vec<i64> = extremes.collect();
    for (size, slide, offset) in [(10, 10, 0), (10, 10, 3), (1, 1, 0), (10, 4, 1), (12, 3, 0)] {
        for lateness in [0, 5] {
            for batch_records_max in [1, 1024] {
                let platform = Arc::new(SimPlatform::new(size));
                let config = JobConfig { batch_records_max, ..JobConfig::default() };
                let environment = StreamEnvironment::on(platform, config);
                let (sink, recorded) = RecordSink::new();
                environment
                    .from_source("times", ScriptSource::new([times.clone()]), by_itself())
                    .key_by(|_at| 0_u8)
                    .window(
                        SlidingEventTime::of(Duration::from_millis(size), Duration::from_millis(slide))
                            .with_offset(Duration::from_millis(offset)),
                    )
                    .allowed_lateness(Duration::from_millis(lateness))
                    .apply(|_key, window, times: &[i64]| [(window, times.to_vec())])
                    .sink("results", sink);
                environment.execute().unwrap();
                let windows = recorded.take_records();
                let case = format!("size {size}, slide {slide}, offset {offset}: {windows:?}");
                for (window, times) in &windows {
                    let inside = |at: &&i64| window.start <= **at && **at - 1 < window.end;
                    assert!(times.iter().all(|at| inside(&at)), "{window:?} has {times:?} of {case}");
                }
                for at in &times {
                    let count = windows.iter().filter(|(_, times)| times.contains(at)).count() as u64;
                    let most = size.div_ceil(slide);
                    let near_the_ends = *at < Timestamp::MIN + 30 || *at > Timestamp::MAX - 30;
                    let least = if near_the_ends { 1 } else { size / slide };
                    assert!((least..=most).contains(&count), "{at} is in {count} windows of {case}");
                }
            }
        }
    }
}

#[test]
fn sliding_windows_over_old_data_beside_new_tell_every_record_in_its_windows() {
    const NOW: i64 = 1_700_000_000_000;
    let (size, slide) = (30, 10);
    // One input is in the present from its first record on. The other begins in 1970, has gaps, and comes after it.
    let old: Vec<i64> = (0..40).chain(95..99).chain([5_000_000, 5_000_001, 4_999_990]).collect();
    let new: Vec<i64> = (0..20).map(|number| NOW + 7 * number).collect();
    for seed in 0..20 {
        for parallelism in [1, 2, 3] {
            let late_start = [Event::Wait(seconds(1))].into_iter();
            let behind = late_start.chain(old.iter().chain(&new).copied().map(Event::Record)).collect();
            let source = ScriptSource::of_events([new.iter().copied().map(Event::Record).collect(), behind]);
            let (environment, _clock) = world(seed, parallelism);
            let (sink, recorded) = RecordSink::new();
            let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(20));
            environment
                .from_source("times", source, strategy.with_timestamps(|at: &i64| *at))
                .key_by(|_at| 0_u8)
                .window(SlidingEventTime::of(Duration::from_millis(size), Duration::from_millis(slide)))
                .aggregate(Count)
                .name("windows")
                .map(|result| (result.window.start, result.value))
                .sink("results", sink);
            let metrics = environment.execute().unwrap();
            let mut expected = std::collections::BTreeMap::<i64, u64>::new();
            for at in old.iter().chain(&new).chain(&new) {
                let last = at.div_euclid(slide as i64) * slide as i64;
                for back in 0..(size / slide) as i64 {
                    *expected.entry(last - back * slide as i64).or_default() += 1;
                }
            }
            let told = recorded.take_records();
            assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "seed {seed} at {parallelism}");
            assert_eq!(metrics.operator("windows").unwrap().counters.late, 0);
        }
    }
}
