//! Whatever fails stops the job with an error that says who and why; the process lives and nothing is left behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rkyv::Archived;
use tidemill_engine::{
    model::{
        checkpoint::{CheckpointId, Committable},
        checkpoint_config::CheckpointConfig,
        config::JobConfig,
        error::Error,
        sink::{Sink, SinkWriter},
        source::{BoxError, Flow, Output, Polled, Reader, Source, SubtaskContext},
        time::Timestamp,
        watermark::WatermarkStrategy,
    },
    platform::Nanos,
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    keyed::process::{FiredTimer, KeyedProcessFunction, ProcessContext},
    source::from_vec,
    testkit::{
        job::{Setting, on_all_backends},
        record::RecordSink,
        script::{Event, ScriptSource},
    },
    window::assigner::{SlidingEventTime, TumblingEventTime},
};

/// Where and how a job is to fail. Everything that a job makes holds a clone; when all are gone, so is the job.
#[derive(Clone)]
struct Fault {
    place: &'static str,
    panics: bool,
    alive: Arc<()>,
}

impl Fault {
    fn at(place: &'static str, panics: bool) -> Self {
        Self { place, panics, alive: Arc::new(()) }
    }

    fn trip(&self, place: &str) -> Result<(), BoxError> {
        if self.place != place {
            return Ok(());
        }
        if self.panics {
            panic!("tripped at {place}");
        }
        Err(format!("tripped at {place}").into())
    }

    /// For places that cannot give an error.
    fn trip_by_panic(&self, place: &str) {
        if let Err(error) = self.trip(place) {
            panic!("{error}");
        }
    }
}

/// A record that is missed when it is not dropped.
struct Counted {
    number: i64,
    _fault: Fault,
}

struct FaultySource(Fault);

struct FaultyReader {
    fault: Fault,
    numbers: std::ops::Range<i64>,
    paused: bool,
}

impl Source for FaultySource {
    type Item = Counted;
    type Split = ();
    type Reader = FaultyReader;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        self.0.trip("source prepare")
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![()])
    }

    fn open(&self, _context: &SubtaskContext, _splits: Vec<()>) -> Result<FaultyReader, BoxError> {
        self.0.trip("source open")?;
        Ok(FaultyReader { fault: self.0.clone(), numbers: 0..50, paused: false })
    }
}

impl Reader for FaultyReader {
    type Item = Counted;
    type Split = ();

    fn position(&self, _split: usize) {}

    fn poll<O: Output<Counted>>(&mut self, output: &mut O, now: Nanos) -> Result<Polled, BoxError> {
        for number in self.numbers.by_ref() {
            if output.emit(0, Counted { number, _fault: self.fault.clone() }) == Flow::Yield {
                return Ok(Polled::More);
            }
        }
        self.fault.trip("source poll")?;
        if std::mem::replace(&mut self.paused, true) {
            Ok(Polled::End)
        } else {
            Ok(Polled::Pending(Some(now)))
        }
    }
}

struct FaultySink(Fault);

struct FaultyWriter(Fault);

impl<T: 'static> Sink<T> for FaultySink {
    type Writer = FaultyWriter;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        self.0.trip("sink prepare")
    }

    fn open(&self, _context: &SubtaskContext) -> Result<FaultyWriter, BoxError> {
        self.0.trip("sink open")?;
        Ok(FaultyWriter(self.0.clone()))
    }
}

impl<T: 'static> SinkWriter<T> for FaultyWriter {
    fn write(&mut self, _record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        self.0.trip("sink write")
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        self.0.trip("sink flush")
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        self.0.trip("sink finish")
    }
}

struct FaultyFunction(Fault);

impl KeyedProcessFunction<i64, i64> for FaultyFunction {
    type Output = i64;

    fn on_record(
        &mut self,
        record: &Archived<i64>,
        context: &mut ProcessContext<'_, i64, i64>,
    ) -> Result<(), BoxError> {
        context.register_event_timer(context.timestamp() + 3);
        context.collect(record.to_native());
        self.0.trip("process record")
    }

    fn on_timer(
        &mut self,
        _timer: FiredTimer,
        _context: &mut ProcessContext<'_, i64, i64>,
    ) -> Result<(), BoxError> {
        self.0.trip("process timer")
    }
}

/// A job that has every kind of place.
fn job(environment: &StreamEnvironment, fault: &Fault) {
    let own = || fault.clone();
    let (assign, flat, map, key, make, window, fold) = (own(), own(), own(), own(), own(), own(), own());
    let strategy =
        WatermarkStrategy::for_monotonous_timestamps().with_timestamps(move |counted: &Counted| {
            assign.trip_by_panic("timestamps");
            counted.number
        });
    let numbers = environment.from_source("origin", FaultySource(own()), strategy).map(move |counted| {
        map.trip_by_panic("map");
        counted.number
    });
    let (one, other) = numbers.fork();
    other.sink("direct", FaultySink(Fault { place: "nowhere", ..own() }));
    one.flat_map(move |number| {
        flat.trip_by_panic("flat_map");
        let inner = flat.clone();
        [number.to_native()].into_iter().inspect(move |_| inner.trip_by_panic("flat_map iterator"))
    })
    .key_by(move |number| {
        key.trip_by_panic("key");
        number % 7
    })
    .process(move |_states| {
        make.trip_by_panic("process make");
        FaultyFunction(make)
    })
    .key_by(|number| number % 3)
    .window(SlidingEventTime::of(Duration::from_millis(10), Duration::from_millis(5)))
    .apply(move |_key, _window, numbers: &[i64]| {
        window.trip_by_panic("apply");
        numbers.to_vec()
    })
    .key_by(|number| *number)
    .fold(0_i64, move |sum, number| {
        fold.trip_by_panic("fold");
        *sum += number.to_native();
    })
    .sink("destination", FaultySink(own()));
}

fn settings() -> Vec<Setting> {
    let tight = JobConfig {
        parallelism: 2,
        batch_records_max: 1,
        channel_batches_max: 1,
        step_records_max: 1,
        ..JobConfig::default()
    };
    let loose = JobConfig { parallelism: 3, ..JobConfig::default() };
    let mut settings = Vec::new();
    for config in on_all_backends(tight).chain(on_all_backends(loose)) {
        settings.push(Setting::on_cores(config.clone()));
        settings.extend((0..3).map(|seed| Setting::simulated(seed, config.clone())));
    }
    settings
}

/// Runs the job with this fault under every setting; returns the errors.
fn errors(place: &'static str, panics: bool) -> Vec<(Error, String)> {
    let failing = settings().into_iter().map(|setting| {
        let fault = Fault::at(place, panics);
        let environment = setting.environment();
        job(&environment, &fault);
        let error = environment.execute().expect_err(place);
        assert_eq!(Arc::strong_count(&fault.alive), 1, "something outlives the job; under {}", setting.name);
        (error, setting.name)
    });
    failing.collect()
}

#[test]
fn the_job_is_sound_without_a_fault() {
    for setting in settings() {
        let fault = Fault::at("nowhere", false);
        let environment = setting.environment();
        job(&environment, &fault);
        environment.execute().unwrap();
        assert_eq!(Arc::strong_count(&fault.alive), 1, "something outlives the job; under {}", setting.name);
    }
}

#[test]
fn an_error_names_operator_subtask_and_cause() {
    for (place, operator) in [
        ("source open", "origin"),
        ("source poll", "origin"),
        ("process record", "process"),
        ("process timer", "process"),
        ("sink open", "destination"),
        ("sink write", "destination"),
        ("sink flush", "destination"),
        ("sink finish", "destination"),
    ] {
        for (error, setting) in errors(place, false) {
            let Error::Operator { operator: named, subtask, cause } = &error else {
                panic!("{place}: {error}; under {setting}");
            };
            assert_eq!((named.as_str(), cause.to_string()), (operator, format!("tripped at {place}")));
            assert!(*subtask < 3);
            assert!(error.to_string().contains(&format!("`{operator}`, subtask {subtask}: tripped")));
        }
    }
}

#[test]
fn a_panic_names_operator_subtask_and_message() {
    for (place, operator) in [
        ("source open", "origin"),
        ("source poll", "origin"),
        ("timestamps", "origin"),
        ("map", "map"),
        ("flat_map", "flat_map"),
        ("flat_map iterator", "flat_map"),
        ("key", "key_by"),
        ("process make", "process"),
        ("process record", "process"),
        ("process timer", "process"),
        ("apply", "window apply"),
        ("fold", "fold"),
        ("sink open", "destination"),
        ("sink write", "destination"),
        ("sink flush", "destination"),
        ("sink finish", "destination"),
    ] {
        for (error, setting) in errors(place, true) {
            let Error::Operator { operator: named, subtask: _, cause } = &error else {
                panic!("{place}: {error}; under {setting}");
            };
            let expected = (operator, format!("panicked: tripped at {place}"));
            assert_eq!((named.as_str(), cause.to_string()), expected, "under {setting}");
        }
    }
}

#[test]
fn what_cannot_be_prepared_keeps_the_job_from_starting() {
    for (place, operator) in [("source prepare", "origin"), ("sink prepare", "destination")] {
        for panics in [false, true] {
            for (error, setting) in errors(place, panics) {
                let Error::Prepare { operator: named, cause } = &error else {
                    panic!("{place}: {error}; under {setting}");
                };
                assert_eq!(named, operator);
                assert!(cause.to_string().ends_with(&format!("tripped at {place}")), "{cause}");
            }
        }
    }
}

/// Never ends.
struct Endless(Fault);

struct EndlessReader {
    _fault: Fault,
    next: i64,
}

impl Source for Endless {
    type Item = i64;
    type Split = ();
    type Reader = EndlessReader;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![()])
    }

    fn open(&self, _context: &SubtaskContext, _splits: Vec<()>) -> Result<EndlessReader, BoxError> {
        Ok(EndlessReader { _fault: self.0.clone(), next: 0 })
    }
}

impl Reader for EndlessReader {
    type Item = i64;
    type Split = ();

    fn position(&self, _split: usize) {}

    fn poll<O: Output<i64>>(&mut self, output: &mut O, _now: Nanos) -> Result<Polled, BoxError> {
        loop {
            self.next += 1;
            if output.emit(0, self.next) == Flow::Yield {
                return Ok(Polled::More);
            }
        }
    }
}

fn endless_job(environment: &StreamEnvironment, fault: &Fault) {
    let own = fault.clone();
    environment
        .from_source("origin", Endless(fault.clone()), WatermarkStrategy::none())
        .key_by(|number| number % 7)
        .reduce(|_last, number| number.to_native())
        .inspect(move |_number| own.trip_by_panic("nowhere, but it holds on"))
        .sink("destination", FaultySink(fault.clone()));
}

#[test]
fn a_job_is_cancelled_from_another_thread_and_leaves_nothing_behind() {
    for setting in settings() {
        let fault = Fault::at("nowhere", false);
        let environment = setting.environment();
        endless_job(&environment, &fault);
        let handle = environment.start().unwrap();
        let monitor = handle.monitor();
        let other = std::thread::spawn(move || {
            // Wait for records, so that the job is in full swing.
            while monitor.metrics().operator("destination").is_none_or(|sink| sink.counters.records_in == 0) {
            }
            monitor.cancel();
            monitor
        });
        let error = handle.wait().expect_err("it was cancelled");
        assert!(matches!(error, Error::Cancelled), "{error}; under {}", setting.name);
        let monitor = other.join().unwrap();
        let after = monitor.metrics();
        assert!(after.operator("destination").unwrap().counters.records_in > 0);
        assert_eq!(Arc::strong_count(&fault.alive), 1, "something outlives the job; under {}", setting.name);
    }
}

#[test]
fn a_dropped_handle_ends_its_job_and_leaves_nothing_behind() {
    for setting in settings() {
        let fault = Fault::at("nowhere", false);
        let environment = setting.environment();
        endless_job(&environment, &fault);
        let handle = environment.start().unwrap();
        let running = handle.metrics();
        assert_eq!(running.workers.len(), setting.config.parallelism);
        drop(handle);
        assert_eq!(Arc::strong_count(&fault.alive), 1, "something outlives the job; under {}", setting.name);
    }
}

#[test]
fn a_cancellation_behind_the_end_does_not_unmake_the_job() {
    for setting in settings() {
        let environment = setting.environment();
        let (sink, recorded) = RecordSink::new();
        environment
            .from_source("origin", ScriptSource::new([vec![1, 2, 3]]), WatermarkStrategy::none())
            .sink("destination", sink);
        let handle = environment.start().unwrap();
        // The last metrics of a worker have a watermark that says so.
        while handle.metrics().operators.iter().any(|one| one.watermark < Timestamp::MAX)
            || handle.metrics().operators.is_empty()
        {}
        let monitor = handle.monitor();
        let metrics = handle.wait().unwrap();
        assert_eq!(metrics.operator("destination").unwrap().counters.records_in, 3);
        monitor.cancel();
        assert_eq!(monitor.metrics().operator("destination").unwrap().counters.records_in, 3);
        assert_eq!(recorded.len(), 3);
    }
}

/// Registers a timer from within each timer.
struct Restless;

impl KeyedProcessFunction<i64, i64> for Restless {
    type Output = i64;

    fn on_record(
        &mut self,
        _record: &Archived<i64>,
        context: &mut ProcessContext<'_, i64, i64>,
    ) -> Result<(), BoxError> {
        context.register_event_timer(0);
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: FiredTimer,
        context: &mut ProcessContext<'_, i64, i64>,
    ) -> Result<(), BoxError> {
        if let FiredTimer::EventTime(at) = timer {
            context.register_event_timer(at + 1);
        }
        Ok(())
    }
}

#[test]
fn timers_without_end_do_not_keep_a_job_from_being_cancelled() {
    for setting in settings() {
        let environment = setting.environment();
        environment
            .from_source("origin", ScriptSource::new([vec![1_i64]]), WatermarkStrategy::none())
            .key_by(|number| *number)
            .process(|_states| Restless)
            .sink("destination", FaultySink(Fault::at("nowhere", false)));
        let handle = environment.start().unwrap();
        while handle.metrics().operator("process").is_none_or(|one| one.watermark < Timestamp::MAX) {}
        handle.cancel();
        assert!(matches!(handle.wait(), Err(Error::Cancelled)));
    }
}

fn refused(config: JobConfig, describe: impl FnOnce(&StreamEnvironment)) -> String {
    let environment = Setting::simulated(1, config).environment();
    describe(&environment);
    match environment.start() {
        Ok(_handle) => panic!("the job started"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn jobs_that_make_no_sense_are_refused_with_their_remedy() {
    let numbers = |environment: &StreamEnvironment| {
        environment.from_source("origin", ScriptSource::new([vec![1_i64]]), WatermarkStrategy::none())
    };
    let to = |fault: &str| {
        assert_ne!(fault, "");
        FaultySink(Fault::at("nowhere", false))
    };
    let message = refused(JobConfig::default(), |environment| drop(numbers(environment)));
    assert!(message.contains("no sink"), "{message}");
    let message = refused(JobConfig::default(), |environment| {
        let (used, unused) = numbers(environment).fork();
        used.sink("destination", to("fork"));
        drop(unused);
    });
    assert!(message.contains("behind `fork` is never used"), "{message}");
    let message = refused(JobConfig::default(), |environment| {
        numbers(environment)
            .map(|number| number)
            .uid("one")
            .map(|number| number)
            .uid("one")
            .sink("d", to("uid"));
    });
    assert!(message.contains("two operators have the id `one`"), "{message}");
    let message = refused(JobConfig::default(), |environment| {
        let windows = numbers(environment)
            .key_by(|number| *number)
            .window(TumblingEventTime::of(Duration::from_millis(1)));
        windows.apply(|_key, _window, numbers: &[i64]| numbers.to_vec()).sink("d", to("timestamps"));
    });
    assert!(message.contains("without timestamps"), "{message}");
    let message = refused(JobConfig::default(), |environment| {
        let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|number: &i64| *number);
        let windows = environment
            .from_source("origin", ScriptSource::new([vec![1_i64]]), strategy)
            .key_by(|number| *number)
            .window(TumblingEventTime::of(Duration::ZERO));
        windows.apply(|_key, _window, numbers: &[i64]| numbers.to_vec()).sink("d", to("size"));
    });
    assert!(message.contains("at least one millisecond"), "{message}");
    let config = JobConfig { parallelism: 0, ..JobConfig::default() };
    let message = refused(config, |environment| drop(numbers(environment).sink("d", to("zero"))));
    assert!(message.starts_with("parallelism is 0"), "{message}");
    let config = JobConfig { parallelism: 4, max_parallelism: Some(3), ..JobConfig::default() };
    let message = refused(config, |environment| drop(numbers(environment).sink("d", to("max"))));
    assert!(message.contains("parallelism is 4 but max_parallelism is 3"), "{message}");
}

/// Cannot make anything ready to be committed, and notes whether it is told that all is over and well.
struct Refusing(Arc<AtomicBool>);

struct RefusingWriter(Arc<AtomicBool>);

impl Sink<i64> for Refusing {
    type Writer = RefusingWriter;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, _context: &SubtaskContext) -> Result<RefusingWriter, BoxError> {
        Ok(RefusingWriter(Arc::clone(&self.0)))
    }
}

impl SinkWriter<i64> for RefusingWriter {
    fn write(&mut self, _record: i64, _timestamp: Timestamp) -> Result<(), BoxError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    fn pre_commit(&mut self, _checkpoint: CheckpointId) -> Result<Vec<Committable>, BoxError> {
        Err("no room".into())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_sink_that_fails_at_the_last_barrier_is_not_told_that_all_is_well() {
    let place = tempfile::tempdir().unwrap();
    let finished = Arc::new(AtomicBool::new(false));
    let checkpoints = CheckpointConfig {
        interval_ms: 3_600_000,
        failures_max: 0,
        ..CheckpointConfig::new(place.path().join("checkpoints"))
    };
    let config = JobConfig { parallelism: 1, checkpoints: Some(checkpoints), ..JobConfig::default() };
    let environment = StreamEnvironment::with_config(config);
    environment
        .from_source("origin", from_vec(vec![1_i64, 2, 3]), WatermarkStrategy::none())
        .sink("destination", Refusing(Arc::clone(&finished)));
    let message = environment.execute().unwrap_err().to_string();
    assert!(message.contains("no room"), "{message}");
    assert!(!finished.load(Ordering::Relaxed), "it was told that all is well");
}

#[test]
fn a_record_without_a_timestamp_in_a_window_is_an_error() {
    let environment = Setting::simulated(1, JobConfig::default()).environment();
    let strategy = WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|_: &i64| Timestamp::MIN);
    environment
        .from_source("origin", ScriptSource::of_events([vec![Event::Record(1_i64)]]), strategy)
        .key_by(|number| *number)
        .window(TumblingEventTime::of(Duration::from_millis(1)))
        .apply(|_key, _window, numbers: &[i64]| numbers.to_vec())
        .sink("destination", FaultySink(Fault::at("nowhere", false)));
    let message = environment.execute().unwrap_err().to_string();
    assert!(message.contains("window apply") && message.contains("without a timestamp"), "{message}");
}
