//! Backpressure: everything is bounded, nothing waits for ever, and nobody is held up who need not be.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidemill_engine::{
    model::{
        checkpoint_config::CheckpointConfig,
        config::JobConfig,
        sink::{Sink, SinkWriter},
        source::{BoxError, SubtaskContext},
        time::Timestamp,
        watermark::WatermarkStrategy,
    },
    platform::{Nanos, Platform, SimPlatform},
};
use tidemill_operators::{
    aggregate::Count,
    api::environment::StreamEnvironment,
    testkit::{
        job::{Setting, run},
        record::RecordSink,
        script::{Event, ScriptSource},
    },
    window::assigner::TumblingEventTime,
};
use tidemill_storage::snapshot::disk::memory::MemoryDisk;

/// Every bound at its least.
fn tight(parallelism: usize) -> JobConfig {
    JobConfig {
        parallelism,
        batch_records_max: 1,
        batch_bytes_max: 1,
        channel_batches_max: 1,
        step_records_max: 1,
        linger_us_max: 0,
        watermark_interval_us: 0,
        ..JobConfig::default()
    }
}

#[test]
fn a_signal_that_says_nothing_to_its_receiver_does_not_hold_up_what_waits_behind_it() {
    for seed in 0..20 {
        let platform = SimPlatform::new(seed);
        let clock = platform.clock();
        let environment = StreamEnvironment::on(Arc::new(platform), tight(1));
        let (sink, recorded) = RecordSink::new();
        let strategy = || WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|at: &i64| *at);
        let silent =
            ScriptSource::of_events([vec![Event::Wait(Duration::from_secs(3600)), Event::Record(-1)]]);
        // Idle for a while, and then its record, its return and its watermark come one behind the other.
        let pause = [Event::Record(0), Event::Wait(Duration::from_secs(5))];
        let busy = ScriptSource::of_events([pause.into_iter().chain((1..20).map(Event::Record)).collect()]);
        let busy = environment.from_source("busy", busy, strategy().with_idleness(Duration::from_secs(1)));
        environment
            .from_source("silent", silent, strategy())
            .union(busy)
            .map(move |at| (at.to_native(), clock.now()))
            .sink("results", sink);
        environment.execute().unwrap();
        let arrived: Vec<(i64, u64)> = recorded.take_records();
        let held_up: Vec<_> = arrived.iter().filter(|(at, now)| *at >= 0 && *now > 6_000_000_000).collect();
        assert!(held_up.is_empty(), "seed {seed}: {held_up:?}");
    }
}

#[test]
fn diamonds_with_room_for_one_element_do_not_deadlock() {
    for seed in 0..25 {
        for parallelism in [1, 2, 3, 8] {
            let setting = Setting::simulated(seed, tight(parallelism));
            let results: Vec<u64> = run(&setting, |environment, results| {
                let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|at: &i64| *at);
                let source = ScriptSource::dealt(0..60_i64, 5);
                let (one, other) = environment.from_source("origin", source, strategy).fork();
                let (third, fourth) = other.broadcast().fork();
                let odd = third.rebalance().filter(|at| at.to_native() % 2 == 1);
                let keyed = fourth.key_by(|at| at.to_native() % 3).reduce(|_last, at| at.to_native());
                one.flat_map(|at| [at.to_native(); 3])
                    .union(odd)
                    .union(keyed)
                    .global()
                    .key_by(|at| at.to_native() % 5)
                    .window(TumblingEventTime::of(Duration::from_millis(7)))
                    .aggregate(Count)
                    .map(|result| result.value)
                    .sink("results", results);
            });
            let copies = parallelism as u64;
            assert_eq!(
                results.iter().sum::<u64>(),
                180 + 30 * copies + 60 * copies,
                "under {}",
                setting.name
            );
        }
    }
}

#[test]
fn a_slow_consumer_bounds_what_is_under_way() {
    for seed in 0..20 {
        for (batch_records_max, channel_batches_max) in [(1, 1), (4, 2), (16, 3)] {
            let config = JobConfig {
                parallelism: 2,
                batch_records_max,
                channel_batches_max,
                step_records_max: 1 << 20,
                linger_us_max: 60_000_000,
                ..JobConfig::default()
            };
            let (made, arrived) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let most = Arc::new(AtomicU64::new(0));
            let setting = Setting::simulated(seed, config);
            let (making, arriving, mark) = (Arc::clone(&made), Arc::clone(&arrived), Arc::clone(&most));
            let _results: Vec<u64> = run(&setting, |environment, results| {
                environment
                    .from_source(
                        "origin",
                        ScriptSource::new([(0..2000_u64).collect::<Vec<_>>()]),
                        WatermarkStrategy::none(),
                    )
                    .inspect(move |_number| {
                        let ahead = making.fetch_add(1, Ordering::Relaxed) + 1;
                        mark.fetch_max(ahead - arrived.load(Ordering::Relaxed), Ordering::Relaxed);
                    })
                    .global()
                    .map(move |number| {
                        arriving.fetch_add(1, Ordering::Relaxed);
                        number.to_native()
                    })
                    .sink("results", results);
            });
            // The ring, one batch in the outbox, one that is filled.
            let bound = (batch_records_max * (channel_batches_max + 2)) as u64;
            let most = most.load(Ordering::Relaxed);
            assert!(
                most <= bound,
                "{most} records under way with a bound of {bound}; under {}",
                setting.name
            );
            assert_eq!(made.load(Ordering::Relaxed), 2000);
        }
    }
}

#[test]
fn queues_never_hold_more_than_they_say() {
    let setting = Setting::on_cores(tight(3));
    let environment = setting.environment();
    let (sink, recorded) = RecordSink::new();
    environment
        .from_source("origin", ScriptSource::dealt(0..5000_u64, 3), WatermarkStrategy::none())
        .rebalance()
        .map(|number| number.to_native())
        .sink("results", sink);
    let handle = environment.start().unwrap();
    let mut looks = 0;
    while recorded.len() < 5000 {
        let metrics = handle.metrics();
        looks += 1;
        for worker in &metrics.workers {
            for task in &worker.tasks {
                assert!(task.queued <= task.queue_max && (task.queue_max == 0 || task.queue_max == 3));
            }
        }
    }
    assert!(looks > 0);
    handle.wait().unwrap();
}

/// As [`tight`], with a checkpoint in every millisecond.
fn tight_with_checkpoints(parallelism: usize, timeout_ms: u64, concurrent_max: usize) -> JobConfig {
    let checkpoints = CheckpointConfig {
        interval_ms: 1,
        timeout_ms,
        concurrent_max,
        failures_max: u32::MAX,
        ..CheckpointConfig::new("/checkpoints")
    };
    JobConfig { checkpoints: Some(checkpoints), max_parallelism: Some(128), ..tight(parallelism) }
}

#[test]
fn barriers_alone_do_not_fill_a_channel() {
    for seed in 0..10 {
        for concurrent_max in [1, 3] {
            let platform = SimPlatform::new(seed).disk(Arc::new(MemoryDisk::default())).turn_ns_max(2_000);
            let config = tight_with_checkpoints(3, 600_000, concurrent_max);
            let environment = StreamEnvironment::on(Arc::new(platform), config);
            let (sink, recorded) = RecordSink::new();
            // For a long time there is nothing but barriers.
            let silent = |from: u64| {
                let wait = [Event::Wait(Duration::from_millis(400))].into_iter();
                wait.chain((from..from + 50).map(Event::Record)).collect()
            };
            environment
                .from_source(
                    "numbers",
                    ScriptSource::of_events([silent(0), silent(50)]),
                    WatermarkStrategy::none(),
                )
                .rebalance()
                .key_by(|number| number.to_native() % 7)
                .fold(0_u64, |count: &mut u64, _| *count += 1)
                .sink("counts", sink);
            let metrics = environment.execute().unwrap();
            let stats = &metrics.checkpoints;
            assert!(stats.completed > 100 && stats.failed == 0, "seed {seed}: {stats:?}");
            assert_eq!(recorded.len(), 100, "seed {seed}");
        }
    }
}

/// Takes nothing before a time, and then all.
pub struct ShutUntil {
    pub opens_at: Nanos,
    pub taken: Arc<Mutex<Vec<u64>>>,
}

pub struct ShutWriter {
    opens_at: Nanos,
    taken: Arc<Mutex<Vec<u64>>>,
    context: SubtaskContext,
}

impl Sink<u64> for ShutUntil {
    type Writer = ShutWriter;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, context: &SubtaskContext) -> Result<ShutWriter, BoxError> {
        Ok(ShutWriter { opens_at: self.opens_at, taken: Arc::clone(&self.taken), context: context.clone() })
    }
}

impl SinkWriter<u64> for ShutWriter {
    fn write(&mut self, record: u64, _timestamp: Timestamp) -> Result<(), BoxError> {
        self.taken.lock().unwrap().push(record);
        Ok(())
    }

    fn ready(&mut self) -> Result<bool, BoxError> {
        let is_open = self.context.clock.now() >= self.opens_at;
        if !is_open {
            // To be asked again.
            self.context.waker.wake();
        }
        Ok(is_open)
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn checkpoints_that_fail_behind_a_sink_that_is_shut_leave_nothing_that_holds_the_job_up() {
    for seed in 0..10 {
        for unaligned_after_ms in [None, Some(0)] {
            let platform = SimPlatform::new(seed).disk(Arc::new(MemoryDisk::default())).turn_ns_max(20_000);
            let mut config = tight_with_checkpoints(2, 2, 1);
            config.checkpoints.as_mut().unwrap().unaligned_after_ms = unaligned_after_ms;
            let environment = StreamEnvironment::on(Arc::new(platform), config);
            let taken = Arc::default();
            let sink = ShutUntil { opens_at: 60_000_000, taken: Arc::clone(&taken) };
            environment
                .from_source("numbers", ScriptSource::dealt(0..200_u64, 2), WatermarkStrategy::none())
                .rebalance()
                .map(|number| number.to_native())
                .sink("shut", sink);
            let metrics = environment.execute().unwrap();
            let stats = &metrics.checkpoints;
            let setting = format!("seed {seed}, {unaligned_after_ms:?}: {stats:?}");
            // The last one comes behind everything, also behind the barriers of those that failed.
            assert!(stats.completed >= 1, "{setting}");
            assert!(stats.failed >= 10 || unaligned_after_ms.is_some(), "{setting}");
            let mut taken = std::mem::take(&mut *taken.lock().unwrap());
            taken.sort_unstable();
            assert!(taken.into_iter().eq(0..200), "{setting}");
        }
    }
}

#[test]
fn a_sink_that_is_shut_slows_its_own_source_and_nothing_else() {
    /// When the one sink opens.
    const OPENS_AT: Nanos = 200_000_000;
    for seed in 0..10 {
        for parallelism in [1, 2] {
            let platform = SimPlatform::new(seed).turn_ns_max(20_000);
            let clock = platform.clock();
            let environment = StreamEnvironment::on(Arc::new(platform), tight(parallelism));
            let (read, taken) = (Arc::new(AtomicU64::new(0)), Arc::default());
            let reading = Arc::clone(&read);
            environment
                .from_source("held up", ScriptSource::dealt(0..200_u64, 2), WatermarkStrategy::none())
                .inspect(move |_number| {
                    reading.fetch_add(1, Ordering::Relaxed);
                })
                .rebalance()
                .map(|number| number.to_native())
                .sink("shut", ShutUntil { opens_at: OPENS_AT, taken: Arc::clone(&taken) });
            // The other pipeline of the job says when each of its records arrives, and how many the first source has read by then.
            let (sink, arrived) = RecordSink::new();
            environment
                .from_source("free", ScriptSource::dealt(0..200_u64, 2), WatermarkStrategy::none())
                .rebalance()
                .map(move |number| (number.to_native(), clock.now(), read.load(Ordering::Relaxed)))
                .sink("open", sink);
            environment.execute().unwrap();
            let arrived: Vec<(u64, Nanos, u64)> = arrived.take_records();
            let setting = format!("seed {seed}, {parallelism} workers");
            assert_eq!(arrived.len(), 200, "{setting}");
            let last = arrived.iter().map(|(_, now, _)| *now).max().unwrap();
            assert!(last < OPENS_AT / 2, "{setting}: the last record arrived after {last} ns");
            // What fits into outboxes and channels, which have room for one element each.
            let read = arrived.iter().map(|(.., read)| *read).max().unwrap();
            assert!(
                (1..=24).contains(&read),
                "{setting}: {read} records were read behind a sink that is shut"
            );
            assert_eq!(taken.lock().unwrap().len(), 200, "{setting}");
        }
    }
}
