//! How often a job is checkpointed, where to, and what happens when it fails.

use std::path::PathBuf;

use super::{error::Error, savepoint::SavepointPlace};
use crate::platform::remote::RemoteConfig;

/// How often a job is checkpointed and where to. Times are in milliseconds.
///
/// ```
/// use tidemill_engine::model::checkpoint_config::CheckpointConfig;
///
/// let checkpoints = CheckpointConfig { interval_ms: 1_000, ..CheckpointConfig::new("/var/lib/orders/checkpoints") };
/// # drop(checkpoints);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// The job's own directory, on a local disk; made if it is missing in one that is there. A job that finds checkpoints there goes on
    /// from the newest that is whole. One that finds that there were some, and are none any more, refuses to start.
    pub directory: PathBuf,
    /// A store on other machines that keeps every checkpoint too: then a job goes on where it was although the machine is lost, with
    /// its directory. A checkpoint is complete when it is there. See [`RemoteConfig`].
    pub remote: Option<RemoteConfig>,
    /// Time from the beginning of one checkpoint to that of the next.
    pub interval_ms: u64,
    /// Least time from the end of one checkpoint to the beginning of the next.
    pub pause_ms_min: u64,
    /// Time after which a checkpoint that is not complete is given up, also the one behind which the job is to be stopped; and a savepoint
    /// that is not there, unless the job is to stop behind it.
    pub timeout_ms: u64,
    /// Time after which a checkpoint no longer waits for the records before it: its barrier overtakes those that are under way,
    /// and they become part of the checkpoint. What Flink calls unaligned: a job that is held up completes its checkpoints all
    /// the same, and they are larger. 0 for every checkpoint from its beginning; `None`, the default, for none. Savepoints and
    /// the last checkpoint of a job always wait. Needs [`concurrent_max`](Self::concurrent_max) to be 1.
    pub unaligned_after_ms: Option<u64>,
    /// Checkpoints under way at once.
    pub concurrent_max: usize,
    /// Checkpoints in a row that may fail without failing the job.
    pub failures_max: u32,
    /// Complete checkpoints that are kept.
    pub retained_max: usize,
    /// Whether checkpoints stay when the job is cancelled: by [`cancel`](crate::control::handle::JobHandle::cancel), or `tidemill cancel`.
    /// Otherwise they always do: a job that failed, was stopped, could not be stopped, or whose handle was dropped goes on from the
    /// newest when it is started again; one that has come to the end of its input finds that, and ends at once.
    pub retain_on_cancel: bool,
    /// The savepoint to begin with. A job that has begun with it goes on from its own checkpoints, so the setting may stay; where the
    /// directory has checkpoints of a job that began otherwise, it is refused. One in a remote store is fetched first, and what was
    /// fetched goes with the first checkpoint. A checkpoint of another directory may be named as well, by its manifest:
    /// `DIRECTORY/checkpoints/00000000000000000042`.
    pub savepoint: Option<SavepointPlace>,
    /// Whether to go on from a checkpoint that has state of operators that this job does not have, or states that its operators do
    /// not open: that state is dropped.
    pub allow_non_restored_state: bool,
}

impl CheckpointConfig {
    /// A checkpoint every 10 seconds.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            remote: None,
            interval_ms: 10_000,
            pause_ms_min: 0,
            timeout_ms: 600_000,
            unaligned_after_ms: None,
            concurrent_max: 1,
            failures_max: 10,
            retained_max: 2,
            retain_on_cancel: true,
            savepoint: None,
            allow_non_restored_state: false,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`Error::Config`] that names the setting.
    pub fn check(&self) -> Result<(), Error> {
        let at_least_one = |what: &str, value: u64| {
            if value > 0 {
                return Ok(());
            }
            Err(Error::config(
                format!("checkpoints.{what} is 0"),
                "it must be at least 1".to_owned(),
                format!("set {what} to 1 or more"),
            ))
        };
        if self.directory.as_os_str().is_empty() {
            return Err(Error::config(
                "checkpoints.directory is empty".to_owned(),
                "checkpoints are kept in a directory".to_owned(),
                "name one, such as `checkpoints`; the one above it has to be there".to_owned(),
            ));
        }
        if let Some(Err(error)) = self.remote.as_ref().map(RemoteConfig::check) {
            let what = "checkpoints.remote cannot be used".to_owned();
            return Err(Error::config(what, error.to_string(), "see `RemoteConfig`".to_owned()));
        }
        if let Some(savepoint) = &self.savepoint {
            savepoint.check("checkpoints.savepoint")?;
        }
        at_least_one("interval_ms", self.interval_ms)?;
        at_least_one("timeout_ms", self.timeout_ms)?;
        at_least_one("concurrent_max", self.concurrent_max as u64)?;
        if self.unaligned_after_ms.is_some() && self.concurrent_max > 1 {
            return Err(Error::config(
                format!(
                    "checkpoints.concurrent_max is {} and unaligned_after_ms is set",
                    self.concurrent_max
                ),
                "a barrier that overtakes records may not overtake another one".to_owned(),
                "set concurrent_max to 1, or unaligned_after_ms to none".to_owned(),
            ));
        }
        at_least_one("retained_max", self.retained_max as u64)
    }
}

/// Whether and when a job that failed, or a [region](crate::model::regions) of it, is started again, from its newest complete checkpoint or,
/// without one, from the beginning. As in Flink. Times are in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RestartStrategy {
    /// Never.
    #[default]
    None,
    /// After the same delay each time.
    FixedDelay {
        /// Restarts over the life of the job.
        attempts_max: u32,
        /// Time before each.
        delay_ms: u64,
    },
    /// After a delay that grows with each failure, for ever.
    ExponentialDelay {
        /// The first delay.
        initial_ms: u64,
        /// The longest delay.
        delay_ms_max: u64,
        /// By how much it grows each time.
        factor: f64,
        /// Time without a failure after which the delay is the first one again.
        reset_after_ms: u64,
    },
    /// As long as there are not too many failures in some time.
    FailureRate {
        /// Failures that are borne within `interval_ms`.
        failures_max: u32,
        /// The time in which they are counted.
        interval_ms: u64,
        /// Time before each restart.
        delay_ms: u64,
    },
}

impl RestartStrategy {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`Error::Config`] that names the setting, what it is and what it may be.
    pub fn check(&self) -> Result<(), Error> {
        let refused = |what: String, why: &str, fix: &str| {
            Err(Error::config(format!("restart.{what}"), why.to_owned(), fix.to_owned()))
        };
        let at_least_one = |what: &str, value: u64, fix: &str| match value {
            0 => refused(format!("{what} is 0"), "it must be at least 1", fix),
            _ => Ok(()),
        };
        match *self {
            Self::None => Ok(()),
            Self::FixedDelay { attempts_max, .. } => at_least_one(
                "attempts_max",
                attempts_max.into(),
                "set it to 1 or more, or take `RestartStrategy::None` for a job that is never started again",
            ),
            Self::ExponentialDelay { initial_ms, delay_ms_max, factor, reset_after_ms } => {
                at_least_one("initial_ms", initial_ms, "set it to 1 or more: from 0 no delay grows")?;
                if delay_ms_max < initial_ms {
                    return refused(
                        format!("delay_ms_max is {delay_ms_max} and initial_ms is {initial_ms}"),
                        "the longest delay cannot be shorter than the first",
                        "raise delay_ms_max, or lower initial_ms",
                    );
                }
                if !factor.is_finite() || factor < 1.0 {
                    return refused(
                        format!("factor is {factor}"),
                        "a delay grows by it, so it must be a number of at least 1",
                        "set it to 1 for a delay that stays the same, or to more, such as 2",
                    );
                }
                at_least_one(
                    "reset_after_ms",
                    reset_after_ms,
                    "set it to more: with 0 each failure begins again with the first delay",
                )
            }
            Self::FailureRate { failures_max, interval_ms, .. } => {
                at_least_one(
                    "failures_max",
                    failures_max.into(),
                    "set it to 1 or more, or take `RestartStrategy::None` for a job that is never started again",
                )?;
                at_least_one(
                    "interval_ms",
                    interval_ms,
                    "set it to the time in which failures are counted, such as 60000",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of an exponential delay.
    fn said(initial_ms: u64, delay_ms_max: u64, factor: f64, reset_after_ms: u64) -> String {
        let strategy = RestartStrategy::ExponentialDelay { initial_ms, delay_ms_max, factor, reset_after_ms };
        strategy.check().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn delays_that_do_not_grow_as_they_should_are_refused() {
        assert_eq!(said(1_000, 60_000, 1.0, 60_000), "");
        assert_eq!(said(5, 5, 2.5, 1), "");
        for factor in [0.0, 0.99, -2.0, f64::NAN, f64::INFINITY] {
            let said = said(1_000, 60_000, factor, 60_000);
            assert!(said.contains(&format!("restart.factor is {factor}")), "{said}");
        }
        assert!(said(1_000, 999, 2.0, 60_000).contains("delay_ms_max is 999 and initial_ms is 1000"));
        assert!(said(0, 999, 2.0, 60_000).contains("restart.initial_ms is 0"));
        assert!(said(1, 999, 2.0, 0).contains("restart.reset_after_ms is 0"));
    }

    #[test]
    fn strategies_by_which_nothing_is_ever_started_again_are_refused() {
        let said = |strategy: RestartStrategy| strategy.check().unwrap_err().to_string();
        let none = "`RestartStrategy::None`";
        let fixed = said(RestartStrategy::FixedDelay { attempts_max: 0, delay_ms: 5 });
        assert!(fixed.contains("restart.attempts_max is 0") && fixed.contains(none), "{fixed}");
        let rate = |failures_max, interval_ms| RestartStrategy::FailureRate {
            failures_max,
            interval_ms,
            delay_ms: 0,
        };
        let never = said(rate(0, 10));
        assert!(never.contains("restart.failures_max is 0") && never.contains(none), "{never}");
        assert!(said(rate(1, 0)).contains("restart.interval_ms is 0"));
        rate(1, 1).check().unwrap();
        RestartStrategy::None.check().unwrap();
    }
}
