//! Backpressure: everything is bounded, nothing waits for ever, and nobody is held up who need not be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidemill_engine::{
    model::{config::JobConfig, watermark::WatermarkStrategy},
    platform::{Platform, SimPlatform},
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
