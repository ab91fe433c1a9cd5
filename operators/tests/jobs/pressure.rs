//! Backpressure: everything is bounded, nothing waits for ever, and nobody is held up who need not be.

use std::{sync::Arc, time::Duration};

use tidemill_engine::{
    model::{config::JobConfig, watermark::WatermarkStrategy},
    platform::{Platform, SimPlatform},
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    testkit::{
        record::RecordSink,
        script::{Event, ScriptSource},
    },
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
