//! Whether a job that failed is started again, and when.

use std::{
    collections::VecDeque,
    io::ErrorKind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidemill_storage::{state::StateError, wal::LogError};

use crate::{
    model::{checkpoint_config::RestartStrategy, error::Error},
    platform::Nanos,
};

pub(super) const NANOS_PER_MILLI: Nanos = 1_000_000;

/// Counts failures and decides.
pub(super) struct RestartPolicy {
    strategy: RestartStrategy,
    failures: VecDeque<Nanos>,
    restarts: u32,
    delay_ms: f64,
}

impl RestartPolicy {
    pub(super) fn new(strategy: RestartStrategy) -> Self {
        Self { strategy, failures: VecDeque::new(), restarts: 0, delay_ms: 0.0 }
    }

    /// Takes note of a failure; how long to wait before the next attempt, unless there is to be none.
    pub(super) fn fail(&mut self, now: Nanos) -> Option<Nanos> {
        let last = self.failures.back().copied();
        let delay_ms = match self.strategy {
            RestartStrategy::None => return None,
            RestartStrategy::FixedDelay { attempts_max, delay_ms } => {
                (self.restarts < attempts_max).then_some(delay_ms)?
            }
            RestartStrategy::ExponentialDelay { initial_ms, delay_ms_max, factor, reset_after_ms } => {
                let calm = |last| now.saturating_sub(last) >= reset_after_ms.saturating_mul(NANOS_PER_MILLI);
                let grown = match last {
                    Some(last) if !calm(last) => self.delay_ms * factor.max(1.0),
                    _ => initial_ms as f64,
                };
                self.delay_ms = grown.min(delay_ms_max as f64);
                self.delay_ms as u64
            }
            RestartStrategy::FailureRate { failures_max, interval_ms, delay_ms } => {
                let since = now.saturating_sub(interval_ms.saturating_mul(NANOS_PER_MILLI));
                let recent = self.failures.iter().filter(|at| **at >= since).count();
                (recent < failures_max as usize).then_some(delay_ms)?
            }
        };
        self.restarts += 1;
        self.failures.push_back(now);
        let bound = match self.strategy {
            RestartStrategy::FailureRate { failures_max, .. } => failures_max as usize,
            _ => 1,
        };
        while self.failures.len() > bound {
            self.failures.pop_front();
        }
        Some(delay_ms.saturating_mul(NANOS_PER_MILLI))
    }
}

/// The policy of a job, for whoever restarts all of it or a region. Clones are the same.
#[derive(Clone)]
pub(super) struct SharedPolicy(Arc<Mutex<RestartPolicy>>);

impl SharedPolicy {
    pub(super) fn new(strategy: RestartStrategy) -> Self {
        Self(Arc::new(Mutex::new(RestartPolicy::new(strategy))))
    }

    /// As [`RestartPolicy::fail`].
    pub(super) fn fail(&self, now: Nanos) -> Option<Nanos> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fail(now)
    }
}

/// Operators that are down.
#[derive(Clone)]
pub(super) struct Outage {
    pub(super) since: Nanos,
    pub(super) failure: Error,
    /// When they are started again, if that is known.
    pub(super) until: Option<Nanos>,
}

impl Outage {
    /// What there is to say of it; `operators` are those that are down.
    pub(super) fn told(&self, operators: &[String], now: Nanos) -> String {
        let time = |nanos: Nanos| Duration::from_millis(nanos / NANOS_PER_MILLI);
        let (operators, failure) = (operators.join(", "), &self.failure);
        let down = time(now.saturating_sub(self.since));
        let again = match self.until {
            Some(until) => format!("in {:?}", time(until.saturating_sub(now))),
            None => "when nothing of them is left".to_owned(),
        };
        format!("{operators}, for {down:?} ({failure}), to be started again {again}")
    }
}

/// Whether a failure comes from files that are damaged or missing.
pub(super) fn is_damage(failure: &Error) -> bool {
    let Error::Operator { cause, .. } = failure else { return false };
    let Some(error) = cause.downcast_ref::<StateError>() else { return false };
    matches!(error, StateError::Damaged { .. } | StateError::NoRecords { .. })
        || matches!(error, StateError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Whether an operator says that what it was given to go on from is not for it, which another attempt would find again: its state is of
/// other types, or the log that it reads has lost its beginning.
pub(super) fn is_refusal(failure: &Error) -> bool {
    let Error::Operator { cause, .. } = failure else { return false };
    let state = matches!(
        cause.downcast_ref(),
        Some(
            StateError::Schema { .. }
                | StateError::OtherOperator { .. }
                | StateError::OpenTwice { .. }
                | StateError::NoDirectory
                | StateError::NoSnapshots
                | StateError::MaxParallelism { .. }
        )
    );
    state || matches!(cause.downcast_ref(), Some(LogError::Trimmed { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000 * NANOS_PER_MILLI;

    #[test]
    fn none_and_fixed_delay_give_up_when_their_attempts_are_used_up() {
        assert_eq!(RestartPolicy::new(RestartStrategy::None).fail(0), None);
        let fixed = RestartStrategy::FixedDelay { attempts_max: 2, delay_ms: 500 };
        let mut policy = RestartPolicy::new(fixed);
        assert_eq!([0, 1, 2].map(|at| policy.fail(at * SECOND)), [Some(SECOND / 2), Some(SECOND / 2), None]);
    }

    #[test]
    fn an_exponential_delay_grows_to_its_bound_and_begins_again_after_a_calm_time() {
        let strategy = RestartStrategy::ExponentialDelay {
            initial_ms: 1_000,
            delay_ms_max: 5_000,
            factor: 2.0,
            reset_after_ms: 60_000,
        };
        let mut policy = RestartPolicy::new(strategy);
        let delays = [0, 1, 2, 3, 70].map(|at| policy.fail(at * SECOND).map(|delay| delay / SECOND));
        assert_eq!(delays, [Some(1), Some(2), Some(4), Some(5), Some(1)]);
    }

    #[test]
    fn a_failure_rate_counts_what_is_recent() {
        let strategy = RestartStrategy::FailureRate { failures_max: 2, interval_ms: 10_000, delay_ms: 0 };
        let mut policy = RestartPolicy::new(strategy);
        assert_eq!([0, 1, 2].map(|at| policy.fail(at * SECOND)), [Some(0), Some(0), None]);
        assert_eq!(policy.fail(11 * SECOND), Some(0));
    }
}
