//! The settings of a job, with their bounds checked in one place.

use std::path::PathBuf;

use tidemill_storage::key::MAX_PARALLELISM_MAX;

use super::{
    checkpoint_config::{CheckpointConfig, RestartStrategy},
    error::Error,
};

/// Where keyed operators keep their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateBackendKind {
    /// In a log that can outgrow memory: made for many keys.
    #[default]
    Log,
    /// In plain tables in memory: the reference.
    Memory,
}

impl StateBackendKind {
    /// All of them: what holds for one has to hold for all.
    pub const ALL: &[Self] = &[Self::Log, Self::Memory];
}

/// Share of its memory, as a divisor, that a job takes for state unless told otherwise.
const STATE_MEMORY_SHARE: u64 = 2;
/// What a worker needs for state at least: less would not hold what is being written.
const STATE_MEMORY_BYTES_MIN: u64 = 1 << 20;
/// What a job takes for state, over all workers, where there is no telling how much memory there is.
const STATE_MEMORY_BYTES: u64 = 1 << 30;

/// The settings of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobConfig {
    /// Name shown in messages and metrics, and by which a checkpoint knows its job.
    pub name: String,
    /// Number of workers, one per core by default; every operator has as many subtasks unless told otherwise.
    pub parallelism: usize,
    /// Number of key groups: the bound on parallelism for the life of the job's state. `None` takes that of the checkpoint or
    /// savepoint that the job goes on from; a job that begins anew gets 128 for each worker, at most 32,768.
    pub max_parallelism: Option<u32>,
    /// Most records in one batch on an exchange.
    pub batch_records_max: usize,
    /// Bytes of strings and vectors at which a batch is sent though it has room for more records.
    pub batch_bytes_max: usize,
    /// Longest time in microseconds that a record waits in a batch while the job runs freely.
    pub linger_us_max: u64,
    /// Batches under way between two subtasks of one edge.
    pub channel_batches_max: usize,
    /// Records that a task takes in one step at most.
    pub step_records_max: usize,
    /// Microseconds after which a task ends its step early.
    pub step_us_max: u64,
    /// Least time in microseconds between two watermarks of one source subtask while input keeps coming.
    pub watermark_interval_us: u64,
    /// Where keyed operators keep their state.
    pub state_backend: StateBackendKind,
    /// Directory for state that leaves memory, on a local disk; no other job may use it. `None` keeps all of it in memory.
    pub state_dir: Option<PathBuf>,
    /// Bytes of memory per worker for state, above which [`StateBackendKind::Log`] moves records to
    /// [`state_dir`](Self::state_dir). `None` chooses half of the memory that the process may use (the machine's, or
    /// its control group's limit), in equal parts for all workers.
    pub state_memory_bytes_max: Option<u64>,
    /// How often the job is checkpointed and where to; `None` for never.
    pub checkpoints: Option<CheckpointConfig>,
    /// Whether the job is started again when it fails.
    pub restart: RestartStrategy,
}

impl Default for JobConfig {
    fn default() -> Self {
        Self {
            name: "job".to_owned(),
            parallelism: 1,
            max_parallelism: None,
            batch_records_max: 1024,
            batch_bytes_max: 128 * 1024,
            linger_us_max: 100,
            channel_batches_max: 8,
            step_records_max: 4096,
            step_us_max: 200,
            watermark_interval_us: 500,
            state_backend: StateBackendKind::default(),
            state_dir: None,
            state_memory_bytes_max: None,
            checkpoints: None,
            restart: RestartStrategy::None,
        }
    }
}

impl JobConfig {
    /// The number of key groups in force, of a job that begins anew unless it was [taken over](Self::with_key_groups_of).
    ///
    /// 128 for each worker share keys out evenly, also among some more or fewer workers, and leave more room to grow than Flink's
    /// choice does, which is 128 for up to 85 of them. They cost nothing: state is not divided by them.
    pub fn key_groups(&self) -> u32 {
        let chosen = u32::try_from(self.parallelism).unwrap_or(u32::MAX).saturating_mul(128);
        self.max_parallelism.unwrap_or(chosen.min(MAX_PARALLELISM_MAX))
    }

    /// These settings with the number of key groups of the checkpoint that an attempt goes on from, if there is one and they name none.
    pub(crate) fn with_key_groups_of(&self, stored: Option<u32>) -> Self {
        Self { max_parallelism: self.max_parallelism.or(stored), ..self.clone() }
    }

    /// The bytes of memory for state in force for each worker, when the process may use `memory_bytes` in all.
    pub fn state_memory_bytes(&self, memory_bytes: Option<u64>) -> u64 {
        let all = memory_bytes.map_or(STATE_MEMORY_BYTES, |bytes| bytes / STATE_MEMORY_SHARE);
        let share = all / self.parallelism.max(1) as u64;
        self.state_memory_bytes_max.unwrap_or(share.max(STATE_MEMORY_BYTES_MIN))
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`Error::Config`] that names the setting, what it is and what it may be.
    pub fn check(&self) -> Result<(), Error> {
        let between = |what: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::config(
                format!("{what} is {value}"),
                format!("it must be between {least} and {most}"),
                format!("set {what} within these bounds"),
            ))
        };
        if self.parallelism == 0 {
            return Err(Error::config(
                "parallelism is 0".to_owned(),
                "a job needs at least one worker".to_owned(),
                "set parallelism (or --cores) to 1 or more".to_owned(),
            ));
        }
        let groups = u64::from(self.key_groups());
        between("max_parallelism", groups, 1, u64::from(MAX_PARALLELISM_MAX))?;
        if self.parallelism as u64 > groups {
            return Err(Error::config(
                format!("parallelism is {} but max_parallelism is {groups}", self.parallelism),
                "a worker without a key group would have nothing to do".to_owned(),
                "lower parallelism, or raise max_parallelism (which state written before does not survive)"
                    .to_owned(),
            ));
        }
        between("batch_records_max", self.batch_records_max as u64, 1, 1 << 20)?;
        between("batch_bytes_max", self.batch_bytes_max as u64, 1, 1 << 30)?;
        between("linger_us_max", self.linger_us_max, 0, 60_000_000)?;
        between("channel_batches_max", self.channel_batches_max as u64, 1, 1 << 16)?;
        between("step_records_max", self.step_records_max as u64, 1, 1 << 24)?;
        between("step_us_max", self.step_us_max, 1, 60_000_000)?;
        between("watermark_interval_us", self.watermark_interval_us, 0, 3_600_000_000)?;
        self.restart.check()?;
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.check()?;
            if self.state_backend == StateBackendKind::Memory {
                return Err(Error::config(
                    "checkpoints are on and state_backend is `memory`".to_owned(),
                    "state in plain tables cannot be made durable".to_owned(),
                    "set state_backend to `log`, or checkpoints to none".to_owned(),
                ));
            }
        }
        let has_place = self.state_dir.is_some() || self.checkpoints.is_some();
        if self.state_memory_bytes_max.is_some() && !has_place {
            return Err(Error::config(
                "state_memory_bytes_max is set and state_dir is not".to_owned(),
                "state that is over the bound would have nowhere to go".to_owned(),
                "set state_dir to a directory on a local disk, or switch checkpoints on".to_owned(),
            ));
        }
        let state_memory = self.state_memory_bytes_max.unwrap_or(STATE_MEMORY_BYTES_MIN);
        between("state_memory_bytes_max", state_memory, STATE_MEMORY_BYTES_MIN, 1 << 46)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_workers_and_more_workers_than_key_groups_are_refused() {
        let mut config = JobConfig { parallelism: 0, ..JobConfig::default() };
        assert!(config.check().is_err());
        config.parallelism = 3;
        config.max_parallelism = Some(2);
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("parallelism is 3 but max_parallelism is 2"), "{message}");
        config.max_parallelism = Some(40_000);
        assert!(config.check().is_err());
        config.max_parallelism = None;
        assert_eq!(config.key_groups(), 384);
        config.check().unwrap();
    }

    #[test]
    fn a_restart_strategy_is_checked_with_the_rest() {
        let restart = RestartStrategy::FixedDelay { attempts_max: 0, delay_ms: 1 };
        let message = JobConfig { restart, ..JobConfig::default() }.check().unwrap_err().to_string();
        assert!(message.contains("restart.attempts_max is 0"), "{message}");
    }

    #[test]
    fn workers_share_half_of_the_memory_unless_told_otherwise() {
        let mut config = JobConfig { parallelism: 4, ..JobConfig::default() };
        assert_eq!(config.state_memory_bytes(Some(8 << 30)), 1 << 30);
        assert_eq!(config.state_memory_bytes(None), 256 << 20);
        assert_eq!(config.state_memory_bytes(Some(1 << 20)), 1 << 20);
        config.state_memory_bytes_max = Some(64 << 20);
        assert_eq!(config.state_memory_bytes(Some(8 << 30)), 64 << 20);
        config.state_memory_bytes_max = Some(1000);
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("state_dir is not"), "{message}");
        config.state_dir = Some("state".into());
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("state_memory_bytes_max is 1000"), "{message}");
    }
}
