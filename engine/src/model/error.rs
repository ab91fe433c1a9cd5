//! Why a job could not start, or stopped.

use std::{fmt, sync::Arc};

use super::{checkpoint_error::CheckpointError, source::BoxError};
use crate::platform::PlatformError;

/// Why a job could not start, or stopped. Cheap to clone: every caller that waits gets the same one.
///
/// `Debug` shows the same text as `Display`: it is what a `fn main() -> Result<(), Error>` prints.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its bounds, or settings contradict each other.
    #[error("{what}: {why}. To mend it: {fix}")]
    Config {
        /// The setting and its value.
        what: String,
        /// Why it cannot be.
        why: String,
        /// What to do.
        fix: String,
    },
    /// A source or sink refused to start: nothing ran.
    #[error("cannot start `{operator}`: {cause}")]
    Prepare {
        /// Name of the operator.
        operator: String,
        /// What it said.
        cause: Arc<BoxError>,
    },
    /// An operator failed or panicked while the job ran.
    #[error("operator `{operator}`, subtask {subtask}: {cause}")]
    Operator {
        /// Name of the operator, and its id in brackets if it was given one.
        operator: String,
        /// Index of its instance, from 0.
        subtask: usize,
        /// What it said: its error, or `panicked: ` and the message.
        cause: Arc<BoxError>,
    },
    /// The job was cancelled through its handle.
    #[error("the job was cancelled")]
    Cancelled,
    /// A checkpoint cannot be written, read or gone on from.
    #[error(transparent)]
    Checkpoint(Arc<CheckpointError>),
    /// Something was asked of a job that has ended.
    #[error("the job has ended")]
    Over,
    /// The machine cannot run the job, or lost a worker.
    #[error(transparent)]
    Platform(Arc<PlatformError>),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An [`Error::Config`] from its three parts.
    pub fn config(what: String, why: String, fix: String) -> Self {
        Self::Config { what, why, fix }
    }
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(Arc::new(error))
    }
}

impl From<PlatformError> for Error {
    fn from(error: PlatformError) -> Self {
        Self::Platform(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_that_returns_an_error_prints_what_is_for_people() {
        let error =
            Error::config("parallelism 0".to_owned(), "no one works".to_owned(), "ask for 1".to_owned());
        assert_eq!(format!("{error:?}"), "parallelism 0: no one works. To mend it: ask for 1");
    }
}
