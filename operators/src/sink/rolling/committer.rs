//! Gives files that a checkpoint has their names, and removes those that none has.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tidemill_engine::model::{checkpoint::Committable, sink::Committer, source::BoxError};
use tidemill_storage::snapshot::disk::DirectoryLock;

use super::{IN_PROGRESS, Place, failed, name_of};
use crate::sink::error::SinkError;

/// What the names of committed files begin with.
const PART: &str = "part-";
/// What the file with the number of the last attempt is named.
const ATTEMPT: &str = "attempt-";

/// A file that is closed and waits for its checkpoint, as a checkpoint keeps it: JSON, of which later versions may add fields.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub(super) struct PendingFile {
    /// Its name once it is committed.
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
}

impl PendingFile {
    pub(super) fn to_committable(&self) -> Committable {
        // A name and a number have a form in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a checkpoint holds may have come from anywhere: only what can be a name of this sink's is believed.
    fn from_committable(committable: &Committable) -> Result<Self, SinkError> {
        let not_ours = |reason: String| SinkError::OtherCommittable { reason };
        let file: Self = serde_json::from_slice(committable).map_err(|error| not_ours(error.to_string()))?;
        if !file.name.starts_with(PART) || file.name.contains(['/', '\\', '\0']) {
            return Err(not_ours(format!("`{}` is no name of a file of this sink", file.name)));
        }
        Ok(file)
    }
}

/// Commits the files of all subtasks.
pub(super) struct FileCommitter {
    place: Place,
    /// Number of the running attempt, for the writers.
    attempt: Arc<AtomicU64>,
    /// Files that could not be made durable. A second try would say that they are, and lie.
    broken: BTreeSet<String>,
    /// No other job writes there.
    _lock: DirectoryLock,
}

impl FileCommitter {
    /// Makes the directories, and takes them.
    pub(super) fn new(place: Place, attempt: Arc<AtomicU64>) -> Result<Self, BoxError> {
        let Place { disk, directory, hidden } = &place;
        disk.create_directory(hidden).map_err(failed(hidden))?;
        let lock = disk.lock(hidden)?;
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        for made in [Some(hidden.as_path()), Some(directory), parent].into_iter().flatten() {
            disk.sync_directory(made).map_err(failed(made))?;
        }
        Ok(Self { place, attempt, broken: BTreeSet::new(), _lock: lock })
    }

    /// The length of a file, if it is there.
    fn length(&self, path: &Path) -> Result<Option<u64>, SinkError> {
        match self.place.disk.open(path).and_then(|file| file.length()) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(path)(error)),
        }
    }

    /// Whether a file was committed. It counts only with the length that it should have.
    fn is_committed(&self, file: &PendingFile) -> Result<bool, SinkError> {
        let path = self.place.committed(&file.name);
        match self.length(&path)? {
            Some(found) if found != file.bytes => {
                Err(SinkError::FileChanged { path, expected: file.bytes, found })
            }
            there => Ok(there.is_some()),
        }
    }

    fn lost(&self, file: &PendingFile) -> SinkError {
        let (path, hidden) = (self.place.committed(&file.name), self.place.in_progress(&file.name));
        SinkError::FileLost { path, hidden }
    }

    /// Gives a file its name.
    fn publish(&self, file: &PendingFile) -> Result<(), SinkError> {
        let (from, to) = (self.place.in_progress(&file.name), self.place.committed(&file.name));
        match self.length(&from)? {
            None => return Err(self.lost(file)),
            Some(found) if found != file.bytes => {
                return Err(SinkError::FileChanged { path: from, expected: file.bytes, found });
            }
            Some(_) => {}
        }
        let disk = &self.place.disk;
        let linked = disk.link(&from, &to).or_else(|error| match error.kind() {
            // Not every filesystem has second names.
            ErrorKind::Unsupported | ErrorKind::PermissionDenied => disk.rename(&from, &to),
            _ => Err(error),
        });
        linked.map_err(failed(&to))
    }

    fn remove(&self, path: &Path) -> Result<(), SinkError> {
        match self.place.disk.remove(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path)(error)),
            _ => Ok(()),
        }
    }

    /// The names in a directory.
    fn names(&self, directory: &Path) -> Result<Vec<String>, SinkError> {
        let paths = self.place.disk.list(directory).map_err(failed(directory))?;
        Ok(paths.iter().filter_map(|path| name_of(path).map(str::to_owned)).collect())
    }

    /// Takes a number that no attempt has had, so that no name is given twice.
    fn begin_attempt(&self) -> Result<(), SinkError> {
        let Place { disk, directory, hidden } = &self.place;
        let mut names = self.names(hidden)?;
        let older: Vec<_> = names.iter().filter(|name| name.starts_with(ATTEMPT)).cloned().collect();
        names.extend(self.names(directory)?);
        let attempt_of = |name: &String| {
            let number = name.strip_prefix(ATTEMPT).or_else(|| name.strip_prefix(PART)?.split('-').next());
            number.and_then(|number| number.parse::<u64>().ok())
        };
        let attempt = names.iter().filter_map(attempt_of).max().unwrap_or(0) + 1;
        let path = hidden.join(format!("{ATTEMPT}{attempt}"));
        disk.write_whole(&path, b"").map_err(failed(&path))?;
        disk.sync_directory(hidden).map_err(failed(hidden))?;
        older.iter().try_for_each(|name| self.remove(&hidden.join(name)))?;
        self.attempt.store(attempt, Ordering::Release);
        Ok(())
    }
}

/// The files that committables name.
fn files(committables: &[Committable]) -> Result<Vec<PendingFile>, SinkError> {
    committables.iter().map(PendingFile::from_committable).collect()
}

impl Committer for FileCommitter {
    fn secure(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        for file in files(committables)? {
            let path = self.place.in_progress(&file.name);
            if self.broken.contains(&file.name) {
                let cause =
                    io::Error::other("it could not be made durable before, and what it holds is unknown");
                return Err(failed(&path)(cause).into());
            }
            match self.place.disk.sync_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if !self.is_committed(&file)? {
                        return Err(self.lost(&file).into());
                    }
                }
                Err(error) => {
                    self.broken.insert(file.name);
                    return Err(failed(&path)(error).into());
                }
            }
        }
        let hidden = &self.place.hidden;
        Ok(self.place.disk.sync_directory(hidden).map_err(failed(hidden))?)
    }

    fn commit(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        let files = files(committables)?;
        for file in &files {
            if !self.is_committed(file)? {
                self.publish(file)?;
            }
        }
        // The second names have to be durable before the first ones go.
        let directory = &self.place.directory;
        self.place.disk.sync_directory(directory).map_err(failed(directory))?;
        for file in &files {
            self.remove(&self.place.in_progress(&file.name))?;
        }
        Ok(())
    }

    fn abort(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        for file in files(committables)? {
            self.remove(&self.place.in_progress(&file.name))?;
        }
        Ok(())
    }

    fn recover(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        self.broken.clear();
        self.begin_attempt()?;
        self.commit(committables)?;
        let hidden = &self.place.hidden;
        for name in self.names(hidden)?.iter().filter(|name| name.ends_with(IN_PROGRESS)) {
            self.remove(&hidden.join(name))?;
        }
        Ok(())
    }
}
