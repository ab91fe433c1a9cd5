//! Savepoints: a checkpoint whole in a directory of its own, which shares nothing with the job.
//!
//! ```text
//! DIRECTORY/savepoint               the manifest: there only if all else is
//!           state/OPERATOR/SUBTASK/   the files of one store, copied and verified
//! ```
//!
//! One in a remote store ([`archive`](super::archive)) has the same files, and is fetched to such a directory.

mod origin;
mod stores;

use std::path::{Path, PathBuf};

use tidemill_storage::snapshot::{
    disk::{Disk, read_whole},
    export::{ExportForm, export},
};

pub(super) use self::{
    origin::Origin,
    stores::{Stores, Target},
};
use super::{
    library::write_manifest,
    manifest::{JobManifest, MANIFEST_BYTES_MAX, ManifestKind},
};
use crate::model::checkpoint_error::CheckpointError;

/// Name of a savepoint's manifest.
const MANIFEST: &str = "savepoint";

/// Copies a checkpoint to `target`; returns that directory.
///
/// # Errors
/// Of the disk, when a file of the checkpoint is damaged, and when the directory holds a savepoint already. Files may then
/// be left in it that no manifest names.
pub(super) fn write(
    disk: &dyn Disk,
    mut manifest: JobManifest,
    target: &Path,
) -> Result<PathBuf, CheckpointError> {
    let file = target.join(MANIFEST);
    if is_in(disk, target) {
        let source = std::io::ErrorKind::AlreadyExists.into();
        return Err(CheckpointError::Io { doing: "write a savepoint over", file, source });
    }
    manifest.kind = ManifestKind::Savepoint;
    for operator in manifest.operators.values_mut() {
        for part in operator.subtasks.iter_mut().filter_map(|subtask| subtask.manifest.as_mut()) {
            let store = part.parent().unwrap_or(Path::new("")).to_owned();
            let own = target.join(place_of(part));
            *part = export(disk, &store, manifest.checkpoint, &own, ExportForm::Copy)?.manifest;
        }
    }
    sync_names(disk, &manifest, target)?;
    write_manifest(disk, &file, &manifest.encode(target))?;
    Ok(target.to_owned())
}

/// The directory within a savepoint of the store that a file of the job is in.
pub(super) fn place_of(file: &Path) -> PathBuf {
    // DIRECTORY/state/ATTEMPT/OPERATOR/SUBTASK/part: the last two directories name a store within its attempt.
    let store = file.parent().unwrap_or(Path::new(""));
    let subtask = store.file_name().unwrap_or_default();
    let id = store.parent().and_then(Path::file_name).unwrap_or_default();
    Path::new("state").join(id).join(subtask)
}

/// Writes the manifest of a savepoint whose files were brought to `directory`. It has these bytes.
///
/// # Errors
/// Of the disk.
pub(super) fn complete(
    disk: &dyn Disk,
    manifest: &JobManifest,
    bytes: &[u8],
    directory: &Path,
) -> Result<(), CheckpointError> {
    sync_names(disk, manifest, directory)?;
    let file = directory.join(MANIFEST);
    if read_whole(disk, &file, MANIFEST_BYTES_MAX).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    write_manifest(disk, &file, bytes)
}

fn sync_names(disk: &dyn Disk, manifest: &JobManifest, target: &Path) -> Result<(), CheckpointError> {
    let failed = |directory: &Path| {
        let file = directory.to_owned();
        move |source| CheckpointError::Io { doing: "sync", file, source }
    };
    disk.create_directory(target).map_err(failed(target))?;
    for part in manifest.operators.values().flat_map(|operator| operator.manifests()) {
        let above = part.ancestors().skip(2).take_while(|path| path.starts_with(target));
        for directory in above {
            disk.sync_directory(directory).map_err(failed(directory))?;
        }
    }
    Ok(())
}

/// Whether a directory holds a savepoint.
pub(super) fn is_in(disk: &dyn Disk, directory: &Path) -> bool {
    disk.open(&directory.join(MANIFEST)).is_ok()
}

/// Reads the savepoint in a directory.
///
/// # Errors
/// When it is not there whole, or of a newer version.
pub(super) fn read(disk: &dyn Disk, directory: &Path) -> Result<JobManifest, CheckpointError> {
    JobManifest::read(disk, &directory.join(MANIFEST), directory)
}
