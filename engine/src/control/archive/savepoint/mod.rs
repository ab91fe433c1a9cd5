//! Savepoints in a remote store: whole by themselves under a prefix of their own.
//!
//! ```text
//! savepoint                                                the manifest: there only if all else is
//! savepoint-blocks/00c3f1a9d2b7e604/00000000000000000042   up to 8 MiB of a file: the 42nd block
//! ```
//!
//! The manifest is text as an entry of the log is: a line `tidemill-savepoint 1 CHECKSUM LENGTH`, and JSON behind it. The directory of the
//! blocks has a random name, which the manifest says: of several that write to one prefix, none touches what another one has put. In the
//! place of a manifest there may be the line `tidemill-savepoint-given-up 1 CHECKSUM LENGTH` and that name: of one that failed, and whose
//! manifest must not come late.

mod saver;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use tidemill_storage::snapshot::disk::Disk;

pub(in crate::control) use saver::Saver;

use super::{
    entry::{Block, ENTRY_BYTES_MAX, Kept, LOG},
    fetch::{Fetcher, Trouble},
    retry::{failed, patiently},
};
use crate::{
    control::{
        framed::{frame, unframe},
        manifest::{JobManifest, ManifestKind, Unreadable},
        savepoint,
    },
    model::{checkpoint_error::CheckpointError, error::Error},
    platform::{
        Platform,
        remote::{RemoteError, RemoteStore},
    },
};

const MAGIC: &str = "tidemill-savepoint";
/// First word of what takes the place of a manifest that must not come any more.
const GIVEN_UP: &str = "tidemill-savepoint-given-up";
const VERSION: u32 = 1;

/// Name of the manifest.
pub(super) const SAVEPOINT: &str = "savepoint";
/// Where blocks are.
pub(super) const SAVEPOINT_BLOCKS: &str = "savepoint-blocks/";
/// Digits of the name of a savepoint's blocks.
const ID_DIGITS: usize = 16;

/// What the manifest of a savepoint says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::control) struct Saved {
    /// The directory of its blocks: a random number in hexadecimal.
    id: String,
    /// Its files, and the manifest that a directory with them has.
    #[serde(flatten)]
    pub(super) kept: Kept,
}

/// Whether the blocks of a savepoint can be in a directory of this name.
pub(in crate::control) fn is_id(name: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    name.len() == ID_DIGITS && name.iter().all(is_digit)
}

/// Name of a block.
fn block_key(id: &str, number: u64) -> String {
    format!("{SAVEPOINT_BLOCKS}{id}/{number:020}")
}

/// What takes the place of the manifest of a savepoint that was given up.
fn given_up(id: &str) -> Vec<u8> {
    frame(GIVEN_UP, VERSION, id.as_bytes())
}

impl Saved {
    fn encode(&self) -> Vec<u8> {
        // Strings, numbers and lists of them cannot fail to be written.
        frame(MAGIC, VERSION, &serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let json = unframe(MAGIC, VERSION, bytes)?;
        let saved: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if !is_id(saved.id.as_bytes()) {
            return Err(format!("its blocks are said to be in `{}`", saved.id).into());
        }
        saved.kept.check()?;
        Ok(saved)
    }

    /// Reads the manifest of the savepoint in a store.
    ///
    /// # Errors
    /// When there is none, it is damaged or of a newer version, or the store cannot be reached.
    pub(in crate::control) fn read(
        store: &dyn RemoteStore,
        platform: &dyn Platform,
        enough: &dyn Fn() -> bool,
    ) -> Result<Self, CheckpointError> {
        if let Some(saved) = Self::find(store, platform, enough)? {
            return Ok(saved);
        }
        let has_log = holds_checkpoints(store, platform, enough)?;
        let what = if has_log {
            "it holds the checkpoints of a job. Set `remote` to it to go on from them, or take a savepoint of that job to another \
             place"
        } else {
            "it has no object `savepoint`. Check the URL, and that the savepoint was taken without an error"
        };
        Err(CheckpointError::NoSavepoint { place: store.place(), what: what.to_owned() })
    }

    /// As [`read`](Self::read); `None` when there is no object of that name.
    pub(super) fn find(
        store: &dyn RemoteStore,
        platform: &dyn Platform,
        enough: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, CheckpointError> {
        let names = [SAVEPOINT.to_owned()];
        let file = Path::new(&store.place()).join(SAVEPOINT);
        let bytes = match patiently(platform, enough, || store.get(&names, ENTRY_BYTES_MAX)) {
            Ok(mut read) => read.pop().unwrap_or_default(),
            Err(RemoteError::Absent { .. }) => return Ok(None),
            Err(error @ RemoteError::TooLong { .. }) => {
                return Err(CheckpointError::Manifest { file, what: error.to_string() });
            }
            Err(error) => return Err(failed(store, "read a savepoint")(error)),
        };
        if unframe(GIVEN_UP, VERSION, &bytes).is_ok() {
            let what =
                "one was begun, failed and was given up. Take another one, to another place".to_owned();
            return Err(CheckpointError::NoSavepoint { place: store.place(), what });
        }
        let saved = Self::decode(&bytes).map_err(|unreadable| match unreadable {
            Unreadable::Newer(found) => CheckpointError::NewerVersion { file, found, known: VERSION },
            Unreadable::Damaged(what) => CheckpointError::Manifest { file, what },
        });
        saved.map(Some)
    }

    /// The name of its blocks: no other savepoint has it.
    pub(in crate::control) fn id(&self) -> &str {
        &self.id
    }

    /// The object of one of its blocks.
    pub(super) fn key(&self, block: &Block) -> String {
        block_key(&self.id, block.number)
    }

    /// The manifest that it has in `directory`. `place` is where it is read from.
    ///
    /// # Errors
    /// When that is not the manifest of a savepoint with these files.
    pub(super) fn manifest(&self, place: &str, directory: &Path) -> Result<JobManifest, CheckpointError> {
        let file = Path::new(place).join(SAVEPOINT);
        let manifest = match JobManifest::decode(self.kept.manifest.as_bytes(), directory) {
            Ok(manifest) => manifest,
            Err(Unreadable::Newer(found)) => {
                return Err(CheckpointError::NewerVersion { file, found, known: VERSION });
            }
            Err(Unreadable::Damaged(what)) => return Err(CheckpointError::Manifest { file, what }),
        };
        let files: BTreeSet<_> = self.kept.files.iter().map(|file| directory.join(&file.path)).collect();
        let mut parts = manifest.operators.values().flat_map(|operator| operator.manifests());
        let is_its_own = manifest.checkpoint == self.kept.checkpoint
            && manifest.kind == ManifestKind::Savepoint
            && parts.all(|part| files.contains(&part));
        if is_its_own {
            return Ok(manifest);
        }
        let what = "the manifest in it is of something else".to_owned();
        Err(CheckpointError::Manifest { file, what })
    }

    /// Brings it to `directory`, where it is then as if it had been written there. What is there whole is not fetched.
    ///
    /// # Errors
    /// When it is not whole in the store, the store cannot be reached, or of the disk.
    pub(in crate::control) fn fetch(
        &self,
        store: &dyn RemoteStore,
        platform: &dyn Platform,
        directory: &Path,
        enough: &dyn Fn() -> bool,
    ) -> Result<(), CheckpointError> {
        let (place, disk): (String, Arc<dyn Disk>) = (store.place(), platform.disk());
        let manifest = self.manifest(&place, directory)?;
        let fetcher = Fetcher {
            store,
            platform,
            disk: &*disk,
            root: directory,
            key: &|block| self.key(block),
            doing: "read blocks of a savepoint",
        };
        fetcher.bring(&self.kept.files, true, enough).map_err(|trouble| match trouble {
            Trouble::Lost(what) => {
                CheckpointError::Manifest { file: Path::new(&place).join(SAVEPOINT), what }
            }
            Trouble::Stop(error) => error,
        })?;
        savepoint::complete(&*disk, &manifest, self.kept.manifest.as_bytes(), directory)
    }
}

/// Whether a store holds checkpoints of a job, or claims.
fn holds_checkpoints(
    store: &dyn RemoteStore,
    platform: &dyn Platform,
    enough: &dyn Fn() -> bool,
) -> Result<bool, CheckpointError> {
    let found = patiently(platform, enough, || store.list(LOG)).map_err(failed(store, "list objects"))?;
    Ok(!found.is_empty())
}

/// Looks whether a savepoint may be written to a store.
///
/// # Errors
/// When there is one already, or checkpoints, and when the store cannot be reached.
pub(in crate::control) fn look(
    store: &dyn RemoteStore,
    platform: &dyn Platform,
    enough: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let refused = |found: &str| {
        let (what, why) = ("cannot take a savepoint".to_owned(), format!("{} holds {found}", store.place()));
        Err(Error::config(what, why, "name a place in which nothing else is".to_owned()))
    };
    match Saved::find(store, platform, enough) {
        Ok(None) => {}
        Err(CheckpointError::Remote { place, source, .. }) => {
            return Err(CheckpointError::Remote { doing: "take a savepoint", place, source }.into());
        }
        Err(CheckpointError::NoSavepoint { .. }) => return refused("what a savepoint that failed has left"),
        // Whatever is wrong with it, it is there.
        Ok(Some(_)) | Err(_) => return Err(CheckpointError::SavepointTaken { place: store.place() }.into()),
    }
    if holds_checkpoints(store, platform, enough)? {
        return refused("the checkpoints of a job");
    }
    Ok(())
}
