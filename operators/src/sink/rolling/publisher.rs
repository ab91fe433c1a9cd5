//! What makes closed files durable, and gives them their names.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use serde::{Deserialize, Serialize};
use tidemill_engine::model::checkpoint::Committable;
use tidemill_storage::snapshot::disk::Disk;

use super::{IN_PROGRESS, failed, name_of};
use crate::sink::error::SinkError;

/// What the names of committed files begin with.
pub(super) const PART: &str = "part-";

/// A file that is closed and waits for its checkpoint, as a checkpoint keeps it: JSON, of which later versions may add fields.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub(super) struct PendingFile {
    /// Its name once it is committed.
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
    /// Whether it had its name before its checkpoint was complete, so that somebody may have taken it away since.
    #[serde(default)]
    pub(super) early: bool,
}

impl PendingFile {
    pub(super) fn to_committable(&self) -> Committable {
        // A name and a number have a form in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a checkpoint holds may have come from anywhere: only what can be a name of this sink's is believed.
    pub(super) fn from_committable(committable: &Committable) -> Result<Self, SinkError> {
        let not_ours = |reason: String| SinkError::OtherCommittable { reason };
        let file: Self = serde_json::from_slice(committable).map_err(|error| not_ours(error.to_string()))?;
        if !file.name.starts_with(PART) || file.name.contains(['/', '\\', '\0']) {
            return Err(not_ours(format!("`{}` is no name of a file of this sink", file.name)));
        }
        Ok(file)
    }
}

/// Where files are, before and after they are committed.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) hidden: PathBuf,
}

impl Place {
    pub(super) fn committed(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn in_progress(&self, name: &str) -> PathBuf {
        self.hidden.join(format!("{name}{IN_PROGRESS}"))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), SinkError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path)(error)),
            _ => Ok(()),
        }
    }

    /// The names in a directory.
    pub(super) fn names(&self, directory: &Path) -> Result<Vec<String>, SinkError> {
        let paths = self.disk.list(directory).map_err(failed(directory))?;
        Ok(paths.iter().filter_map(|path| name_of(path).map(str::to_owned)).collect())
    }
}

/// What a sink's writers, the threads that publish for them, and its committer share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Number of the running attempt, for the writers.
    pub(super) attempt: AtomicU64,
    /// Files that could not be made durable. A second try would say that they are, and lie. Who has this acts on files, one at a
    /// time.
    broken: Mutex<BTreeSet<String>>,
}

/// Makes files durable and visible; any number may act for one sink.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    pub(super) place: Place,
    pub(super) shared: Arc<Shared>,
}

impl Publisher {
    /// Does something while nobody else acts on the sink's files.
    fn alone<R>(&self, act: impl FnOnce(&mut BTreeSet<String>) -> R) -> R {
        act(&mut self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes closed files durable that are to get their names when the checkpoint is complete.
    pub(super) fn secure(&self, files: &[PendingFile]) -> Result<(), SinkError> {
        self.alone(|broken| {
            for file in files {
                if !self.make_durable(file, broken)? && !self.is_committed(file)? {
                    return Err(self.lost(file));
                }
            }
            let hidden = &self.place.hidden;
            self.place.disk.sync_directory(hidden).map_err(failed(hidden))
        })
    }

    /// Makes closed files durable and gives them their names at once. One that is not there has had its name, and somebody may
    /// have taken it away.
    pub(super) fn publish(&self, files: &[PendingFile]) -> Result<(), SinkError> {
        self.alone(|broken| {
            for file in files {
                if self.make_durable(file, broken)? && !self.is_committed(file)? {
                    self.name(file)?;
                }
            }
            self.settle(files)
        })
    }

    /// Gives durable files of a complete checkpoint their names, if they have none.
    pub(super) fn commit(&self, files: &[PendingFile]) -> Result<(), SinkError> {
        self.alone(|_| {
            for file in files {
                if !self.is_committed(file)? {
                    self.name(file)?;
                }
            }
            self.settle(files)
        })
    }

    /// As [`commit`](Self::commit), of those that have to be there: files that had their names early may have been taken away.
    pub(super) fn commit_left(&self, files: &[PendingFile]) -> Result<(), SinkError> {
        let mut left = Vec::new();
        for file in files {
            if !file.early || self.length(&self.place.in_progress(&file.name))?.is_some() {
                left.push(file.clone());
            }
        }
        self.commit(&left)
    }

    /// Removes closed files that have no names.
    pub(super) fn give_up(&self, files: &[PendingFile]) -> Result<(), SinkError> {
        self.alone(|_| {
            files.iter().try_for_each(|file| self.place.remove(&self.place.in_progress(&file.name)))
        })
    }

    /// Removes all files that have no names, and forgets those that are broken.
    pub(super) fn clean(&self) -> Result<(), SinkError> {
        self.alone(|broken| {
            broken.clear();
            let hidden = &self.place.hidden;
            let names = self.place.names(hidden)?;
            let unnamed = names.iter().filter(|name| name.ends_with(IN_PROGRESS));
            unnamed.map(|name| hidden.join(name)).try_for_each(|path| self.place.remove(&path))
        })
    }

    /// Makes a closed file durable; whether it is there without its name.
    fn make_durable(&self, file: &PendingFile, broken: &mut BTreeSet<String>) -> Result<bool, SinkError> {
        let path = self.place.in_progress(&file.name);
        if broken.contains(&file.name) {
            let cause = io::Error::other("it could not be made durable before, and what it holds is unknown");
            return Err(failed(&path)(cause));
        }
        match self.place.disk.sync_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => {
                broken.insert(file.name.clone());
                Err(failed(&path)(error))
            }
        }
    }

    /// Gives a file its name.
    fn name(&self, file: &PendingFile) -> Result<(), SinkError> {
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

    /// Makes names durable, and removes the first ones: in this order.
    fn settle(&self, files: &[PendingFile]) -> Result<(), SinkError> {
        let directory = &self.place.directory;
        self.place.disk.sync_directory(directory).map_err(failed(directory))?;
        files.iter().try_for_each(|file| self.place.remove(&self.place.in_progress(&file.name)))
    }

    /// The length of a file, if it is there.
    fn length(&self, path: &Path) -> Result<Option<u64>, SinkError> {
        match self.place.disk.open(path).and_then(|file| file.length()) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(path)(error)),
        }
    }

    /// Whether a file has its name. It counts only with the length that it should have.
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
}
