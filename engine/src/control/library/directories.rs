//! The directories within that of a job: those in which the stores of each region write, and those of savepoints that are fetched.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use tidemill_storage::snapshot::disk::Disk;

use super::{FETCHED, Library, STATE, failed};
use crate::{
    control::{archive::is_id, manifest::JobManifest},
    model::{checkpoint_error::CheckpointError, regions::RegionIndex},
};

impl Library {
    /// The greatest number of an attempt of which something is there.
    ///
    /// # Errors
    /// Of the disk.
    pub(in crate::control) fn last_attempt(&self) -> Result<u64, CheckpointError> {
        Ok(self.attempts()?.into_iter().map(|(number, _)| number).max().unwrap_or(0))
    }

    /// The directory for a savepoint of this name that is fetched.
    pub(in crate::control) fn fetched(&self, id: &str) -> PathBuf {
        self.root.join(FETCHED).join(id)
    }

    /// Removes what was fetched of savepoints, but for what is in `needed`. Once there is a checkpoint, nothing is read from there: stores have
    /// taken over the files that they need, under names of their own.
    pub(in crate::control) fn retain_fetched(&mut self, needed: Option<&Path>) {
        if !std::mem::replace(&mut self.may_have_fetched, needed.is_some()) {
            return;
        }
        self.remove_fetched(needed);
    }

    pub(super) fn remove_fetched(&self, needed: Option<&Path>) {
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
    pub(in crate::control) fn begin_attempt(&mut self, attempt: u64) -> Result<(), CheckpointError> {
        self.attempt = (attempt.max(self.last_attempt()? + 1), 0);
        self.in_use.clear();
        Ok(())
    }

    /// Makes a directory for the stores of a region, in place of the one that it had. No other ever has its name: on all machines
    /// together an attempt has a number of its own.
    ///
    /// # Errors
    /// Of the disk.
    pub(in crate::control) fn begin_region(
        &mut self,
        region: RegionIndex,
    ) -> Result<PathBuf, CheckpointError> {
        let state = self.root.join(STATE);
        let (number, made) = self.attempt;
        let name = if made == 0 { number.to_string() } else { format!("{number}-{made}") };
        let directory = state.join(name);
        for directory in [&state, &directory] {
            self.disk.make_directory(directory).map_err(failed("create", directory))?;
        }
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

    /// Removes the directories of state that no kept checkpoint needs. What cannot be removed is tried again later.
    pub(super) fn remove_unneeded_attempts(&mut self) {
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
}

/// The directories of state whose files a checkpoint names.
pub(super) fn attempts_of(root: &Path, manifest: &JobManifest) -> BTreeSet<PathBuf> {
    let state = root.join(STATE);
    let parts = manifest.operators.values().flat_map(|operator| operator.manifests());
    parts.filter_map(|part| Some(state.join(part.strip_prefix(&state).ok()?.components().next()?))).collect()
}

/// Removes a directory and all in it, as far as possible.
pub(in crate::control) fn remove_tree(disk: &dyn Disk, path: &Path) {
    if let Ok(inside) = disk.list(path) {
        inside.iter().for_each(|path| remove_tree(disk, path));
    }
    if disk.remove(path).is_err() {
        let _left = disk.remove_directory(path);
    }
}
