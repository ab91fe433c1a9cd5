//! A panic in a chain that an iterator drives: the chain is lost with it, and nothing else.

use tidemill_engine::model::{config::JobConfig, error::Error, watermark::WatermarkStrategy};
use tidemill_operators::{
    api::environment::StreamEnvironment, sink::BlackholeSink, source::from_parallel_iter,
};

#[test]
fn the_job_names_the_operator_and_its_worker_still_reports() {
    let env = StreamEnvironment::with_config(JobConfig { parallelism: 2, ..JobConfig::default() });
    env.from_source(
        "numbers",
        from_parallel_iter(|subtask, _| (subtask as u64 * 1_000)..),
        WatermarkStrategy::none(),
    )
    .map(|n: u64| if n == 5_000 { panic!("expected by the test") } else { n })
    .name("fragile")
    .sink("nothing", BlackholeSink::new());
    let job = env.start().unwrap();
    let monitor = job.monitor();
    let error = job.wait().unwrap_err();
    let Error::Operator { operator, cause, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (operator.as_str(), cause.to_string().as_str()),
        ("fragile", "panicked: expected by the test")
    );
    let metrics = monitor.metrics();
    assert!(metrics.workers.iter().all(|worker| worker.tasks.len() == 1), "{metrics:?}");
    assert_eq!(metrics.operator("numbers").map(|source| source.instances), Some(2));
}
