//! Looking at checkpoints: which there are, whether they can be used, and why not.

use std::{io, path::Path, sync::Arc};

use tidemill_storage::{
    snapshot::{disk::Disk, restore::Parts},
    state::StateError,
};

use super::{MANIFESTS, failed, manifest_path, number_of, record::Record};
use crate::{
    control::manifest::JobManifest,
    model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError},
};

/// Whether a directory is one of a job's checkpoints, also if they are gone.
pub(in crate::control) fn is_in(disk: &dyn Disk, root: &Path) -> bool {
    disk.list(&root.join(MANIFESTS)).is_ok() || was_complete(disk, root).is_some()
}

/// The newest checkpoint of which the directory says, apart from its manifest, that it was complete.
fn was_complete(disk: &dyn Disk, root: &Path) -> Option<CheckpointId> {
    Record::read(disk, root).ok()?.newest()
}

/// The manifests of all checkpoints in a job's directory, the oldest first; an error in place of one whose files are not all there.
///
/// # Errors
/// As [`manifests`].
pub(in crate::control) fn list(
    disk: &Arc<dyn Disk>,
    root: &Path,
) -> Result<Vec<Result<JobManifest, CheckpointError>>, CheckpointError> {
    let has_its_files = |manifest: JobManifest| {
        check_parts(disk, &manifest).map_err(|error| {
            let file = manifest_path(root, manifest.checkpoint);
            CheckpointError::Manifest { file, what: error.to_string() }
        })?;
        Ok(manifest)
    };
    Ok(manifests(disk, root)?.into_iter().map(|read| read.and_then(has_its_files)).collect())
}

/// The manifests of all checkpoints in a job's directory, the oldest first, whatever has become of their files.
///
/// # Errors
/// When the directory cannot be read, and when there were some and none is left, as the job would say.
pub(in crate::control) fn manifests(
    disk: &Arc<dyn Disk>,
    root: &Path,
) -> Result<Vec<Result<JobManifest, CheckpointError>>, CheckpointError> {
    let manifests = root.join(MANIFESTS);
    let listed = disk.list(&manifests).map_err(failed("list", &manifests));
    let is_none = listed.as_ref().map_or(true, |files| files.iter().all(|file| number_of(file).is_none()));
    if let Some(checkpoint) = was_complete(&**disk, root).filter(|_| is_none) {
        return Err(CheckpointError::Lost { directory: root.to_owned(), checkpoint });
    }
    let mut files = listed?;
    files.retain(|file| number_of(file).is_some());
    Ok(files.iter().map(|file| JobManifest::read(&**disk, file, root)).collect())
}

/// Looks whether all keyed state that a manifest names is there.
///
/// # Errors
/// When it is not.
pub(in crate::control) fn check_parts(
    disk: &Arc<dyn Disk>,
    manifest: &JobManifest,
) -> Result<(), StateError> {
    let groups = 0..manifest.max_parallelism;
    manifest.operators.values().try_for_each(|operator| {
        Parts::open(Arc::clone(disk), &operator.manifests(), groups.clone()).map(drop)
    })
}

/// Why a checkpoint cannot be used.
pub(in crate::control) enum Unusable {
    /// What is wrong with it.
    Damaged(String),
    /// It may be whole: it is of a newer version, or the disk did not let it be read. To go on from the one before would say rows again
    /// that sinks have committed.
    Unread(CheckpointError),
}

impl Unusable {
    pub(super) fn of(error: CheckpointError, say: impl FnOnce(&CheckpointError) -> String) -> Self {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, UnexpectedEof};
        // Something else than the file is there, or less of it: that stays so.
        let is_lasting = |kind| matches!(kind, NotFound | UnexpectedEof | NotADirectory | IsADirectory);
        match &error {
            CheckpointError::NewerVersion { .. } => Self::Unread(error),
            CheckpointError::State(StateError::Io { source, .. }) if !is_lasting(source.kind()) => {
                Self::Unread(error)
            }
            _ => Self::Damaged(say(&error)),
        }
    }
}
