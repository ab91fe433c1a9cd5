//! The directory of a job's checkpoints: what is in it, what goes in, what goes out.
//!
//! ```text
//! DIRECTORY/job                              whose it is
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
//!   that can be used, that is an error and not a fresh start.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemill_storage::{
    snapshot::{
        disk::{DirectoryLock, Disk, read_whole},
        restore::Parts,
    },
    state::StateError,
};

use super::{
    archive::is_id,
    manifest::{JobManifest, MANIFEST_BYTES_MAX},
};
use crate::model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError, regions::RegionIndex};

/// Name of the file that says whose the directory is.
const OWNER: &str = "job";
const MANIFESTS: &str = "checkpoints";
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
    /// A savepoint that was fetched may be there.
    may_have_fetched: bool,
    next: CheckpointId,
}

fn failed<'a>(doing: &'static str, file: &'a Path) -> impl FnOnce(io::Error) -> CheckpointError + use<'a> {
    move |source| CheckpointError::Io { doing, file: file.to_owned(), source }
}

impl Library {
    /// Takes the directory of `job`; makes it if there is none.
    ///
    /// # Errors
    /// When it cannot be written, is taken, or is another job's.
    pub(super) fn open(disk: Arc<dyn Disk>, root: &Path, job: &str) -> Result<Self, CheckpointError> {
        let manifests = root.join(MANIFESTS);
        disk.create_directory(&manifests).map_err(failed("create", &manifests))?;
        let lock = disk.lock(root)?;
        claim(&*disk, root, job)?;
        let files = disk.list(&manifests).map_err(failed("list", &manifests))?;
        let numbers = files.iter().filter_map(|file| number_of(file));
        let kept: BTreeMap<_, _> = numbers.map(|id| (id, None)).collect();
        let next = kept.last_key_value().map_or(0, |(id, _)| *id) + 1;
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
    /// When there are some and none can be used, or when it cannot be told of one whether it can: it is of a newer version, or the disk
    /// does not let it be read.
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
                Err(Unusable::Unread(error)) => return Err(error),
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
        if newest.is_some() {
            // A process may have died before the name that is there was durable. What is committed from now on has to be in a
            // checkpoint that outlives a power cut.
            let manifests = self.root.join(MANIFESTS);
            self.disk.sync_directory(&manifests).map_err(failed("sync", &manifests))?;
        }
        Ok(newest)
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
        for operator in manifest.operators.values() {
            let groups = 0..manifest.max_parallelism;
            let parts = Parts::open(Arc::clone(&self.disk), &operator.manifests(), groups);
            parts.map_err(|error| Unusable::of(error.into(), |error| format!("checkpoint {id}: {error}")))?;
        }
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
        self.next = self.next.max(manifest.checkpoint + 1);
        Ok(())
    }

    /// The greatest number of an attempt of which something is there.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) fn last_attempt(&self) -> Result<u64, CheckpointError> {
        Ok(self.attempts()?.into_iter().map(|(number, _)| number).max().unwrap_or(0))
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

    /// The number of the newest checkpoint that is complete.
    pub(super) fn newest_kept(&self) -> Option<CheckpointId> {
        self.kept.keys().rev().copied().find(|id| !self.unusable.contains_key(id))
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

    /// The directory for a savepoint of this name that is fetched.
    pub(super) fn fetched(&self, id: &str) -> PathBuf {
        self.root.join(FETCHED).join(id)
    }

    /// Removes what was fetched of savepoints, but for what is in `needed`. Once there is a checkpoint, nothing is read from there: stores have
    /// taken over the files that they need, under names of their own.
    pub(super) fn retain_fetched(&mut self, needed: Option<&Path>) {
        if !std::mem::replace(&mut self.may_have_fetched, needed.is_some()) {
            return;
        }
        self.remove_fetched(needed);
    }

    fn remove_fetched(&self, needed: Option<&Path>) {
        let fetched = self.root.join(FETCHED);
        // Whatever else somebody has put there is not ours to remove.
        let is_ours = |path: &&PathBuf| path.file_name().is_some_and(|name| is_id(name.as_encoded_bytes()));
        let there = self.disk.list(&fetched).unwrap_or_default();
        let unneeded = there.iter().filter(is_ours).filter(|path| Some(path.as_path()) != needed);
        unneeded.for_each(|path| remove_tree(&*self.disk, path));
        // It stays if there is anything in it.
        let _left = self.disk.remove_directory(&fetched);
    }

    /// Begins an attempt, whose number is `attempt` or greater. No store writes any more.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) fn begin_attempt(&mut self, attempt: u64) -> Result<(), CheckpointError> {
        self.attempt = (attempt.max(self.last_attempt()? + 1), 0);
        self.in_use.clear();
        Ok(())
    }

    /// Makes a directory for the stores of a region, in place of the one that it had. No other ever has its name: on all machines
    /// together an attempt has a number of its own.
    ///
    /// # Errors
    /// Of the disk.
    pub(super) fn begin_region(&mut self, region: RegionIndex) -> Result<PathBuf, CheckpointError> {
        let state = self.root.join(STATE);
        let (number, made) = self.attempt;
        let name = if made == 0 { number.to_string() } else { format!("{number}-{made}") };
        let directory = state.join(name);
        self.disk.create_directory(&directory).map_err(failed("create", &directory))?;
        self.attempt.1 += 1;
        // It has a name more, which the next checkpoint makes durable.
        self.synced.remove(&state);
        self.in_use.insert(region, directory.clone());
        Ok(directory)
    }

    /// All directories of state, with the numbers of their attempts.
    fn attempts(&self) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
        let state = self.root.join(STATE);
        let there = match self.disk.list(&state) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("list", &state)(error)),
        };
        let number = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            let number = name.split_once('-').map_or(name, |(attempt, _)| attempt);
            Some((number.parse().ok()?, path))
        };
        Ok(there.into_iter().filter_map(number).collect())
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
    /// more. Those that cannot be used do not count, and are kept; so is what is in `needed`.
    pub(super) fn retire(
        &mut self,
        retained_max: usize,
        needed: &BTreeSet<CheckpointId>,
    ) -> Vec<CheckpointId> {
        let usable = self.kept.keys().filter(|id| !self.unusable.contains_key(id)).copied();
        let usable: Vec<CheckpointId> = usable.collect();
        let surplus = usable.len().saturating_sub(retained_max);
        let mut retired = Vec::new();
        for id in usable[..surplus].iter().filter(|id| !needed.contains(id)) {
            // One that stays is tried again with the next checkpoint, and nothing it names goes before.
            if self.disk.remove(&self.manifest_path(*id)).is_err() {
                break;
            }
            self.kept.remove(id);
            retired.push(*id);
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

    /// Removes the directories of state that no kept checkpoint needs. What cannot be removed is tried again later.
    fn remove_unneeded_attempts(&mut self) {
        // A manifest that could not be read may need any of them.
        if self.kept.values().any(Option::is_none) {
            return;
        }
        let Ok(there) = self.attempts() else { return };
        for (_, directory) in there {
            let is_needed = self.kept.values().flatten().any(|attempts| attempts.contains(&directory));
            if !is_needed && !self.in_use.values().any(|in_use| *in_use == directory) {
                remove_tree(&*self.disk, &directory);
            }
        }
    }

    /// Removes all checkpoints and their files: there is nothing to go on from.
    pub(super) fn clear(&mut self) {
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

/// Whether a directory is one of a job's checkpoints.
pub(super) fn is_in(disk: &dyn Disk, root: &Path) -> bool {
    disk.list(&root.join(MANIFESTS)).is_ok()
}

/// The manifests of all checkpoints in a job's directory, the oldest first; an error in place of one whose files are not all there.
pub(super) fn list(
    disk: &Arc<dyn Disk>,
    root: &Path,
) -> Result<Vec<Result<JobManifest, CheckpointError>>, CheckpointError> {
    let has_its_files = |manifest: JobManifest| {
        for operator in manifest.operators.values() {
            let opened = Parts::open(Arc::clone(disk), &operator.manifests(), 0..manifest.max_parallelism);
            opened.map_err(|error| {
                let file = manifest_path(root, manifest.checkpoint);
                CheckpointError::Manifest { file, what: error.to_string() }
            })?;
        }
        Ok(manifest)
    };
    Ok(manifests(disk, root)?.into_iter().map(|read| read.and_then(has_its_files)).collect())
}

/// The manifests of all checkpoints in a job's directory, the oldest first, whatever has become of their files.
pub(super) fn manifests(
    disk: &Arc<dyn Disk>,
    root: &Path,
) -> Result<Vec<Result<JobManifest, CheckpointError>>, CheckpointError> {
    let manifests = root.join(MANIFESTS);
    let mut files = disk.list(&manifests).map_err(failed("list", &manifests))?;
    files.retain(|file| number_of(file).is_some());
    Ok(files.iter().map(|file| JobManifest::read(&**disk, file, root)).collect())
}

/// The path of the manifest of a checkpoint with this number.
fn manifest_path(root: &Path, id: CheckpointId) -> PathBuf {
    root.join(MANIFESTS).join(format!("{id:020}"))
}

/// The number of the checkpoint whose manifest has this path.
fn number_of(file: &Path) -> Option<CheckpointId> {
    file.file_name()?.to_str()?.parse().ok()
}

/// Why a checkpoint cannot be used.
pub(super) enum Unusable {
    /// What is wrong with it.
    Damaged(String),
    /// It may be whole: it is of a newer version, or the disk did not let it be read. To go on from the one before would say rows again
    /// that sinks have committed.
    Unread(CheckpointError),
}

impl Unusable {
    fn of(error: CheckpointError, say: impl FnOnce(&CheckpointError) -> String) -> Self {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, UnexpectedEof};
        // Something else than the file is there, or less of it: that stays so.
        let is_lasting = |kind| matches!(kind, NotFound | UnexpectedEof | NotADirectory | IsADirectory);
        match &error {
            CheckpointError::NewerVersion { .. } => Self::Unread(error),
            CheckpointError::State(StateError::Io { source, .. }) if !is_lasting(source.kind()) => {
                Self::Unread(error)
            }
            _ => Self::Damaged(say(&error)),
        }
    }
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

/// The directories of state whose files a checkpoint names.
fn attempts_of(root: &Path, manifest: &JobManifest) -> BTreeSet<PathBuf> {
    let state = root.join(STATE);
    let parts = manifest.operators.values().flat_map(|operator| operator.manifests());
    parts.filter_map(|part| Some(state.join(part.strip_prefix(&state).ok()?.components().next()?))).collect()
}

/// Removes a directory and all in it, as far as possible.
pub(super) fn remove_tree(disk: &dyn Disk, path: &Path) {
    if let Ok(inside) = disk.list(path) {
        inside.iter().for_each(|path| remove_tree(disk, path));
    }
    if disk.remove(path).is_err() {
        let _left = disk.remove_directory(path);
    }
}

#[cfg(test)]
mod tests;
