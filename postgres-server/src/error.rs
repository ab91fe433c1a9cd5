//! Why there is no server, and what to do about it.

use std::{io, time::Duration};

/// Why a server does not do as it is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No server to start.
    #[error(
        "there is no PostgreSQL server, neither in /usr/lib/postgresql nor on the PATH (on Debian: apt-get install postgresql)"
    )]
    NotInstalled,
    /// Nobody to run it as.
    #[error(
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`. Add one, or run this as another user"
    )]
    NoUser,
    /// One of its programs failed.
    #[error("`{program}` failed: {said}")]
    Failed {
        /// Which one.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// Its processes do not end.
    #[error("processes of a PostgreSQL server are still there {} s after it was stopped. End them by hand", .after.as_secs())]
    Stays {
        /// For how long they were waited for.
        after: Duration,
    },
    /// The system refuses something.
    #[error("cannot start a PostgreSQL server: {0}")]
    Io(#[from] io::Error),
    /// The server refuses something, or is down.
    #[error("PostgreSQL: {0}")]
    Client(#[from] ::postgres::Error),
}
