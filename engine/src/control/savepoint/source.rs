//! Where a savepoint is read from: also a checkpoint that a job has kept.

use std::path::{Path, PathBuf};

use tidemill_storage::snapshot::disk::Disk;

use super::{MANIFEST, is_in};
use crate::{
    control::{
        library::{MANIFESTS, number_of},
        manifest::JobManifest,
    },
    model::checkpoint_error::CheckpointError,
};

/// The manifest of a savepoint, or of a checkpoint that is used as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Source {
    file: PathBuf,
    /// The directory that its paths are relative to.
    pub(super) root: PathBuf,
    /// Whether a job may take it away: it is one of its checkpoints.
    pub(super) is_checkpoint: bool,
}

impl Source {
    /// The savepoint in a directory.
    pub(super) fn savepoint(directory: &Path) -> Self {
        Self { file: directory.join(MANIFEST), root: directory.to_owned(), is_checkpoint: false }
    }

    /// What a user names: a savepoint's directory, or the manifest of a checkpoint in the directory of a job.
    ///
    /// # Errors
    /// When there is neither.
    pub(super) fn find(disk: &dyn Disk, place: &Path) -> Result<Self, CheckpointError> {
        if is_in(disk, place) {
            return Ok(Self::savepoint(place));
        }
        let manifests =
            place.parent().filter(|above| above.ends_with(MANIFESTS) && number_of(place).is_some());
        if let Some(root) = manifests.and_then(Path::parent)
            && disk.open(place).is_ok()
        {
            return Ok(Self { file: place.to_owned(), root: root.to_owned(), is_checkpoint: true });
        }
        let checkpoints = disk.list(&place.join(MANIFESTS)).unwrap_or_default();
        let what = match checkpoints.iter().rfind(|file| number_of(file).is_some()) {
            Some(newest) => format!("it is the directory of a job. Name one of its checkpoints, such as {}", newest.display()),
            None => "it has no file `savepoint`. Check the path, and that the savepoint was taken without an error".to_owned(),
        };
        Err(CheckpointError::NoSavepoint { place: place.display().to_string(), what })
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is not there whole, or of a newer version.
    pub(in crate::control) fn read(&self, disk: &dyn Disk) -> Result<JobManifest, CheckpointError> {
        JobManifest::read(disk, &self.file, &self.root)
    }
}
