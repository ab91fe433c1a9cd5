//! What is known of a job's checkpoints apart from their manifests, so that a directory that has lost those is not taken for a new one.
//!
//! It is one small file in the directory of the job, `complete-00000000000000000042`: its name has the number of the newest complete
//! checkpoint, its contents say in JSON what the job began with. It is written, and made durable, with the first checkpoint of the job; with
//! each later one it gets another name, and nothing waits until that is durable. So what it says has happened, and after a power cut more may
//! have.

use std::path::{Path, PathBuf};

use tidemill_storage::snapshot::disk::{Disk, read_whole};

use super::{failed, write_manifest};
use crate::{
    control::manifest::Beginning,
    model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError},
};

/// What the file's name begins with.
const COMPLETE: &str = "complete-";
/// The place of a savepoint is not longer.
const BYTES_MAX: u64 = 1 << 16;

/// What was complete, up to now and in this directory.
#[derive(Default)]
pub(super) struct Record {
    newest: Option<CheckpointId>,
    beginning: Option<Beginning>,
}

fn path(root: &Path, checkpoint: CheckpointId) -> PathBuf {
    root.join(format!("{COMPLETE}{checkpoint:020}"))
}

/// The checkpoint that a file is named for, if it is such a file.
fn number_of(file: &Path) -> Option<CheckpointId> {
    file.file_name()?.to_str()?.strip_prefix(COMPLETE)?.parse().ok()
}

impl Record {
    /// What the directory `root` says.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) fn read(disk: &dyn Disk, root: &Path) -> Result<Self, CheckpointError> {
        let files = disk.list(root).map_err(failed("list", root))?;
        let Some(newest) = files.iter().filter_map(|file| number_of(file)).max() else {
            return Ok(Self::default());
        };
        // What it began with is only asked for where nothing else is left: a file that cannot be read says at least that there was something.
        let bytes = read_whole(disk, &path(root, newest), BYTES_MAX).unwrap_or_default();
        Ok(Self { newest: Some(newest), beginning: serde_json::from_slice(&bytes).ok().flatten() })
    }

    /// The newest checkpoint that was complete, as far as that is known.
    pub(super) fn newest(&self) -> Option<CheckpointId> {
        self.newest
    }

    /// What the job began with, as far as that is known.
    pub(super) fn beginning(&self) -> Option<&Beginning> {
        self.beginning.as_ref()
    }

    /// Takes note of a checkpoint that is complete, of a job with this beginning.
    ///
    /// # Errors
    /// Of the disk: then it is written anew with the next one.
    pub(super) fn note(
        &mut self,
        disk: &dyn Disk,
        root: &Path,
        checkpoint: CheckpointId,
        beginning: Option<&Beginning>,
    ) -> Result<(), CheckpointError> {
        let (former, is_same) = (self.newest, self.beginning.as_ref() == beginning);
        let newest = former.map_or(checkpoint, |former| former.max(checkpoint));
        let file = path(root, newest);
        match former {
            Some(former) if is_same && former == newest => return Ok(()),
            Some(former) if is_same => {
                self.newest = None;
                disk.rename(&path(root, former), &file).map_err(failed("rename", &file))?;
            }
            _ => {
                self.newest = None;
                // An option of a name has a form in JSON.
                let bytes = serde_json::to_vec(&beginning).unwrap_or_default();
                write_manifest(disk, &file, &bytes)?;
                if let Some(older) = former.filter(|former| *former != newest) {
                    let _left = disk.remove(&path(root, older));
                }
            }
        }
        *self = Self { newest: Some(newest), beginning: beginning.cloned() };
        Ok(())
    }

    /// Forgets all, durably: the checkpoints are about to be removed.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) fn forget(&mut self, disk: &dyn Disk, root: &Path) -> Result<(), CheckpointError> {
        let files = disk.list(root).map_err(failed("list", root))?;
        for file in files.iter().filter(|file| number_of(file).is_some()) {
            disk.remove(file).map_err(failed("remove", file))?;
        }
        *self = Self::default();
        disk.sync_directory(root).map_err(failed("sync", root))
    }
}
