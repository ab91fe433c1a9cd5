//! Savepoints: a checkpoint whole in a directory of its own, which shares nothing with the job.
//!
//! ```text
//! DIRECTORY/savepoint               the manifest: there only if all else is
//!           state/OPERATOR/SUBTASK/   the files of one store, copied and verified
//! ```
//!
//! One in a remote store ([`archive`](super::archive)) has the same files, and is fetched to such a directory.

mod origin;
mod source;
mod stores;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
};

use tidemill_storage::snapshot::disk::{Disk, read_whole};

pub(super) use self::{
    origin::Origin,
    source::Source,
    stores::{Stores, Target},
    writer::Writer,
};
use super::{
    library::write_manifest,
    manifest::{JobManifest, MANIFEST_BYTES_MAX},
};
use crate::model::checkpoint_error::CheckpointError;

/// Name of a savepoint's manifest.
const MANIFEST: &str = "savepoint";
/// Name of the file by which it is found out whether one can be written.
const PROBE: &str = "savepoint.probe";

/// Looks whether a savepoint can be written to a directory, and makes it: behind the barrier it would be too late to say no.
///
/// # Errors
/// When it holds one already, or nothing can be written there.
pub(super) fn look(disk: &dyn Disk, target: &Path) -> Result<(), CheckpointError> {
    if is_in(disk, target) {
        return Err(taken(target));
    }
    let failed = |doing, file: &Path| {
        let file = file.to_owned();
        move |source| CheckpointError::Io { doing, file, source }
    };
    disk.create_directory(target).map_err(failed("create", target))?;
    let probe = target.join(PROBE);
    disk.write_whole(&probe, b"").map_err(failed("write a savepoint in", target))?;
    disk.remove(&probe).map_err(failed("remove", &probe))
}

/// What is said where there is a savepoint already.
fn taken(target: &Path) -> CheckpointError {
    CheckpointError::SavepointTaken { place: target.display().to_string() }
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

/// Makes sure that the names of a savepoint's directories, and of those above it, outlive a power cut.
fn sync_names(disk: &dyn Disk, manifest: &JobManifest, target: &Path) -> Result<(), CheckpointError> {
    let failed = |directory: &Path| {
        let file = directory.to_owned();
        move |source| CheckpointError::Io { doing: "sync", file, source }
    };
    disk.create_directory(target).map_err(failed(target))?;
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    for above in target.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match disk.sync_directory(above) {
            // One that this user may pass through and not look into was not made by it, nor was one that the system itself has made.
            Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported) => {}
            synced => synced.map_err(failed(above))?,
        }
    }
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
    // A directory of that name can be opened as well: one in which somebody keeps savepoints.
    let is_directory =
        |read: io::Result<()>| matches!(read, Err(error) if error.kind() == io::ErrorKind::IsADirectory);
    disk.open(&directory.join(MANIFEST)).is_ok_and(|file| !is_directory(file.read_at(0, &mut [0])))
}

/// Reads the savepoint in a directory.
///
/// # Errors
/// When it is not there whole, or of a newer version.
pub(super) fn read(disk: &dyn Disk, directory: &Path) -> Result<JobManifest, CheckpointError> {
    Source::savepoint(directory).read(disk)
}
