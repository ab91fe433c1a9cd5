//! How much of each file a checkpoint knows, for sinks that write rows into place as they come.
//!
//! At a barrier a writer says how long its file is; that much is made durable before the checkpoint is complete. When the job
//! goes on from it, its files are cut to these lengths before they are opened again: rows behind them, the last of which may be
//! torn, come once more. So a file has each row once; who reads it meanwhile may see some of them twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tidemill_engine::{
    model::{checkpoint::Committable, sink::Committer, source::BoxError},
    platform::files::{cut_output, sync_names, sync_output},
};

use super::{error::SinkError, file::Target};

/// How long the file of one subtask was, as a checkpoint keeps it: JSON, of which later versions may add fields.
#[derive(Deserialize, Serialize)]
struct PartLength {
    part: usize,
    bytes: u64,
}

/// The committable that says how long the file of a subtask is.
pub(super) fn committable(part: usize, bytes: u64) -> Committable {
    // Two numbers have a form in JSON.
    serde_json::to_vec(&PartLength { part, bytes }).unwrap_or_default()
}

/// The greatest length of each part: what was carried over from a checkpoint that failed is less.
fn lengths(committables: &[Committable]) -> Result<BTreeMap<usize, u64>, SinkError> {
    let mut lengths = BTreeMap::new();
    for committable in committables {
        let PartLength { part, bytes } = serde_json::from_slice(committable)
            .map_err(|error| SinkError::OtherCommittable { reason: error.to_string() })?;
        let longest = lengths.entry(part).or_insert(bytes);
        *longest = bytes.max(*longest);
    }
    Ok(lengths)
}

/// What the files had when the checkpoint was taken that the job goes on from; empty in a fresh start. Shared by a sink and its
/// committer.
#[derive(Clone, Debug, Default)]
pub(super) struct Lengths(Arc<Mutex<BTreeMap<usize, u64>>>);

impl Lengths {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the job goes on from a checkpoint that knows the sink's files.
    pub(super) fn go_on(&self) -> bool {
        !self.lock().is_empty()
    }
}

/// Makes sure of what a checkpoint knows of the files, and cuts them to that.
pub(super) struct LengthCommitter {
    target: Target,
    lengths: Lengths,
    /// Parts whose names are durable.
    named: BTreeSet<usize>,
}

impl LengthCommitter {
    pub(super) fn new(target: Target, lengths: Lengths) -> Self {
        Self { target, lengths, named: BTreeSet::new() }
    }
}

impl Committer for LengthCommitter {
    fn secure(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        for part in lengths(committables)?.into_keys() {
            let path = self.target.path(part);
            sync_output(&path)?;
            if !self.named.contains(&part) {
                sync_names(path.parent().unwrap_or(Path::new("")))?;
                self.named.insert(part);
            }
        }
        Ok(())
    }

    fn commit(&mut self, _committables: &[Committable]) -> Result<(), BoxError> {
        Ok(())
    }

    fn abort(&mut self, _committables: &[Committable]) -> Result<(), BoxError> {
        Ok(())
    }

    fn recover(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        let lengths = lengths(committables)?;
        if !lengths.is_empty() {
            for part in self.target.parts()? {
                // All of a part that the checkpoint does not know came behind it.
                cut_output(&self.target.path(part), lengths.get(&part).copied().unwrap_or(0))?;
            }
        }
        *self.lengths.lock() = lengths;
        Ok(())
    }
}
