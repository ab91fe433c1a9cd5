//! Says what a remote store holds, without reading any state.

use std::path::Path;

use super::{Counted, Damaged, Log, savepoint::Saved};
use crate::{
    control::manifest::{JobManifest, Unreadable},
    model::checkpoint_error::CheckpointError,
    platform::{Platform, remote::RemoteStore},
};

/// What is in a remote store. Paths are relative to the directory that it would be fetched to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listed {
    /// The checkpoints that count, the oldest first, and what is wrong with those that cannot be read.
    pub checkpoints: Vec<Result<JobManifest, CheckpointError>>,
    /// The savepoint, or what is wrong with it; `None` when there is none.
    pub savepoint: Option<Result<JobManifest, CheckpointError>>,
}

/// Lists the checkpoints in a remote store, and the savepoint. State is not looked at: see [`verify`](super::verify).
///
/// ```
/// use tidemill_engine::{control::archive::list, platform::{SimPlatform, remote::MemoryStore}};
///
/// let listed = list(&MemoryStore::default(), &SimPlatform::new(0))?;
/// assert!(listed.checkpoints.is_empty() && listed.savepoint.is_none());
/// # Ok::<(), tidemill_engine::model::checkpoint_error::CheckpointError>(())
/// ```
///
/// # Errors
/// When the store cannot be read, or its log is of a newer version.
pub fn list(store: &dyn RemoteStore, platform: &dyn Platform) -> Result<Listed, CheckpointError> {
    let (never, place, root): (&dyn Fn() -> bool, _, _) = (&|| false, store.place(), Path::new(""));
    let log = Log::read(store, platform, never)?;
    let unreadable = |damaged: &Damaged| {
        Err(CheckpointError::Manifest { file: damaged.file.clone(), what: damaged.what.clone() })
    };
    let mut checkpoints: Vec<_> = log.damaged.iter().map(unreadable).collect();
    checkpoints.extend(log.checkpoints().into_values().map(|Counted { kept, .. }| {
        JobManifest::decode(kept.manifest.as_bytes(), root).map_err(|unreadable| {
            let file = Path::new(&place).join(format!("checkpoint {}", kept.checkpoint));
            match unreadable {
                Unreadable::Newer(found) => CheckpointError::NewerVersion { file, found, known: 1 },
                Unreadable::Damaged(what) => CheckpointError::Manifest { file, what },
            }
        })
    }));
    let savepoint = match Saved::find(store, platform, never) {
        Err(error @ CheckpointError::Remote { .. }) => return Err(error),
        found => found.and_then(|saved| saved.map(|saved| saved.manifest(&place, root)).transpose()),
    };
    Ok(Listed { checkpoints, savepoint: savepoint.transpose() })
}
