//! Speaking with a running job from another process: `tidemill savepoint` and its like.
//!
//! A job with checkpoints listens on a socket in the directory of its checkpoints. A request and its answer are a line of JSON each.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::handle::JobMonitor;
use crate::{
    model::error::Error,
    platform::{control_socket, control_socket::ControlSocket, signals::StopSignals, threads},
};

/// Name of the socket in the directory of the checkpoints.
const SOCKET: &str = "control";

/// What is asked of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Ask {
    /// As [`JobMonitor::checkpoint`].
    Checkpoint,
    /// As [`JobMonitor::savepoint`], or [`JobMonitor::stop_with_savepoint`].
    Savepoint {
        /// Where to: a URL, or an absolute directory. What a URL does not say of how the store is reached, the job knows.
        target: String,
        /// Whether the job stops behind it.
        stop: bool,
        /// Whether it is drained first.
        drain: bool,
    },
    /// As [`JobMonitor::suspend`].
    Suspend,
    /// As [`JobMonitor::cancel`].
    Cancel,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Done(String),
    Refused(String),
}

/// Asks something of the job whose checkpoints are in `directory`; returns where the checkpoint or savepoint is.
///
/// # Errors
/// In words: when no job runs there, or what it says.
pub fn ask(directory: &Path, ask: &Ask) -> Result<String, String> {
    let line = serde_json::to_string(ask).map_err(|error| error.to_string())?;
    let said = control_socket::ask(directory, SOCKET, &line).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => format!(
            "no job runs with its checkpoints in {}: name the directory that the job was given",
            directory.display()
        ),
        io::ErrorKind::UnexpectedEof => "the job ended before it answered".to_owned(),
        _ => format!("cannot speak with the job in {}: {error}", directory.display()),
    })?;
    match serde_json::from_str(&said).map_err(|error| format!("the job's answer cannot be read: {error}"))? {
        Answer::Done(place) => Ok(place),
        Answer::Refused(why) => Err(why),
    }
}

/// Hears what other processes ask of a job, until it is dropped.
pub(super) struct Remote {
    _socket: ControlSocket,
}

impl Remote {
    /// Listens in the directory of the job's checkpoints.
    ///
    /// # Errors
    /// Of the system.
    pub(super) fn listen(directory: &Path, monitor: JobMonitor) -> io::Result<Self> {
        let answer = move |line: &str| {
            let answer = match serde_json::from_str::<Ask>(line) {
                Ok(ask) => do_it(&monitor, &ask)
                    .map_or_else(|error| Answer::Refused(error.to_string()), Answer::Done),
                Err(error) => Answer::Refused(format!("the request cannot be read: {error}")),
            };
            serde_json::to_string(&answer).unwrap_or_default()
        };
        Ok(Self { _socket: ControlSocket::listen(directory, SOCKET, answer)? })
    }
}

fn do_it(monitor: &JobMonitor, ask: &Ask) -> Result<String, Error> {
    let place = match ask {
        Ask::Checkpoint => monitor.checkpoint()?.into(),
        Ask::Savepoint { target, stop: true, drain } => monitor.stop_with_savepoint(target, *drain)?,
        Ask::Savepoint { target, .. } => monitor.savepoint(target)?,
        Ask::Suspend => monitor.suspend()?.into(),
        Ask::Cancel => {
            monitor.cancel();
            return Ok(String::new());
        }
    };
    Ok(place.to_string())
}

/// Stops a job when the process is asked to stop for the first time, and without a last checkpoint when it is asked again.
///
/// # Errors
/// Of the system.
pub(super) fn stop_on_signal(monitor: JobMonitor) -> io::Result<StopSignals> {
    StopSignals::listen(move |times| {
        if times > 1 {
            return monitor.leave(Error::Cancelled);
        }
        let stopping = monitor.clone();
        // The signals go on being heard while the last checkpoint is taken. What becomes of it, whoever waits for the job hears.
        let stop = move || drop(stopping.stop());
        if threads::start("tidemill-stop", stop).is_err() {
            monitor.leave(Error::Cancelled);
        }
    })
}
