//! Writes a savepoint to a remote store, one request after the other.
//!
//! ```text
//! begin ─▶ plan ─▶ blocks ─▶ savepoint ─▶ done
//!                   │           └── fails: its place is taken, unless it is there all the same ─▶ done
//!                   │                                     │
//!                   └── fails ────────────────────────────┴─▶ blocks are deleted ─▶ failed
//! ```
//!
//! **Invariants.** The manifest is put last, if there is none, so that the savepoint is there whole or not at all, and never takes the
//! place of another one. No block is deleted while the manifest is there or may still come: a put that failed may do so late. So its place is
//! taken first by a few words that say that the savepoint was given up; when that cannot be done, the blocks stay.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemill_storage::snapshot::disk::Disk;

use super::{ID_DIGITS, SAVEPOINT, Saved, block_key, given_up};
use crate::{
    control::{
        archive::{
            carrier::{Carrier, Step},
            entry::{ENTRY_BYTES_MAX, Kept, StoredFile},
            keeper::DELETED_MAX,
            pieces::{Batch, Names, Pieces, files_of, relative, text_of},
            retry::{Retry, Stuck, failed},
        },
        manifest::{JobManifest, ManifestKind},
        savepoint::place_of,
    },
    model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError},
    platform::{
        Nanos, Platform,
        remote::{RemoteError, RemoteStore},
    },
};

enum Stage {
    Plan(Box<JobManifest>),
    /// What was read and is to be put.
    Blocks(Batch),
    /// The manifest is to be put.
    Savepoint(Vec<u8>),
    /// It has failed, and the manifest may be there, or come.
    Revoke(Vec<u8>),
    /// It has failed, and these are to be deleted.
    Undo(Vec<String>),
}

struct Upload {
    checkpoint: CheckpointId,
    /// Its manifest, as it will be in the directory to which it is fetched.
    manifest: String,
    /// By their paths in the job's directory.
    files: BTreeMap<PathBuf, StoredFile>,
    pieces: Pieces,
    stage: Stage,
    retry: Retry,
    /// The manifest was put, and it is not known whether that came through.
    may_be_there: bool,
    /// Why it has failed.
    failure: Option<CheckpointError>,
}

/// Writes one savepoint. See the [module](self).
pub(in crate::control) struct Saver {
    store: Arc<dyn RemoteStore>,
    disk: Arc<dyn Disk>,
    root: PathBuf,
    id: String,
    /// Blocks that may be in the store have lesser numbers.
    next_block: u64,
    upload: Option<Upload>,
    /// How long the last step took in virtual time.
    took: Nanos,
}

impl Saver {
    /// For a job whose directory is `root`. The store was [looked](super::look) at.
    pub(in crate::control) fn new(
        store: Arc<dyn RemoteStore>,
        platform: &dyn Platform,
        root: PathBuf,
    ) -> Self {
        let id = format!("{:0width$x}", platform.unique(), width = ID_DIGITS);
        Self { store, disk: platform.disk(), root, id, next_block: 0, upload: None, took: 0 }
    }

    /// The next request; what became of the savepoint, if that is known now.
    fn advance(&mut self, upload: &mut Upload) -> Result<Option<Result<(), CheckpointError>>, Stuck> {
        match &mut upload.stage {
            Stage::Plan(manifest) => {
                let files = files_of(&*self.disk, manifest)?;
                upload.pieces = Pieces::of(&*self.disk, &files, |_| 0)?;
                for file in files {
                    let path = relative(Path::new(""), &within(&file))?;
                    upload.files.insert(file, StoredFile { path, blocks: Vec::new() });
                }
                manifest.kind = ManifestKind::Savepoint;
                let subtasks = manifest.operators.values_mut().flat_map(|operator| &mut operator.subtasks);
                for part in subtasks.filter_map(|subtask| subtask.manifest.as_mut()) {
                    *part = self.root.join(within(part));
                }
                upload.manifest = text_of(manifest, &self.root);
                self.next_stage(upload)?;
            }
            Stage::Blocks(batch) => {
                let put = self.store.put(&batch.objects);
                put.map_err(|error| Stuck::Remote("put blocks of a savepoint", error))?;
                for (path, block) in batch.blocks.drain(..) {
                    upload.files.entry(path).and_modify(|file| file.blocks.push(block));
                }
                self.next_stage(upload)?;
            }
            Stage::Savepoint(bytes) => match self.store.put_if_absent(SAVEPOINT, bytes) {
                Ok(()) => return Ok(Some(Ok(()))),
                // An earlier try may have come through.
                Err(RemoteError::Taken { .. }) if self.is_there(bytes)? => return Ok(Some(Ok(()))),
                Err(RemoteError::Taken { .. }) => {
                    let place = self.store.place();
                    return Err(CheckpointError::SavepointTaken { place }.into());
                }
                Err(error) => {
                    upload.may_be_there |= error.may_pass();
                    return Err(Stuck::Remote("put a savepoint", error));
                }
            },
            Stage::Revoke(bytes) => match self.store.put_if_absent(SAVEPOINT, &given_up(&self.id)) {
                Err(RemoteError::Taken { .. }) if self.is_there(bytes)? => return Ok(Some(Ok(()))),
                // Whoever has taken the place, the manifest never comes there.
                Ok(()) | Err(RemoteError::Taken { .. }) => upload.stage = Stage::Undo(self.blocks()),
                Err(error) => return Err(Stuck::Remote("give up a savepoint", error)),
            },
            Stage::Undo(left) => {
                let some = left.len().saturating_sub(DELETED_MAX);
                let deleted = self.store.delete(&left[some..]);
                deleted.map_err(|error| Stuck::Remote("delete blocks of a savepoint", error))?;
                left.truncate(some);
                if left.is_empty() {
                    return Ok(upload.failure.take().map(Err));
                }
            }
        }
        Ok(None)
    }

    /// Reads the next blocks, or turns to the manifest when all are there.
    fn next_stage(&mut self, upload: &mut Upload) -> Result<(), CheckpointError> {
        let (id, next) = (&self.id, &mut self.next_block);
        let names = Names { attempt: 0, next, key: &|block| block_key(id, block.number) };
        upload.stage = match upload.pieces.read(&*self.disk, names)? {
            Some(batch) => Stage::Blocks(batch),
            None => {
                let files = upload.files.values().cloned().collect();
                let (checkpoint, manifest) = (upload.checkpoint, std::mem::take(&mut upload.manifest));
                let kept = Kept { checkpoint, files, manifest };
                Stage::Savepoint(Saved { id: self.id.clone(), kept }.encode())
            }
        };
        Ok(())
    }

    /// Whether the manifest in the store is this one.
    fn is_there(&self, bytes: &[u8]) -> Result<bool, Stuck> {
        match self.store.get(&[SAVEPOINT.to_owned()], ENTRY_BYTES_MAX) {
            Ok(found) => Ok(found.first().is_some_and(|found| found == bytes)),
            Err(RemoteError::Absent { .. } | RemoteError::TooLong { .. }) => Ok(false),
            Err(error) => Err(Stuck::Remote("read a savepoint", error)),
        }
    }

    /// The names of all blocks that may be in the store.
    fn blocks(&self) -> Vec<String> {
        (0..self.next_block).map(|number| block_key(&self.id, number)).collect()
    }

    /// Turns to what is to be done about a failure.
    fn fail(&mut self, mut upload: Upload, error: CheckpointError) -> Step {
        let place = self.store.place();
        upload.stage = match upload.stage {
            Stage::Plan(_) => return Step::Done(Err(error)),
            Stage::Savepoint(bytes)
                if upload.may_be_there && !matches!(error, CheckpointError::SavepointTaken { .. }) =>
            {
                Stage::Revoke(bytes)
            }
            Stage::Blocks(_) | Stage::Savepoint(_) => Stage::Undo(self.blocks()),
            Stage::Revoke(_) => {
                tracing::warn!(%error, place, "the savepoint that failed may be there, or come: its blocks stay");
                return Step::Done(Err(upload.failure.unwrap_or(error)));
            }
            Stage::Undo(_) => {
                let id = &self.id;
                tracing::warn!(%error, place, id, "blocks of a savepoint that failed cannot be deleted");
                return Step::Done(Err(upload.failure.unwrap_or(error)));
            }
        };
        upload.retry = Retry::default();
        upload.failure.get_or_insert(error);
        self.upload = Some(upload);
        Step::Again
    }
}

/// The path of a file of the job in a savepoint.
fn within(file: &Path) -> PathBuf {
    place_of(file).join(file.file_name().unwrap_or_default())
}

impl Carrier for Saver {
    /// A checkpoint whose files are durable on disk, and stay there meanwhile.
    type Load = JobManifest;

    fn begin(&mut self, manifest: JobManifest) {
        debug_assert!(self.upload.is_none(), "one savepoint");
        self.upload = Some(Upload {
            checkpoint: manifest.checkpoint,
            manifest: String::new(),
            files: BTreeMap::new(),
            pieces: Pieces::default(),
            stage: Stage::Plan(Box::new(manifest)),
            retry: Retry::default(),
            may_be_there: false,
            failure: None,
        });
    }

    fn step(&mut self, cancelled: bool) -> Step {
        let Some(mut upload) = self.upload.take() else { return Step::Idle };
        self.took = 0;
        if cancelled && upload.failure.is_none() {
            let (checkpoint, place) = (upload.checkpoint, self.store.place());
            return self.fail(upload, CheckpointError::RemoteLate { checkpoint, place });
        }
        let is_request = !matches!(upload.stage, Stage::Plan(_));
        let advanced = self.advance(&mut upload);
        self.took = if is_request { self.store.took() } else { 0 };
        let error = match advanced {
            Ok(Some(outcome)) => return Step::Done(outcome),
            Ok(None) => {
                upload.retry = Retry::default();
                self.upload = Some(upload);
                return Step::Again;
            }
            Err(Stuck::Now(error)) => error,
            Err(Stuck::Remote(doing, error)) => match upload.retry.after(&error) {
                Some(wait) if !cancelled => {
                    self.upload = Some(upload);
                    return Step::Wait(wait);
                }
                _ => failed(&*self.store, doing)(error),
            },
        };
        self.fail(upload, error)
    }

    fn took(&self) -> Nanos {
        self.took
    }

    fn is_busy(&self) -> bool {
        self.upload.is_some()
    }

    fn end(&mut self) {
        // Cancelled it waits for nothing and repeats nothing.
        while self.upload.is_some() {
            drop(self.step(true));
        }
    }
}
