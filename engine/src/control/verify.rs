//! Checking what a directory of checkpoints, or of a savepoint, holds, offline: every byte of all files that it needs.

use std::{path::Path, sync::Arc};

use tidemill_storage::{
    snapshot::{
        disk::{Disk, os::OsDisk},
        verify::{Verified, verify},
    },
    state::StateError,
};

use super::{library, manifest::JobManifest, savepoint};
use crate::model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError};

/// What a directory of checkpoints, or of a savepoint, holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedDirectory {
    /// Checkpoints that are whole, the newest first: a job goes on from the first of them.
    pub whole: Vec<CheckpointId>,
    /// Checkpoints that are not, the newest first, and what is wrong with each.
    pub broken: Vec<(CheckpointId, String)>,
    /// Manifests that cannot be read, and why.
    pub unreadable: Vec<String>,
    /// The number of the checkpoint that a savepoint is of, or what is wrong with it; `None` when there is none.
    pub savepoint: Option<Result<CheckpointId, String>>,
    /// What was read of state: files that several checkpoints need count for each.
    pub state: Verified,
}

impl VerifiedDirectory {
    /// Whether something is there, and all of it is whole.
    pub fn is_sound(&self) -> bool {
        let is_whole = self.broken.is_empty() && self.unreadable.is_empty();
        !self.is_empty() && is_whole && !matches!(self.savepoint, Some(Err(_)))
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        let Self { whole, broken, unreadable, savepoint, .. } = self;
        whole.is_empty() && broken.is_empty() && unreadable.is_empty() && savepoint.is_none()
    }

    /// Reads all state that a manifest names; what is wrong with it.
    fn state_of(&mut self, disk: &dyn Disk, manifest: &JobManifest) -> Result<(), StateError> {
        for part in manifest.operators.values().flat_map(|operator| operator.manifests()) {
            let Verified { manifests, segments, bytes, records, removed_keys } = verify(disk, &part)?;
            self.state.manifests += manifests;
            self.state.segments += segments;
            self.state.bytes += bytes;
            self.state.records += records;
            self.state.removed_keys += removed_keys;
        }
        Ok(())
    }
}

/// Whether a directory is one of a job's checkpoints, or holds a savepoint.
pub fn is_of_checkpoints(directory: &Path) -> bool {
    savepoint::is_in(&OsDisk::default(), directory) || library::is_in(&OsDisk::default(), directory)
}

/// Reads every byte of every checkpoint in the directory of a job, and of the savepoint in it, and compares checksums. The job may
/// run: then a checkpoint may go while it is read, and is told of as broken.
///
/// # Errors
/// When the directory cannot be read, and when it says that there were checkpoints and none is left.
pub fn verify_directory(directory: &Path) -> Result<VerifiedDirectory, CheckpointError> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    let mut verified = VerifiedDirectory::default();
    if savepoint::is_in(&*disk, directory) {
        let read = savepoint::read(&*disk, directory).map_err(|error| error.to_string());
        verified.savepoint = Some(read.and_then(|manifest| {
            verified.state_of(&*disk, &manifest).map_err(|error| error.to_string())?;
            Ok(manifest.checkpoint)
        }));
        // Somebody may have put it beside checkpoints.
        if !library::is_in(&*disk, directory) {
            return Ok(verified);
        }
    }
    for read in library::manifests(&disk, directory)?.into_iter().rev() {
        match read {
            Ok(manifest) => match verified.state_of(&*disk, &manifest) {
                Ok(()) => verified.whole.push(manifest.checkpoint),
                Err(error) => verified.broken.push((manifest.checkpoint, error.to_string())),
            },
            Err(error) => verified.unreadable.push(error.to_string()),
        }
    }
    Ok(verified)
}
