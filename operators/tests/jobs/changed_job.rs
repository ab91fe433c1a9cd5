//! A job that was changed between two lives: state that it no longer opens is not lost without a word.

use rkyv::Archived;
use tidemill_engine::model::{
    checkpoint_config::CheckpointConfig, checkpoint_error::CheckpointError, config::JobConfig, error::Error,
    source::BoxError, watermark::WatermarkStrategy,
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    keyed::process::{KeyedProcessFunction, ProcessContext, StateRegistry, ValueState},
    source::from_parallel_iter,
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
    let mut config = JobConfig {
        name: "counting".to_owned(),
        parallelism: 2,
        checkpoints: Some(CheckpointConfig::new(place.path())),
        ..JobConfig::default()
    };
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
