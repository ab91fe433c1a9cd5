//! How much of each file a checkpoint knows, for sinks that write rows into place as they come; see the [committer](super::length_committer).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{self, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tidemill_engine::model::checkpoint::Committable;
use tidemill_storage::snapshot::format::checksum;

use super::{error::SinkError, failed, file::Target};

/// So many bytes before the end of a file tell it from others.
pub(super) const TAIL_BYTES: usize = 1 << 10;

/// How long the file of one subtask was, as a checkpoint keeps it: JSON, of which later versions may add fields.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct PartLength {
    pub(super) part: usize,
    pub(super) bytes: u64,
    /// Where it was.
    #[serde(default)]
    pub(super) path: Option<String>,
    /// Checksum of the [`TAIL_BYTES`] before its end.
    #[serde(default)]
    pub(super) tail: Option<u32>,
}

impl PartLength {
    /// Whether it was somewhere else.
    pub(super) fn is_elsewhere(&self, path: &Path) -> bool {
        self.path.as_ref().is_some_and(|other| *other != whole(path))
    }
}

/// A path, however it was written.
fn whole(path: &Path) -> String {
    path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// The greatest length of each part: what was carried over from a checkpoint that failed is less.
pub(super) fn longest(committables: &[Committable]) -> Result<BTreeMap<usize, PartLength>, SinkError> {
    let mut longest = BTreeMap::<usize, PartLength>::new();
    for committable in committables {
        let length: PartLength = serde_json::from_slice(committable)
            .map_err(|error| SinkError::OtherCommittable { reason: error.to_string() })?;
        if longest.get(&length.part).is_none_or(|known| known.bytes < length.bytes) {
            longest.insert(length.part, length);
        }
    }
    Ok(longest)
}

/// How many bytes of which file a checkpoint knows that has this, if it is of a sink that writes in place.
pub(crate) fn known_bytes(committable: &Committable) -> Option<(PathBuf, u64)> {
    let length: PartLength = serde_json::from_slice(committable).ok()?;
    Some((length.path?.into(), length.bytes))
}

/// What a file has.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    pub(super) bytes: u64,
    /// The last of them.
    pub(super) tail: Vec<u8>,
}

impl Extent {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Notes what was written behind it.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let new = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.tail.len() + new.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(new);
    }

    /// What a checkpoint keeps of it.
    pub(super) fn committable(&self, part: usize, path: &Path) -> Committable {
        let path = Some(whole(path));
        let length = PartLength { part, bytes: self.bytes, path, tail: Some(checksum(&self.tail)) };
        // Numbers and a text have a form in JSON.
        serde_json::to_vec(&length).unwrap_or_default()
    }
}

/// What the files have when they are opened. Shared by a sink and its committer.
#[derive(Clone, Debug, Default)]
pub(super) struct Lengths(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    found: BTreeMap<usize, Extent>,
    /// Those that could not be made durable. A second try would say that they are, and lie.
    broken: BTreeSet<usize>,
}

impl Lengths {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job goes on with these.
    pub(super) fn set(&self, found: BTreeMap<usize, Extent>) {
        *self.lock() = Files { found, broken: BTreeSet::new() };
    }

    /// A part could not be made durable.
    pub(super) fn note_broken(&self, part: usize) {
        self.lock().broken.insert(part);
    }

    /// What a part has when it is opened.
    pub(super) fn extent(&self, part: usize) -> Extent {
        self.lock().found.get(&part).cloned().unwrap_or_default()
    }

    /// What a checkpoint keeps of the parts that so many subtasks do not write; also of those that were emptied, which has to be durable.
    pub(super) fn of_others(&self, subtasks: usize, target: &Target) -> Vec<Committable> {
        let files = self.lock();
        let others = files.found.range(subtasks..);
        others.map(|(part, extent)| extent.committable(*part, &target.path(*part))).collect()
    }

    /// Fails if a part could not be made durable.
    pub(super) fn check(&self, part: usize, path: &Path) -> Result<(), SinkError> {
        if self.lock().broken.contains(&part) {
            let cause = "it could not be made durable before, and what it holds is unknown";
            return Err(failed(path)(io::Error::other(cause)));
        }
        Ok(())
    }
}
