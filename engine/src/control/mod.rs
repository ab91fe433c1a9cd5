//! The control plane: what happens to a job as a whole. It speaks with the workers through
//! [`JobShared`](crate::model::shared::JobShared) only and never sees a record.
//!
//! ```text
//! JobHandle ──asks──▶ Board ◀──tells── Supervisor: one attempt after the other
//!                       ▲                  │ between attempts          ▲
//!                       └── Coordinator ◀──┴──▶ Vault: Library (the directory of checkpoints), Commits
//!                           of one attempt
//!                              └── Copier ──▶ remote store (see [`archive`])
//! ```

pub mod archive;
mod board;
mod commits;
mod coordinator;
mod framed;
pub mod handle;
mod library;
pub mod manifest;
mod non_restored;
pub mod remote;
mod restart;
mod savepoint;
pub(crate) mod supervisor;
mod vault;
pub mod verify;
pub(crate) mod works;

use std::{path::Path, sync::Arc};

use tidemill_storage::snapshot::disk::{Disk, os::OsDisk};

use crate::model::checkpoint_error::CheckpointError;

/// The manifests of all checkpoints in the directory of a job, the oldest first, and what is wrong with those that cannot be read
/// or whose files are not all there. The files themselves are not read through: [`verify`] does that.
///
/// # Errors
/// When the directory cannot be read, and when it says that there were checkpoints and none is left.
pub fn list_checkpoints(
    directory: &Path,
) -> Result<Vec<Result<manifest::JobManifest, CheckpointError>>, CheckpointError> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    library::list(&disk, directory)
}

/// What is in a directory: the checkpoints of a job, as [`list_checkpoints`] says, a savepoint, or both.
///
/// # Errors
/// As [`list_checkpoints`].
pub fn list_directory(directory: &Path) -> Result<archive::Listed, CheckpointError> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    let mut listed = archive::Listed::default();
    if savepoint::is_in(&*disk, directory) {
        listed.savepoint = Some(savepoint::read(&*disk, directory));
    }
    if library::is_in(&*disk, directory) {
        listed.checkpoints = library::list(&disk, directory)?;
    }
    Ok(listed)
}

/// The manifest of a savepoint.
///
/// # Errors
/// When it is not there whole, or of a newer version.
pub fn read_savepoint(directory: &Path) -> Result<manifest::JobManifest, CheckpointError> {
    savepoint::read(&OsDisk::default(), directory)
}
