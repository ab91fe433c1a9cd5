//! The directory of a job's checkpoints: what is in it, what goes in, what goes out.
//!
//! ```text
//! DIRECTORY/job                              whose it is
//!           complete-00000000000000000042      the newest checkpoint that was complete, known apart from its manifest; see `record.rs`
//!           checkpoints/00000000000000000042   a manifest: there only if the checkpoint is complete
//!           state/3/OPERATOR/SUBTASK/          files of the stores of the third attempt
//!           state/3-1/OPERATOR/SUBTASK/        of another region, or of one that was started again in that attempt
//!           fetched/00c3f1a9d2b7e604/          the savepoint that the job begins with, if it was fetched from a remote store
//! ```
//!
//! * A manifest gets its name when everything that it names is durable, and loses it before any of that goes.
//! * Each region has a directory for its stores, a new one in each attempt and whenever it is started again. It goes as a whole once no
//!   kept manifest names a file in it; while the region runs, its stores themselves remove what is needed no more.
//! * A manifest that cannot be read is never taken for nothing: the one before is used, and that is said; when there is none
//!   that can be used, that is an error and not a fresh start. So it is when manifests are gone that were there.
//! * The directory itself is made, but none above it: a disk that is not mounted is no job that begins anew.

mod directories;
mod inspect;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemill_storage::{
    snapshot::disk::{DirectoryLock, Disk, read_whole},
    state::StateError,
};

use self::{directories::attempts_of, record::Record};
pub(super) use self::{
    directories::remove_tree,
    inspect::{Unusable, check_parts, is_in, list, manifests},
};
use super::{
    manifest::{Beginning, JobManifest, MANIFEST_BYTES_MAX},
    savepoint,
};
use crate::model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError, regions::RegionIndex};

/// Name of the file that says whose the directory is.
const OWNER: &str = "job";
pub(super) const MANIFESTS: &str = "checkpoints";
const STATE: &str = "state";
const FETCHED: &str = "fetched";
/// A job's name is not longer.
const OWNER_BYTES_MAX: u64 = 1 << 16;

/// The directory of one job's checkpoints, taken for this process.
pub(super) struct Library {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    _lock: DirectoryLock,
    /// Complete checkpoints, with the directories of state whose files they name; `None` for one that was not read.
    kept: BTreeMap<CheckpointId, Option<BTreeSet<PathBuf>>>,
    /// Those that cannot be used, and why.
    unusable: BTreeMap<CheckpointId, String>,
    /// What is wrong with checkpoints whose number is not known.
    lost: Vec<String>,
    /// Number of the attempt that runs, and of the directories that were made in it.
    attempt: (u64, u64),
    /// The directories in which stores write, by region.
    in_use: BTreeMap<RegionIndex, PathBuf>,
    /// Directories whose names are durable.
    synced: BTreeSet<PathBuf>,
    /// Manifests lost their names, and it is not known whether a crash would give them back.
    is_unsure_of_names: bool,
    /// What was complete, as far as that is known apart from manifests.
    record: Record,
    /// A savepoint that was fetched may be there.
    may_have_fetched: bool,
    next: CheckpointId,
}

fn failed<'a>(doing: &'static str, file: &'a Path) -> impl FnOnce(io::Error) -> CheckpointError + use<'a> {
    move |source| CheckpointError::Io { doing, file: file.to_owned(), source }
}

/// What the system says when a directory is taken, with what to do; of one that is in use that is said already.
fn unlocked(error: StateError) -> CheckpointError {
    match error {
        StateError::Io { doing, file, source } if source.kind() != io::ErrorKind::ResourceBusy => {
            CheckpointError::Io { doing, file, source }
        }
        error => error.into(),
    }
}

impl Library {
    /// Takes the directory of `job`; makes it if there is none in the one above.
    ///
    /// # Errors
    /// When it cannot be written, is taken, is another job's, or holds a savepoint, and when the one above it is missing.
    pub(super) fn open(disk: Arc<dyn Disk>, root: &Path, job: &str) -> Result<Self, CheckpointError> {
        let manifests = root.join(MANIFESTS);
        make_root(&*disk, root)?;
        let lock = disk.lock(root).map_err(unlocked)?;
        claim(&*disk, root, job)?;
        disk.make_directory(&manifests).map_err(failed("create", &manifests))?;
        let record = Record::read(&*disk, root)?;
        let files = disk.list(&manifests).map_err(failed("list", &manifests))?;
        let numbers = files.iter().filter_map(|file| number_of(file));
        let kept: BTreeMap<_, _> = numbers.map(|id| (id, None)).collect();
        let next = kept.keys().last().copied().max(record.newest()).unwrap_or(0) + 1;
        Ok(Self {
            disk,
            root: root.to_owned(),
            _lock: lock,
            kept,
            unusable: BTreeMap::new(),
            lost: Vec::new(),
            attempt: (0, 0),
            in_use: BTreeMap::new(),
            synced: BTreeSet::new(),
            is_unsure_of_names: false,
            record,
            may_have_fetched: true,
            next,
        })
    }

    /// A number that no checkpoint of the job has had.
    pub(super) fn next_checkpoint(&mut self) -> CheckpointId {
        self.next += 1;
        self.next - 1
    }

    /// The newest checkpoint that can be used; `None` when the job has never completed one.
    ///
    /// # Errors
    /// When there are some and none can be used, there were some and none is left, or when it cannot be told of one whether it can: it is
    /// of a newer version, or the disk does not let it be read.
    pub(super) fn newest(&mut self) -> Result<Option<JobManifest>, CheckpointError> {
        let candidates: Vec<CheckpointId> = self.kept.keys().rev().copied().collect();
        let mut newest = None;
        for id in candidates {
            if self.unusable.contains_key(&id) {
                continue;
            }
            match self.read(id) {
                Ok(manifest) => {
                    self.kept.insert(id, Some(attempts_of(&self.root, &manifest)));
                    newest.get_or_insert(manifest);
                }
                Err(Unusable::Unread(error)) if newest.is_none() => return Err(error),
                // It may be whole, and is not needed.
                Err(Unusable::Unread(error)) => {
                    tracing::warn!(%error, checkpoint = id, "a checkpoint before the newest cannot be read");
                }
                Err(Unusable::Damaged(reason)) => self.reject(id, reason),
            }
        }
        let reasons: Vec<&str> = self.unusable.values().chain(&self.lost).map(String::as_str).collect();
        if newest.is_none() && !reasons.is_empty() {
            return Err(CheckpointError::NoneWhole {
                directory: self.root.clone(),
                reasons: reasons.join("\n"),
            });
        }
        if newest.is_none()
            && let Some(checkpoint) = self.record.newest()
        {
            return Err(CheckpointError::Lost { directory: self.root.clone(), checkpoint });
        }
        if let Some(manifest) = &newest {
            self.warn_of_loss(manifest.checkpoint);
            // A process may have died before the name that is there was durable. What is committed from now on has to be in a
            // checkpoint that outlives a power cut.
            let manifests = self.root.join(MANIFESTS);
            self.disk.sync_directory(&manifests).map_err(failed("sync", &manifests))?;
            // Of a version that did not keep it.
            self.note_complete(manifest);
        }
        Ok(newest)
    }

    /// Says that a newer checkpoint than `newest` was complete, if its manifest is gone.
    fn warn_of_loss(&self, newest: CheckpointId) {
        let there = self.kept.keys().last().copied();
        if let Some(lost) = self.record.newest().filter(|complete| Some(*complete) > there) {
            tracing::warn!(
                lost,
                newest,
                directory = %self.root.display(),
                "a checkpoint was complete and its manifest is gone; the job goes on from an older one, and what sinks have committed \
                 since then can come twice"
            );
        }
    }

    /// Takes note of a checkpoint that is complete, apart from its manifest.
    fn note_complete(&mut self, manifest: &JobManifest) {
        let (checkpoint, beginning) = (manifest.checkpoint, manifest.beginning.as_ref());
        if let Err(error) = self.record.note(&*self.disk, &self.root, checkpoint, beginning) {
            // It is as complete without, and the next one tries again.
            tracing::warn!(%error, checkpoint, "that there was a checkpoint is known from its manifest alone");
        }
    }

    /// What the job began with, as far as it is known apart from manifests.
    pub(super) fn beginning(&self) -> Option<&Beginning> {
        self.record.beginning()
    }

    /// Reads a checkpoint, and looks whether it is whole.
    pub(super) fn read(&self, id: CheckpointId) -> Result<JobManifest, Unusable> {
        let file = self.manifest_path(id);
        let manifest = JobManifest::read(&*self.disk, &file, &self.root)
            .map_err(|error| Unusable::of(error, CheckpointError::to_string))?;
        if manifest.checkpoint != id {
            let (found, file) = (manifest.checkpoint, file.display());
            return Err(Unusable::Damaged(format!("{file} is the manifest of checkpoint {found}")));
        }
        check_parts(&self.disk, &manifest)
            .map_err(|error| Unusable::of(error.into(), |error| format!("checkpoint {id}: {error}")))?;
        Ok(manifest)
    }

    /// Never again uses a checkpoint in which something is wrong.
    pub(super) fn reject(&mut self, id: CheckpointId, reason: String) {
        tracing::warn!(
            checkpoint = id,
            reason,
            "a checkpoint cannot be used; the one before is tried, and what sinks have committed since then can come twice"
        );
        self.unusable.insert(id, reason);
    }

    /// Takes note of a checkpoint that nobody can read.
    pub(super) fn note_lost(&mut self, reason: String) {
        tracing::warn!(reason, "a checkpoint cannot be read; the one before is tried");
        self.lost.push(reason);
    }

    /// Takes a checkpoint in whose files were brought here; its manifest has these bytes.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) fn adopt(&mut self, manifest: &JobManifest, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.sync_names(manifest)?;
        let file = self.manifest_path(manifest.checkpoint);
        let there = read_whole(&*self.disk, &file, MANIFEST_BYTES_MAX);
        if there.is_ok_and(|there| there != bytes) || self.disk.open(&file).is_err() {
            write_manifest(&*self.disk, &file, bytes)?;
        }
        self.unusable.remove(&manifest.checkpoint);
        self.kept.insert(manifest.checkpoint, Some(attempts_of(&self.root, manifest)));
        self.note_complete(manifest);
        self.next = self.next.max(manifest.checkpoint + 1);
        Ok(())
    }

    /// Never again gives a number up to this one to a checkpoint.
    pub(super) fn skip_to(&mut self, last: CheckpointId) {
        self.next = self.next.max(last + 1);
    }

    /// The newest checkpoint that is complete, if there is one.
    ///
    /// # Errors
    /// When it cannot be used any more.
    pub(super) fn newest_complete(&self) -> Result<Option<JobManifest>, CheckpointError> {
        let Some(id) = self.newest_kept() else { return Ok(None) };
        self.read(id).map(Some).map_err(|error| match error {
            Unusable::Unread(error) => error,
            Unusable::Damaged(what) => CheckpointError::Manifest { file: self.manifest_path(id), what },
        })
    }

    /// The checkpoint that the next process will go on from, if there is one; not where that cannot be told.
    ///
    /// # Errors
    /// When the newest cannot be used, or read, by this one.
    pub(super) fn next_restored(&self) -> Result<Option<JobManifest>, CheckpointError> {
        match self.kept.keys().next_back().and_then(|newest| self.unusable.get_key_value(newest)) {
            Some((id, why)) => {
                let what = why.to_string();
                Err(CheckpointError::Manifest { file: self.manifest_path(*id), what })
            }
            None => self.newest_complete(),
        }
    }

    /// The number of the newest checkpoint that is complete.
    pub(super) fn newest_kept(&self) -> Option<CheckpointId> {
        self.kept.keys().rev().copied().find(|id| !self.unusable.contains_key(id))
    }

    /// What a job goes on from that is started now: the manifest of its newest complete checkpoint, or the directory if there is none.
    pub(super) fn newest_place(&self) -> PathBuf {
        self.newest_kept().map_or_else(|| self.root.clone(), |id| self.manifest_path(id))
    }

    fn manifest_path(&self, id: CheckpointId) -> PathBuf {
        manifest_path(&self.root, id)
    }

    /// The directory of the job's checkpoints.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The disk that it is on.
    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Makes a checkpoint complete. What its manifest names is durable already, but for the names of directories.
    ///
    /// # Errors
    /// Of the disk: then the checkpoint is not complete, and never will be. But for [`CheckpointError::Unknown`]: then a crash
    /// decides, and nothing may be committed or given up before.
    pub(super) fn add(&mut self, manifest: &JobManifest) -> Result<PathBuf, CheckpointError> {
        self.sync_names(manifest)?;
        let file = self.manifest_path(manifest.checkpoint);
        if let Err(error) = write_manifest(&*self.disk, &file, &manifest.encode(&self.root)) {
            return Err(match self.withdraw(&file) {
                Ok(()) => error,
                Err(_) => CheckpointError::Unknown { file, cause: Box::new(error) },
            });
        }
        self.kept.insert(manifest.checkpoint, Some(attempts_of(&self.root, manifest)));
        self.note_complete(manifest);
        Ok(file)
    }

    /// Makes sure that a manifest is not there.
    fn withdraw(&self, file: &Path) -> io::Result<()> {
        match self.disk.remove(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.disk.sync_directory(&self.root.join(MANIFESTS))
    }

    fn sync_names(&mut self, manifest: &JobManifest) -> Result<(), CheckpointError> {
        let parts = manifest.operators.values().flat_map(|operator| operator.manifests());
        let inside = |path: &Path| path.starts_with(&self.root);
        let directories: BTreeSet<PathBuf> = parts
            .flat_map(|part| {
                part.ancestors()
                    .skip(2)
                    .take_while(|path| inside(path))
                    .map(Path::to_owned)
                    .collect::<Vec<_>>()
            })
            .filter(|directory| !self.synced.contains(directory))
            .collect();
        for directory in directories.into_iter().rev() {
            self.disk.sync_directory(&directory).map_err(failed("sync", &directory))?;
            // A region's own directory gets more entries with each store, all of them before its first checkpoint.
            self.synced.insert(directory);
        }
        Ok(())
    }

    /// Takes the manifests of all but the newest `retained_max` away; returns their checkpoints, whose files are needed no
    /// more. Those that cannot be used do not count: they go when there are as many newer ones. What is in `needed` is kept.
    pub(super) fn retire(
        &mut self,
        retained_max: usize,
        needed: &BTreeSet<CheckpointId>,
    ) -> Vec<CheckpointId> {
        let mut usable = self.kept.keys().rev().filter(|id| !self.unusable.contains_key(id));
        let Some(oldest) = usable.nth(retained_max.max(1) - 1).copied() else { return Vec::new() };
        let surplus: Vec<CheckpointId> = self.kept.range(..oldest).map(|(id, _)| *id).collect();
        let mut retired = Vec::new();
        for id in surplus.into_iter().filter(|id| !needed.contains(id)) {
            // One that stays is tried again with the next checkpoint, and nothing it names goes before.
            if self.disk.remove(&self.manifest_path(id)).is_err() {
                break;
            }
            self.kept.remove(&id);
            self.unusable.remove(&id);
            retired.push(id);
        }
        if !retired.is_empty() {
            let manifests = self.root.join(MANIFESTS);
            self.is_unsure_of_names = self.disk.sync_directory(&manifests).is_err();
            if self.is_unsure_of_names {
                return Vec::new();
            }
            self.remove_unneeded_attempts();
        }
        retired
    }

    /// The oldest checkpoint that the job may still go on from, now or after a crash; `None` when that is not known.
    pub(super) fn oldest_kept(&self) -> Option<CheckpointId> {
        let oldest = || self.kept.keys().copied().find(|id| !self.unusable.contains_key(id));
        if self.is_unsure_of_names { None } else { oldest() }
    }

    /// Removes all checkpoints and their files: there is nothing to go on from.
    pub(super) fn clear(&mut self) {
        // First: a directory without checkpoints that says that it had some is refused.
        if let Err(error) = self.record.forget(&*self.disk, &self.root) {
            tracing::warn!(%error, "the job's checkpoints are not removed");
            return;
        }
        let ids: Vec<CheckpointId> = std::mem::take(&mut self.kept).into_keys().collect();
        for id in ids {
            // What stays behind is only garbage: nobody goes on from it but a job of this name in this directory.
            let _left = self.disk.remove(&self.manifest_path(id));
        }
        let _left = self.disk.sync_directory(&self.root.join(MANIFESTS));
        remove_tree(&*self.disk, &self.root.join(STATE));
        self.remove_fetched(None);
    }
}

/// The path of the manifest of a checkpoint with this number.
fn manifest_path(root: &Path, id: CheckpointId) -> PathBuf {
    root.join(MANIFESTS).join(format!("{id:020}"))
}

/// The number of the checkpoint whose manifest has this path.
pub(super) fn number_of(file: &Path) -> Option<CheckpointId> {
    file.file_name()?.to_str()?.parse().ok()
}

/// Makes the directory, but none above it.
fn make_root(disk: &dyn Disk, root: &Path) -> Result<(), CheckpointError> {
    let above = match root.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    disk.make_directory(root).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            CheckpointError::NoParent { directory: root.to_owned(), parent: above.to_owned() }
        }
        _ => failed("create", root)(source),
    })?;
    // Its name has to outlive a power cut as all that is in it does.
    disk.sync_directory(above).map_err(failed("sync", above))
}

/// Says whose the directory is, or checks it.
fn claim(disk: &dyn Disk, root: &Path, job: &str) -> Result<(), CheckpointError> {
    let owner = root.join(OWNER);
    match read_whole(disk, &owner, OWNER_BYTES_MAX) {
        Ok(bytes) => {
            let found = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if found == job {
                return Ok(());
            }
            Err(CheckpointError::OtherJob { directory: root.to_owned(), found, job: job.to_owned() })
        }
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if savepoint::is_in(disk, root) {
                return Err(CheckpointError::HoldsSavepoint {
                    directory: root.to_owned(),
                    job: job.to_owned(),
                });
            }
            write_manifest(disk, &owner, format!("{job}\n").as_bytes())
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes a file so that it is there whole or not at all.
pub(super) fn write_manifest(disk: &dyn Disk, file: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let unfinished = file.with_extension("unfinished");
    disk.write_whole(&unfinished, bytes).map_err(failed("write", &unfinished))?;
    disk.rename(&unfinished, file).map_err(failed("write", file))?;
    let directory = file.parent().unwrap_or(Path::new("."));
    disk.sync_directory(directory).map_err(failed("sync", directory))
}

#[cfg(test)]
mod tests;
