//! Looks whether a remote store holds all that its checkpoints need.

use std::collections::BTreeSet;

use tidemill_storage::snapshot::format::checksum;

use super::{
    Counted, Log,
    entry::{BLOCK_BYTES_MAX, BLOCKS, Kept},
    retry::failed,
};
use crate::{
    model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError},
    platform::{
        Platform,
        remote::{RemoteError, RemoteStore},
    },
};

/// What a remote store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Checkpoints that are whole, the newest first.
    pub whole: Vec<CheckpointId>,
    /// Checkpoints that are not, the newest first, and what is wrong with each.
    pub broken: Vec<(CheckpointId, String)>,
    /// Entries that cannot be read, and why.
    pub unreadable: Vec<String>,
    /// Objects that no checkpoint needs: of one that is under way, or garbage that the next start removes.
    pub unneeded: usize,
}

/// Reads every block of every checkpoint in a remote store, and compares checksums.
///
/// # Errors
/// When the store cannot be read.
pub fn verify(store: &dyn RemoteStore, platform: &dyn Platform) -> Result<Verified, CheckpointError> {
    let log = Log::read(store, platform, &|| false)?;
    let mut verified = Verified { unreadable: log.damaged.clone(), ..Verified::default() };
    let mut needed = BTreeSet::new();
    for Counted { kept, .. } in log.checkpoints().into_values().rev() {
        match broken(store, &kept)? {
            None => verified.whole.push(kept.checkpoint),
            Some(what) => verified.broken.push((kept.checkpoint, what)),
        }
        needed.extend(kept.keys());
    }
    let blocks = store.list(BLOCKS).map_err(failed(store, "list blocks"))?;
    verified.unneeded = blocks.iter().filter(|key| !needed.contains(*key)).count();
    Ok(verified)
}

fn broken(store: &dyn RemoteStore, kept: &Kept) -> Result<Option<String>, CheckpointError> {
    for block in kept.files.iter().flat_map(|file| &file.blocks) {
        match store.get(&[block.key()], BLOCK_BYTES_MAX) {
            Ok(read) if read.first().is_some_and(|bytes| checksum(bytes) == block.checksum) => {}
            Ok(_) => return Ok(Some(format!("the checksum of {} is wrong", block.key()))),
            Err(error @ (RemoteError::Absent { .. } | RemoteError::TooLong { .. })) => {
                return Ok(Some(error.to_string()));
            }
            Err(error) => return Err(failed(store, "read blocks")(error)),
        }
    }
    Ok(None)
}
