//! What can go wrong in a benchmark, and what to do about it.

use std::{io, process::ExitCode, time::Duration};

/// Why a benchmark gave no figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// No case has this name. Take a name from `list`.
    #[error("there is no case named `{name}`; `tidemill-bench list` names them: {known}")]
    UnknownCase {
        /// What was asked for.
        name: String,
        /// The names that exist, separated by commas.
        known: String,
    },
    /// The command line asks for something impossible. Mend the option it names.
    #[error("{0}")]
    BadOption(String),
    /// A side computed something else than the reference. Its speed means nothing until that is mended.
    #[error("{side} gave a wrong answer to {query}: {difference}")]
    WrongAnswer {
        /// Whose answer it was.
        side: String,
        /// The query it answers.
        query: String,
        /// The first difference, or both summaries.
        difference: String,
    },
    /// A peer could not start or finish. Its own message says why.
    #[error("{peer} failed: {reason}")]
    Peer {
        /// The peer's name.
        peer: &'static str,
        /// What it said.
        reason: String,
    },
    /// A job or its machine failed. Its own message says what to do.
    #[error(transparent)]
    Job(#[from] tidemill::model::error::Error),
    /// The store failed. Its own message says what to do.
    #[error(transparent)]
    State(#[from] tidemill::storage::state::StateError),
    /// The server that a case started for itself failed. Its own message says what to do.
    #[error(transparent)]
    Server(#[from] tidemill_postgres_server::ServerError),
    /// A worker slept through wake-ups: the platform's parking is broken.
    #[error("{lost} wake-ups did not arrive within {patience:?}")]
    LostWakeUps {
        /// How many.
        lost: u64,
        /// How long each was waited for.
        patience: Duration,
    },
    /// The figures could not be written. Look at where standard output goes.
    #[error("cannot write the report: {0}")]
    Output(#[from] io::Error),
}

impl BenchError {
    /// The exit code of the command: 2 for a command line that asks for what does not exist, else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::UnknownCase { .. } | Self::BadOption(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}
