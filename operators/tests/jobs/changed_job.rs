//! A job that was changed between two lives: state that it no longer opens is not lost without a word, and a sink finds again
//! what it has prepared.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rkyv::Archived;
use tidemill_engine::{
    control::{handle::JobHandle, list_checkpoints},
    model::{
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        checkpoint_error::CheckpointError,
        config::JobConfig,
        error::Error,
        source::BoxError,
        watermark::WatermarkStrategy,
    },
};
use tidemill_operators::{
    aggregate::Count,
    api::environment::StreamEnvironment,
    keyed::process::{KeyedProcessFunction, ProcessContext, StateRegistry, ValueState},
    sink::{BlackholeSink, FileSink},
    source::from_parallel_iter,
    window::assigner::TumblingEventTime,
};

/// Counts numbers, and keeps the newest if it has a state for it.
struct Counting {
    count: ValueState<u64>,
    newest: Option<ValueState<u64>>,
}

impl KeyedProcessFunction<u64, u64> for Counting {
    type Output = ();

    fn on_record(
        &mut self,
        number: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, ()>,
    ) -> Result<(), BoxError> {
        context.update(self.count, || 0, |count| *count += 1);
        if let Some(newest) = self.newest {
            context.update(newest, || 0, |newest| *newest = number.to_native());
        }
        Ok(())
    }
}

/// The settings of a job with its checkpoints in this directory.
fn kept_in(directory: &Path) -> JobConfig {
    JobConfig {
        name: "counting".to_owned(),
        parallelism: 2,
        checkpoints: Some(CheckpointConfig::new(directory)),
        ..JobConfig::default()
    }
}

/// Runs until it has completed a checkpoint, then stops behind another one.
fn run(config: JobConfig, keeps_newest: bool) -> Result<(), Error> {
    let env = StreamEnvironment::with_config(config);
    let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
    env.from_source("numbers", numbers, WatermarkStrategy::none())
        .uid("numbers")
        .key_by(|number| number % 17)
        .process(move |states: &mut StateRegistry<u64>| Counting {
            count: states.value("count"),
            newest: keeps_newest.then(|| states.value("newest")),
        })
        .uid("counting")
        .for_each(|()| {});
    let job = env.start()?;
    let suspended = job.monitor().suspend();
    job.wait()?;
    suspended.map(drop)
}

#[test]
fn a_state_that_is_no_longer_opened_is_refused_unless_it_may_be_dropped() {
    let place = tempfile::tempdir().unwrap();
    let mut config = kept_in(place.path());
    run(config.clone(), true).unwrap();
    let error = run(config.clone(), false).unwrap_err();
    let Error::Checkpoint(cause) = &error else { panic!("{error}") };
    assert!(matches!(**cause, CheckpointError::NonRestoredStates { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("`newest`") && message.contains("allow_non_restored_state"), "{message}");
    // Nothing is lost by that.
    run(config.clone(), true).unwrap();
    if let Some(checkpoints) = &mut config.checkpoints {
        checkpoints.allow_non_restored_state = true;
    }
    run(config, false).unwrap();
}

/// The numbers of one subtask are the even ones, those of the other the odd ones.
macro_rules! numbers {
    ($environment:ident) => {
        $environment.from_source(
            "numbers",
            from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism)),
            WatermarkStrategy::none(),
        )
    };
}

#[test]
fn state_whose_id_another_operator_has_is_refused_and_dropped_with_a_warning_if_it_may_be() {
    let place = tempfile::tempdir().unwrap();
    let mut config = kept_in(place.path());
    run(config.clone(), true).unwrap();
    let stateless = |config: JobConfig| -> Result<(), Error> {
        let env = StreamEnvironment::with_config(config);
        numbers!(env).uid("numbers").map(|number| number).uid("counting").for_each(|_| {});
        let job = env.start()?;
        let suspended = job.monitor().suspend();
        job.wait()?;
        suspended.map(drop)
    };
    let error = stateless(config.clone()).unwrap_err();
    let Error::Checkpoint(cause) = &error else { panic!("{error}") };
    assert!(matches!(**cause, CheckpointError::NonRestoredStates { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("(counting)` does not open: keyed state"), "{message}");
    run(config.clone(), true).unwrap();
    config.checkpoints.iter_mut().for_each(|checkpoints| checkpoints.allow_non_restored_state = true);
    stateless(config).unwrap();
}

/// Keeps a text under the name of the count.
struct Spelling(ValueState<String>);

impl KeyedProcessFunction<u64, u64> for Spelling {
    type Output = ();

    fn on_record(
        &mut self,
        number: &Archived<u64>,
        context: &mut ProcessContext<'_, u64, ()>,
    ) -> Result<(), BoxError> {
        context.update(self.0, String::new, |text| *text = number.to_string());
        Ok(())
    }
}

#[test]
fn state_of_another_type_or_operator_is_refused_for_good() {
    let place = tempfile::tempdir().unwrap();
    let config = kept_in(place.path());
    run(config.clone(), true).unwrap();
    let refused_in = |describe: &dyn Fn(&StreamEnvironment), fails_apart: bool| {
        let restart = RestartStrategy::FixedDelay { attempts_max: 3, delay_ms: 1 };
        let env = StreamEnvironment::with_config(JobConfig { restart, ..config.clone() });
        describe(&env);
        if fails_apart {
            let others = from_parallel_iter(|_, _| 0..1_000_u64);
            env.from_source("others", others, WatermarkStrategy::none()).for_each(|_| {});
        }
        let job = env.start().unwrap();
        let monitor = job.monitor();
        let said = job.wait().unwrap_err().to_string();
        let stats = monitor.metrics().checkpoints;
        assert_eq!((stats.restarts, stats.region_restarts), (0, 0), "it was tried again: {said}");
        assert!(said.starts_with("operator `process (counting)`") || said.contains("(counting)"), "{said}");
        said
    };
    let refused = |describe: &dyn Fn(&StreamEnvironment)| {
        refused_in(describe, true);
        refused_in(describe, false)
    };
    let numbers = |_: usize, _: usize| 0..1_000_u64;
    let spelled = refused(&|env| {
        env.from_source("numbers", from_parallel_iter(numbers), WatermarkStrategy::none())
            .uid("numbers")
            .key_by(|number| number % 17)
            .process(|states: &mut StateRegistry<u64>| Spelling(states.value("count")))
            .uid("counting")
            .for_each(|()| {});
    });
    assert!(
        spelled.contains("state `count`") && spelled.contains("`u64`") && spelled.contains("`String`"),
        "{spelled}"
    );
    let windowed = refused(&|env| {
        let timed =
            WatermarkStrategy::for_monotonous_timestamps().with_timestamps(|number: &u64| *number as i64);
        env.from_source("numbers", from_parallel_iter(numbers), timed)
            .uid("numbers")
            .key_by(|number| number % 17)
            .window(TumblingEventTime::of(Duration::from_millis(10)))
            .aggregate(Count)
            .uid("counting")
            .for_each(|_| {});
    });
    assert!(
        windowed.contains("of another kind or version") && windowed.contains("another id with `.uid("),
        "{windowed}"
    );
}

/// A job that writes numbers without an end to files, in several versions.
struct Numbers(tempfile::TempDir);

/// A version of the job.
type Version = fn(&StreamEnvironment, FileSink);

impl Numbers {
    fn rows(&self) -> PathBuf {
        self.0.path().join("rows")
    }

    fn checkpoints(&self) -> PathBuf {
        self.0.path().join("checkpoints")
    }

    /// Begins afresh, or goes on from the last checkpoint.
    fn start(&self, version: Version, may_drop: bool) -> Result<JobHandle, Error> {
        let checkpoints = CheckpointConfig {
            allow_non_restored_state: may_drop,
            // The last one has all rows of a life.
            interval_ms: 3_600_000,
            ..CheckpointConfig::new(self.checkpoints())
        };
        let config = JobConfig { parallelism: 2, checkpoints: Some(checkpoints), ..JobConfig::default() };
        let environment = StreamEnvironment::with_config(config);
        version(&environment, FileSink::json_lines(self.rows()));
        environment.start()
    }

    /// Waits until there are rows, and stops behind a checkpoint.
    fn stop(&self, job: JobHandle) {
        let monitor = job.monitor();
        while monitor.metrics().operator("out").is_none_or(|sink| sink.counters.records_in < 10_000) {
            thread::yield_now();
        }
        monitor.suspend().unwrap();
        job.wait().unwrap();
    }

    /// The names of the files that the last checkpoint has of the sink `id`.
    fn prepared_names(&self, id: &str) -> Vec<String> {
        let last = list_checkpoints(&self.checkpoints()).unwrap().pop().unwrap().unwrap();
        let subtasks = &last.operators[id].subtasks;
        let committables = subtasks.iter().flat_map(|subtask| &subtask.committables);
        let name = |committable: &Vec<u8>| {
            let file: serde_json::Value = serde_json::from_slice(committable).unwrap();
            file["name"].as_str().unwrap().to_owned()
        };
        committables.map(name).collect()
    }

    /// Fails unless each number is there once, and none is missing below the last; returns how many there are.
    fn check(&self) -> usize {
        let whole = |path: &Path| path.extension().is_some_and(|extension| extension == "jsonl");
        let files = fs::read_dir(self.rows()).unwrap().map(|entry| entry.unwrap().path());
        let texts = files.filter(|path| whole(path)).map(|path| fs::read_to_string(path).unwrap());
        let rows: Vec<u64> = texts
            .flat_map(|text| text.lines().map(|line| line.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        for subtask in 0..2_u64 {
            let mut own: Vec<u64> = rows.iter().copied().filter(|number| number % 2 == subtask).collect();
            own.sort_unstable();
            assert!(
                own.iter().copied().eq((subtask..).step_by(2).take(own.len())),
                "rows are missing or twice"
            );
        }
        rows.len()
    }
}

#[test]
fn a_job_with_another_operator_before_its_sink_commits_what_was_prepared_without_it() {
    let versions: [(Version, Version, &str); 2] = [
        // The name that the user gave is the id.
        (
            |environment, sink| drop(numbers!(environment).sink("out", sink)),
            |environment, sink| drop(numbers!(environment).map(|number| number).sink("out", sink)),
            "out",
        ),
        // An id of the user's own outlives the name.
        (
            |environment, sink| drop(numbers!(environment).sink("out", sink).uid("rows")),
            |environment, sink| {
                let before = numbers!(environment).filter(|_| true).map(|number| number);
                before.sink("renamed", sink).name("out").uid("rows");
            },
            "rows",
        ),
    ];
    for (first, then, id) in versions {
        let place = Numbers(tempfile::tempdir().unwrap());
        let job = place.start(first, false).unwrap();
        place.stop(job);
        let before = place.check();
        // As it is when the process dies before it has committed what the checkpoint holds.
        let names = place.prepared_names(id);
        assert!(!names.is_empty());
        for name in names {
            let hidden = place.rows().join(format!(".tidemill/{name}.inprogress"));
            fs::rename(place.rows().join(name), hidden).unwrap();
        }
        let job = place.start(then, false).unwrap();
        place.stop(job);
        assert!(place.check() > before);
    }
}

#[test]
fn a_sink_that_is_gone_is_named_with_what_it_has_prepared() {
    let place = Numbers(tempfile::tempdir().unwrap());
    let job = place.start(|environment, sink| drop(numbers!(environment).sink("out", sink)), false);
    place.stop(job.unwrap());
    let without: Version = |environment, _| drop(numbers!(environment).for_each(|_| {}));
    // One of its name that commits nothing would lose that, too.
    let another: Version = |environment, _| drop(numbers!(environment).sink("out", BlackholeSink::new()));
    for version in [without, another] {
        let message = place.start(version, false).map(drop).unwrap_err().to_string();
        assert!(message.contains("`out`") && message.contains("rows"), "{message}");
        assert!(message.contains("a sink that has prepared"), "{message}");
    }
    let job = place.start(without, true).unwrap();
    job.monitor().suspend().unwrap();
    job.wait().unwrap();
}
