//! What outlives the attempts of a job: the directory of its checkpoints and the sinks' committers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{commits::Commits, library::Library};
use crate::model::checkpoint::CheckpointId;

/// Used by the supervisor between attempts and by the coordinator during one.
pub(super) struct Vault(Mutex<Contents>);

/// What is in it.
pub(super) struct Contents {
    /// The directory of the checkpoints, if they are kept.
    pub(super) library: Option<Library>,
    /// What commits.
    pub(super) commits: Commits,
    last: CheckpointId,
}

impl Vault {
    pub(super) fn new(library: Option<Library>, commits: Commits) -> Self {
        Self(Mutex::new(Contents { library, commits, last: 0 }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Contents> {
        // A committer that panicked is recovered with the next attempt, as after a crash.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    /// Whether the end of the input waits for a last checkpoint.
    pub(super) fn is_coordinated(&self) -> bool {
        self.library.is_some() || !self.commits.is_empty()
    }

    /// The last number that was given to a checkpoint; 0 before the first.
    pub(super) fn last_checkpoint(&self) -> CheckpointId {
        self.last
    }

    /// A number that no checkpoint of the job has had.
    pub(super) fn next_checkpoint(&mut self) -> CheckpointId {
        self.last = match &mut self.library {
            Some(library) => library.next_checkpoint(),
            None => self.last + 1,
        };
        self.last
    }
}
