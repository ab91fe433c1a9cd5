//! Whole jobs under many settings: the results must not depend on them.

use std::{fmt::Debug, sync::Arc};

use tidemill_engine::{
    model::config::{JobConfig, StateBackendKind},
    platform::{GlommioPlatform, Platform, SimPlatform},
};

use super::record::RecordSink;
use crate::api::environment::StreamEnvironment;

/// The state backends that every operator and job is proven on.
pub const BACKENDS: &[StateBackendKind] = StateBackendKind::ALL;

/// A configuration with every state backend.
pub fn on_all_backends(config: JobConfig) -> impl Iterator<Item = JobConfig> {
    BACKENDS.iter().map(move |backend| JobConfig { state_backend: *backend, ..config.clone() })
}

/// One way to run a job.
pub struct Setting {
    /// What to tell when a job fails under it.
    pub name: String,
    /// Where it runs.
    pub platform: Arc<dyn Platform>,
    /// How it runs.
    pub config: JobConfig,
}

impl Setting {
    /// The simulation of `seed` with this configuration.
    pub fn simulated(seed: u64, config: JobConfig) -> Self {
        let name = format!("simulation {seed}, {config:?}");
        Self { name, platform: Arc::new(SimPlatform::new(seed)), config }
    }

    /// This machine's cores with this configuration.
    pub fn on_cores(config: JobConfig) -> Self {
        Self { name: format!("glommio, {config:?}"), platform: Arc::new(GlommioPlatform::new()), config }
    }

    /// An environment with this setting.
    pub fn environment(&self) -> StreamEnvironment {
        StreamEnvironment::on(Arc::clone(&self.platform), self.config.clone())
    }
}

/// Every parallelism of 1, 2, 3 and 8 with batches of 1, 2, 7 and 1024 records, and all other bounds both at their least and
/// at their default; each with every state backend.
pub fn configs() -> Vec<JobConfig> {
    let mut configs = Vec::new();
    for (row, parallelism) in [1, 2, 3, 8].into_iter().enumerate() {
        for (column, batch_records_max) in [1, 2, 7, 1024].into_iter().enumerate() {
            let mut config = JobConfig { parallelism, batch_records_max, ..JobConfig::default() };
            if batch_records_max < 1024 {
                // Each bound is tight in some rows and loose in others, in changing company.
                let pattern = row + column;
                config.channel_batches_max = [1, 2, 1, 8][pattern % 4];
                config.step_records_max = [1, 3, 4096][pattern % 3];
                config.batch_bytes_max = [1, 128 * 1024][pattern % 2];
                config.watermark_interval_us = [0, 500][(pattern + row) % 2];
                config.linger_us_max = [0, 100][column % 2];
            }
            configs.extend(on_all_backends(config));
        }
    }
    configs
}

/// All [`configs`] on this machine's cores, and each in `seeds` simulations.
pub fn settings(seeds: u64) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (index, config) in configs().into_iter().enumerate() {
        settings.extend((0..seeds).map(|seed| {
            let seed = seed * 1_000 + index as u64;
            Setting::simulated(seed, config.clone())
        }));
        settings.push(Setting::on_cores(config));
    }
    settings
}

/// Simulations per configuration that [`same_everywhere`] runs.
const SEEDS: u64 = 6;

/// Runs the job that `describe` describes under every one of the [`settings`]; what reaches the given sink has to be
/// `expected`, in any order.
///
/// # Panics
/// When a job fails or gives other results: the message names the setting.
pub fn same_everywhere<T, D>(expected: impl IntoIterator<Item = T>, describe: D)
where
    T: Debug + Send + 'static,
    D: Fn(&StreamEnvironment, RecordSink<T>),
{
    let expected = in_order(expected);
    for setting in settings(SEEDS) {
        let results = run(&setting, &describe);
        same(&expected, &in_order(results), &setting.name);
    }
}

/// Runs a job under one setting and returns what reached its sink.
///
/// # Panics
/// When the job fails.
pub fn run<T, D>(setting: &Setting, describe: D) -> Vec<T>
where
    T: Send + 'static,
    D: FnOnce(&StreamEnvironment, RecordSink<T>),
{
    let environment = setting.environment();
    let (sink, recorded) = RecordSink::new();
    describe(&environment, sink);
    match environment.execute() {
        Ok(_metrics) => recorded.take_records(),
        Err(error) => panic!("the job failed: {error}; under {}", setting.name),
    }
}

/// Records as text, sorted: results come in no particular order.
fn in_order<T: Debug>(records: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut texts: Vec<String> = records.into_iter().map(|record| format!("{record:?}")).collect();
    texts.sort_unstable();
    texts
}

/// Compares sorted records and shows only what differs.
fn same(expected: &[String], found: &[String], setting: &str) {
    if expected == found {
        return;
    }
    let without = |all: &[String], others: &[String]| -> Vec<String> {
        let mut left: Vec<&String> = others.iter().collect();
        all.iter()
            .filter(|one| match left.iter().position(|other| other == one) {
                Some(at) => {
                    left.swap_remove(at);
                    false
                }
                None => true,
            })
            .take(20)
            .cloned()
            .collect()
    };
    panic!(
        "{} results instead of {}; missing: {:#?}; too many: {:#?}; under {setting}",
        found.len(),
        expected.len(),
        without(expected, found),
        without(found, expected),
    );
}
