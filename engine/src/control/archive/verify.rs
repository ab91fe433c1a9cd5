//! Looks whether a remote store holds all that its checkpoints, or its savepoint, need.

use std::collections::BTreeSet;

use super::{
    Counted, Log,
    entry::{BLOCK_BYTES_MAX, BLOCKS, Block, Kept},
    retry::{failed, patiently},
    savepoint::{SAVEPOINT_BLOCKS, Saved},
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
    /// Blocks that nothing needs: of what is under way, or garbage. The next start of the job removes those of checkpoints.
    pub unneeded: usize,
    /// The number of the checkpoint that a savepoint is of, or what is wrong with it; `None` when there is none.
    pub savepoint: Option<Result<CheckpointId, String>>,
    /// Blocks that were read.
    pub blocks: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Verified {
    /// Whether something is there, and all of it is whole.
    pub fn is_sound(&self) -> bool {
        let is_there = !self.whole.is_empty() || self.savepoint.is_some();
        let is_whole = self.broken.is_empty() && self.unreadable.is_empty();
        is_there && is_whole && !matches!(self.savepoint, Some(Err(_)))
    }
}

/// Reads every block of every checkpoint, and of a savepoint, in a remote store, and compares checksums.
///
/// ```
/// use tidemill_engine::{control::archive::verify, platform::{SimPlatform, remote::MemoryStore}};
///
/// let verified = verify(&MemoryStore::default(), &SimPlatform::new(0))?;
/// assert!(verified.whole.is_empty() && verified.savepoint.is_none() && !verified.is_sound());
/// # Ok::<(), tidemill_engine::model::checkpoint_error::CheckpointError>(())
/// ```
///
/// # Errors
/// When the store cannot be read, or what it holds is of a newer version.
pub fn verify(store: &dyn RemoteStore, platform: &dyn Platform) -> Result<Verified, CheckpointError> {
    let log = Log::read(store, platform, &|| false)?;
    let mut verified =
        Verified { unreadable: log.damaged.iter().map(ToString::to_string).collect(), ..Verified::default() };
    let mut needed = BTreeSet::new();
    let reader = Reader { store, platform };
    for Counted { kept, .. } in log.checkpoints().into_values().rev() {
        match reader.broken(&kept, &Block::key, &mut verified)? {
            None => verified.whole.push(kept.checkpoint),
            Some(what) => verified.broken.push((kept.checkpoint, what)),
        }
        needed.extend(kept.keys());
    }
    verified.savepoint = match Saved::find(store, platform, &|| false) {
        Ok(None) => None,
        Ok(Some(saved)) => {
            let key = |block: &Block| saved.key(block);
            needed.extend(saved.kept.blocks().map(key));
            let broken = match saved.manifest(&store.place(), "".as_ref()) {
                Ok(_) => reader.broken(&saved.kept, &key, &mut verified)?,
                Err(error) => Some(error.to_string()),
            };
            Some(broken.map_or(Ok(saved.kept.checkpoint), Err))
        }
        Err(error @ (CheckpointError::Manifest { .. } | CheckpointError::NoSavepoint { .. })) => {
            Some(Err(error.to_string()))
        }
        Err(error) => return Err(error),
    };
    for place in [BLOCKS, SAVEPOINT_BLOCKS] {
        let found = patiently(platform, &|| false, || store.list(place));
        let found = found.map_err(failed(store, "list blocks"))?;
        verified.unneeded += found.iter().filter(|key| !needed.contains(*key)).count();
    }
    Ok(verified)
}

struct Reader<'a> {
    store: &'a dyn RemoteStore,
    platform: &'a dyn Platform,
}

impl Reader<'_> {
    /// What is wrong with the first block that is not as it was put, if there is one.
    fn broken(
        &self,
        kept: &Kept,
        key: &dyn Fn(&Block) -> String,
        verified: &mut Verified,
    ) -> Result<Option<String>, CheckpointError> {
        for block in kept.blocks() {
            let names = [key(block)];
            let read = patiently(self.platform, &|| false, || self.store.get(&names, BLOCK_BYTES_MAX));
            match read {
                Ok(read) if read.first().is_some_and(|bytes| block.is(bytes)) => {
                    verified.blocks += 1;
                    verified.bytes += block.bytes;
                }
                Ok(_) => return Ok(Some(format!("the checksum of {} is wrong", names[0]))),
                Err(error @ (RemoteError::Absent { .. } | RemoteError::TooLong { .. })) => {
                    return Ok(Some(error.to_string()));
                }
                Err(error) => return Err(failed(self.store, "read blocks")(error)),
            }
        }
        Ok(None)
    }
}
