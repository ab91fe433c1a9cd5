//! Brings checkpoints to the remote store and takes away what none needs, one request after the other.
//!
//! ```text
//! begin ─▶ plan ─▶ former ¹ ─▶ blocks ─▶ entry ─▶ verify ─▶ done ─▶ sweep: entries that are needed no more, then blocks
//!                   └── a request fails: it is repeated after a while, some times ──▶ the checkpoint failed
//! ```
//!
//! ¹ Of the first checkpoint of an attempt: which of its files were there [before](super::former).
//!
//! **Invariants.** An entry is put when all blocks that it names are there, and deleted before any of them. It is put under the
//! number that follows the last one, if there is none of that number: so of two processes one cannot go on. It counts when it is
//! the last of the log, which a list says: a process that was overtaken long ago could find its number free again.
//!
//! An entry whose put failed may be there, or come later. Nothing else is put in its place: the next checkpoint begins by putting it
//! once more, so that it is known what the log says. Until then its blocks stay.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use tidemill_storage::snapshot::disk::Disk;

use super::{
    carrier::{Carrier, Step},
    entry::{
        BLOCKS, Block, Contents, ENTRY_BYTES_MAX, Earlier, Entry, Kept, LOG, StoredFile, attempt_of, log_key,
        number_of,
    },
    former::Former,
    pieces::{Batch, Names, Pieces, files_of, relative, text_of},
    retry::{Retry, Stuck, failed},
};
use crate::{
    control::manifest::JobManifest,
    model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError},
    platform::{
        Nanos,
        remote::{RemoteError, RemoteStore},
    },
};

/// Objects that are deleted at once.
pub(super) const DELETED_MAX: usize = 1_000;

/// An entry of which it is not known whether it is in the log.
struct Unsettled {
    bytes: Vec<u8>,
    blocks: BTreeSet<String>,
}

/// A checkpoint in the log.
pub(super) struct InLog {
    /// The claim under which it was put.
    pub(super) claim: u64,
    /// What it needs.
    pub(super) blocks: BTreeSet<String>,
}

enum Stage {
    Plan(Box<JobManifest>),
    /// Which of these were in the store before is to be found out.
    Former(VecDeque<PathBuf>),
    /// What was read and is to be put.
    Blocks(Batch),
    Entry,
    Verify,
}

struct Upload {
    checkpoint: CheckpointId,
    /// Its manifest.
    manifest: String,
    /// Paths of all files that it needs.
    files: Vec<PathBuf>,
    pieces: Pieces,
    stage: Stage,
    retry: Retry,
    /// The entry, once it was to be put.
    entry: Vec<u8>,
}

/// What a keeper is made with.
pub(super) struct Ownership {
    pub(super) job: String,
    /// Number of the claim.
    pub(super) claim: u64,
    /// The attempt, which names its blocks.
    pub(super) attempt: u64,
    pub(super) owner: String,
}

/// What the log held when it was claimed.
pub(super) struct Held {
    /// The checkpoints that count, by the number of their entry.
    pub(super) kept: BTreeMap<u64, InLog>,
    /// The files of the newest of them.
    pub(super) former: Former,
    /// What can be deleted.
    pub(super) dead_entries: BTreeSet<String>,
}

/// Keeps the checkpoints of one attempt. See the [module](self).
pub(in crate::control) struct Keeper {
    store: Arc<dyn RemoteStore>,
    disk: Arc<dyn Disk>,
    root: PathBuf,
    own: Ownership,
    retained_max: usize,
    /// Number of the next entry.
    next_entry: u64,
    next_block: u64,
    /// Files of this attempt that are in the store, or in part.
    stored: BTreeMap<PathBuf, StoredFile>,
    /// Files of the checkpoint before, until this attempt has one.
    former: Former,
    /// The checkpoints in the log, by the number of their entry.
    kept: BTreeMap<u64, InLog>,
    unsettled: Option<Unsettled>,
    /// An entry was given up since the last checkpoint that is known to be there.
    is_unsure: bool,
    upload: Option<Upload>,
    /// Blocks of earlier attempts were looked for.
    has_looked: bool,
    /// They are to be looked for.
    looks: bool,
    /// What is needed no more is being taken away.
    sweeps: bool,
    dead_entries: BTreeSet<String>,
    dead_blocks: BTreeSet<String>,
}

impl Carrier for Keeper {
    /// A checkpoint whose files are durable on disk.
    type Load = JobManifest;

    fn begin(&mut self, manifest: JobManifest) {
        debug_assert!(self.upload.is_none(), "one checkpoint after the other");
        self.upload = Some(Upload {
            checkpoint: manifest.checkpoint,
            manifest: String::new(),
            files: Vec::new(),
            pieces: Pieces::default(),
            stage: Stage::Plan(Box::new(manifest)),
            retry: Retry::default(),
            entry: Vec::new(),
        });
    }

    /// Whether the log may hold a checkpoint newer than the last one that was told to be there.
    fn is_unsure(&self) -> bool {
        self.is_unsure
    }

    fn took(&self) -> Nanos {
        self.store.took()
    }

    fn step(&mut self, cancelled: bool) -> Step {
        let Some(mut upload) = self.upload.take() else { return self.sweep() };
        if cancelled {
            let checkpoint = upload.checkpoint;
            self.give_up(upload);
            let place = self.store.place();
            return Step::Done(Err(CheckpointError::RemoteLate { checkpoint, place }));
        }
        match self.advance(&mut upload) {
            Ok(true) => {
                self.is_unsure = false;
                Step::Done(Ok(()))
            }
            Ok(false) => {
                upload.retry = Retry::default();
                self.upload = Some(upload);
                Step::Again
            }
            Err(Stuck::Now(error)) => {
                self.give_up(upload);
                Step::Done(Err(error))
            }
            Err(Stuck::Remote(doing, error)) => match upload.retry.after(&error) {
                Some(wait) => {
                    self.upload = Some(upload);
                    Step::Wait(wait)
                }
                None => {
                    self.give_up(upload);
                    Step::Done(Err(failed(&*self.store, doing)(error)))
                }
            },
        }
    }

    fn is_busy(&self) -> bool {
        self.upload.is_some() || self.sweeps
    }
}

impl Keeper {
    pub(super) fn new(
        store: Arc<dyn RemoteStore>,
        disk: Arc<dyn Disk>,
        root: PathBuf,
        own: Ownership,
        retained_max: usize,
        held: Held,
    ) -> Self {
        let Held { kept, former, dead_entries } = held;
        Self {
            store,
            disk,
            root,
            next_entry: own.claim + 1,
            own,
            retained_max,
            next_block: 0,
            stored: BTreeMap::new(),
            former,
            kept,
            unsettled: None,
            is_unsure: false,
            upload: None,
            has_looked: false,
            looks: false,
            sweeps: !dead_entries.is_empty(),
            dead_entries,
            dead_blocks: BTreeSet::new(),
        }
    }

    /// Remembers what a checkpoint that failed may have left.
    fn give_up(&mut self, upload: Upload) {
        match upload.stage {
            Stage::Plan(_) | Stage::Former(_) => {}
            Stage::Blocks(batch) => self.dead_blocks.extend(batch.objects.into_iter().map(|(key, _)| key)),
            // It may be in the log, if it was sent and not only the one that was to be settled before it.
            Stage::Entry | Stage::Verify => {
                self.is_unsure = true;
                let was_sent = matches!(upload.stage, Stage::Verify) || upload.retry.has_failed();
                if self.unsettled.is_none() && was_sent {
                    let blocks = self.blocks(&upload.files);
                    self.unsettled = Some(Unsettled { bytes: upload.entry, blocks });
                }
            }
        }
    }

    fn blocks(&self, files: &[PathBuf]) -> BTreeSet<String> {
        let files = files.iter().filter_map(|path| self.stored.get(path));
        files.flat_map(|file| &file.blocks).map(Block::key).collect()
    }

    /// One request for a checkpoint; whether it is complete.
    fn advance(&mut self, upload: &mut Upload) -> Result<bool, Stuck> {
        match &mut upload.stage {
            Stage::Plan(manifest) => {
                upload.manifest = text_of(manifest, &self.root);
                upload.files = files_of(&*self.disk, manifest)?;
                let may_be_there =
                    |path: &&PathBuf| !self.former.is_empty() && !self.stored.contains_key(*path);
                let unknown = upload.files.iter().filter(may_be_there).cloned().collect();
                self.look(upload, unknown)?;
                Ok(false)
            }
            Stage::Former(unknown) => {
                self.former.check(&*self.store).map_err(|error| Stuck::Remote("list blocks", error))?;
                let mut unknown = std::mem::take(unknown);
                if let Some(path) = unknown.pop_front()
                    && let Some(blocks) = self.former.blocks(&*self.disk, &self.root, &path)
                {
                    let name = relative(&self.root, &path)?;
                    self.stored.insert(path, StoredFile { path: name, blocks });
                }
                self.look(upload, unknown)?;
                Ok(false)
            }
            Stage::Blocks(batch) => {
                self.store
                    .put(&batch.objects)
                    .map_err(|error| Stuck::Remote("put blocks of a checkpoint", error))?;
                for (path, block) in batch.blocks.drain(..) {
                    let name = relative(&self.root, &path)?;
                    let new = || StoredFile { path: name, blocks: Vec::new() };
                    self.stored.entry(path).or_insert_with(new).blocks.push(block);
                }
                self.next_stage(upload)?;
                Ok(false)
            }
            Stage::Entry => {
                if self.unsettled.is_some() {
                    self.settle()?;
                    return Ok(false);
                }
                if upload.entry.is_empty() {
                    upload.entry = self.entry(upload);
                }
                self.put_entry(&upload.entry)?;
                upload.stage = Stage::Verify;
                Ok(false)
            }
            Stage::Verify => {
                let found = self.store.list(LOG).map_err(|error| Stuck::Remote("list the log", error))?;
                let last = found.iter().rev().find_map(|key| number_of(key));
                if last != Some(self.next_entry) {
                    return Err(self.overtaken(last));
                }
                self.count(self.blocks(&upload.files));
                self.retire(&found, &upload.files);
                Ok(true)
            }
        }
    }

    /// Goes on with files that may have been there before; when there is none, with what is missing.
    fn look(&mut self, upload: &mut Upload, unknown: VecDeque<PathBuf>) -> Result<(), CheckpointError> {
        if !unknown.is_empty() {
            upload.stage = Stage::Former(unknown);
            return Ok(());
        }
        let stored = |path: &_| self.stored.get(path).map_or(0, StoredFile::bytes);
        upload.pieces = Pieces::of(&*self.disk, &upload.files, stored)?;
        self.next_stage(upload)
    }

    /// Reads the next blocks, or turns to the entry when all are there.
    fn next_stage(&mut self, upload: &mut Upload) -> Result<(), CheckpointError> {
        let (attempt, next) = (self.own.attempt, &mut self.next_block);
        let names = Names { attempt, next, key: &Block::key };
        let batch = upload.pieces.read(&*self.disk, names)?;
        upload.stage = batch.map_or(Stage::Entry, Stage::Blocks);
        Ok(())
    }

    /// The entry of a checkpoint whose blocks are there, now that it is known what is before it.
    fn entry(&self, upload: &Upload) -> Vec<u8> {
        let files = upload.files.iter().filter_map(|path| self.stored.get(path)).cloned().collect();
        let (checkpoint, manifest) = (upload.checkpoint, upload.manifest.clone());
        let Ownership { job, claim, attempt, owner } = &self.own;
        let entry = Entry {
            job: job.clone(),
            claim: *claim,
            attempt: *attempt,
            owner: owner.clone(),
            earlier: self
                .kept
                .iter()
                .map(|(at, checkpoint)| Earlier { entry: *at, claim: checkpoint.claim })
                .collect(),
            contents: Contents::Checkpoint(Kept { checkpoint, files, manifest }),
        };
        entry.encode()
    }

    /// Makes sure that these bytes are the next entry.
    fn put_entry(&self, bytes: &[u8]) -> Result<(), Stuck> {
        let key = log_key(self.next_entry);
        match self.store.put_if_absent(&key, bytes) {
            Ok(()) => Ok(()),
            // An earlier try may have come through.
            Err(RemoteError::Taken { .. }) => match self.store.get(&[key], ENTRY_BYTES_MAX) {
                Ok(found) if found.first().is_some_and(|found| found == bytes) => Ok(()),
                Ok(_) | Err(RemoteError::Absent { .. }) => Err(self.overtaken(None)),
                Err(error) => Err(Stuck::Remote("read the log", error)),
            },
            Err(error) => Err(Stuck::Remote("put a checkpoint into the log", error)),
        }
    }

    /// Puts the entry once more of which it is not known whether it is there.
    fn settle(&mut self) -> Result<(), Stuck> {
        if let Some(Unsettled { bytes, blocks }) = self.unsettled.take() {
            if let Err(error) = self.put_entry(&bytes) {
                self.unsettled = Some(Unsettled { bytes, blocks });
                return Err(error);
            }
            self.count(blocks);
        }
        Ok(())
    }

    /// The next entry of the log is there, of a checkpoint that needs these blocks.
    fn count(&mut self, blocks: BTreeSet<String>) {
        self.kept.insert(self.next_entry, InLog { claim: self.own.claim, blocks });
        self.next_entry += 1;
    }

    fn overtaken(&self, last: Option<u64>) -> Stuck {
        let own = log_key(self.next_entry);
        if last.is_some_and(|last| last > self.next_entry) {
            // It counts for nobody, as others are behind it; the next sweep of its owner removes what this leaves.
            let _left = self.store.delete(&[own]);
        }
        Stuck::Now(CheckpointError::Overtaken { place: self.store.place(), job: self.own.job.clone() })
    }

    /// Decides what is needed no more, now that another checkpoint is complete. `found` is the log, `files` are those
    /// of the new checkpoint.
    fn retire(&mut self, found: &[String], files: &[PathBuf]) {
        let newest: BTreeSet<&PathBuf> = files.iter().collect();
        let mut gone: BTreeSet<String> = BTreeSet::new();
        // A file that this checkpoint does not need is needed by none that comes later.
        for (_, file) in self.stored.extract_if(.., |path, _| !newest.contains(path)) {
            gone.extend(file.blocks.iter().map(Block::key));
        }
        while self.kept.len() > self.retained_max
            && let Some((_, checkpoint)) = self.kept.pop_first()
        {
            gone.extend(checkpoint.blocks);
        }
        self.dead_blocks.extend(gone);
        let dead = found.iter().filter(|key| number_of(key).is_some_and(|at| !self.kept.contains_key(&at)));
        self.dead_entries.extend(dead.cloned());
        self.looks = !self.has_looked;
        self.sweeps = true;
        self.former.clear();
    }

    /// Blocks of all checkpoints that are kept, or may be, and of files that the next one may need.
    fn needed(&self) -> BTreeSet<String> {
        let unsettled = self.unsettled.iter().map(|one| &one.blocks);
        let kept = self.kept.values().map(|checkpoint| &checkpoint.blocks);
        let kept = kept.chain(unsettled).flatten().cloned();
        let stored = self.stored.values().flat_map(|file| &file.blocks).map(Block::key);
        kept.chain(stored).collect()
    }

    /// One request to take away what is needed no more. What fails is left to the next sweep.
    fn sweep(&mut self) -> Step {
        if !self.sweeps {
            return Step::Idle;
        }
        let swept = if !self.dead_entries.is_empty() {
            let keys: Vec<String> = self.dead_entries.iter().take(DELETED_MAX).cloned().collect();
            self.store.delete(&keys).map(|()| {
                for key in keys {
                    self.dead_entries.remove(&key);
                }
            })
        } else if self.looks {
            self.store.list(BLOCKS).map(|found| {
                (self.looks, self.has_looked) = (false, true);
                // Later attempts are of a process that has overtaken this one.
                let is_earlier =
                    |key: &String| attempt_of(key).is_some_and(|attempt| attempt < self.own.attempt);
                self.dead_blocks.extend(found.into_iter().filter(is_earlier));
            })
        } else {
            let needed = self.needed();
            self.dead_blocks.retain(|key| !needed.contains(key));
            let keys: Vec<String> = self.dead_blocks.iter().take(DELETED_MAX).cloned().collect();
            if keys.is_empty() {
                self.sweeps = false;
                return Step::Idle;
            }
            self.store.delete(&keys).map(|()| {
                for key in keys {
                    self.dead_blocks.remove(&key);
                }
            })
        };
        match swept {
            Ok(()) => Step::Again,
            Err(error) => {
                self.sweeps = false;
                tracing::warn!(%error, store = self.store.place(), "cannot remove what no checkpoint needs; it is tried again");
                Step::Idle
            }
        }
    }
}
