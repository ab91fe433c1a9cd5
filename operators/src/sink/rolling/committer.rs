//! Gives files that a checkpoint has their names, and removes those that none has.

use std::{io::ErrorKind, sync::atomic::Ordering};

use tidemill_engine::model::{checkpoint::Committable, sink::Committer, source::BoxError};
use tidemill_storage::snapshot::disk::DirectoryLock;

use super::{
    failed,
    publisher::{PART, PendingFile, Place, Publisher},
};
use crate::sink::{DeliveryGuarantee, error::SinkError};

/// What the file with the number of the last attempt is named.
const ATTEMPT: &str = "attempt-";

/// Commits the files of all subtasks.
pub(super) struct FileCommitter {
    publisher: Publisher,
    guarantee: DeliveryGuarantee,
    /// Whether files of earlier runs may be there when the job begins from nothing.
    appends: bool,
    /// No other job writes there.
    _lock: DirectoryLock,
}

impl FileCommitter {
    /// Makes the directory, but none above it, and the hidden one in it, and takes them.
    pub(super) fn new(
        publisher: Publisher,
        guarantee: DeliveryGuarantee,
        appends: bool,
    ) -> Result<Self, BoxError> {
        let Place { disk, directory, hidden } = &publisher.place;
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        disk.make_directory(directory).map_err(|cause| match (cause.kind(), parent) {
            (ErrorKind::NotFound, Some(parent)) => {
                SinkError::NoParent { directory: directory.clone(), parent: parent.to_owned() }
            }
            _ => failed(directory)(cause),
        })?;
        disk.make_directory(hidden).map_err(failed(hidden))?;
        let lock = disk.lock(hidden)?;
        for made in [Some(hidden.as_path()), Some(directory), parent].into_iter().flatten() {
            disk.sync_directory(made).map_err(failed(made))?;
        }
        Ok(Self { publisher, guarantee, appends, _lock: lock })
    }

    /// Takes a number that no attempt has had, so that no name is given twice.
    fn begin_attempt(&self) -> Result<(), SinkError> {
        let place = &self.publisher.place;
        let Place { disk, directory, hidden } = place;
        let mut names = place.names(hidden)?;
        let older: Vec<_> = names.iter().filter(|name| name.starts_with(ATTEMPT)).cloned().collect();
        names.extend(place.names(directory)?);
        let attempt_of = |name: &String| {
            let number = name.strip_prefix(ATTEMPT).or_else(|| name.strip_prefix(PART)?.split('-').next());
            number.and_then(|number| number.parse::<u64>().ok())
        };
        let attempt = names.iter().filter_map(attempt_of).max().unwrap_or(0) + 1;
        let path = hidden.join(format!("{ATTEMPT}{attempt}"));
        disk.write_whole(&path, b"").map_err(failed(&path))?;
        disk.sync_directory(hidden).map_err(failed(hidden))?;
        older.iter().try_for_each(|name| place.remove(&hidden.join(name)))?;
        self.publisher.shared.attempt.store(attempt, Ordering::Release);
        Ok(())
    }
}

/// Whether a sink may have given a file this name.
fn is_part(name: &str) -> bool {
    let Some((numbers, _)) = name.strip_prefix(PART).and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let numbers: Vec<_> = numbers.split('-').map(str::parse::<u64>).collect();
    numbers.len() == 3 && numbers.iter().all(Result::is_ok)
}

/// The files that committables name.
fn files(committables: &[Committable]) -> Result<Vec<PendingFile>, SinkError> {
    committables.iter().map(PendingFile::from_committable).collect()
}

impl Committer for FileCommitter {
    fn secure(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        let files = files(committables)?;
        match self.guarantee {
            DeliveryGuarantee::ExactlyOnce => self.publisher.secure(&files)?,
            // Nothing is left for `commit` to do.
            DeliveryGuarantee::AtLeastOnce => self.publisher.publish(&files)?,
        }
        Ok(())
    }

    fn commit(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        if self.guarantee == DeliveryGuarantee::ExactlyOnce {
            self.publisher.commit(&files(committables)?)?;
        }
        Ok(())
    }

    fn abort(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        Ok(self.publisher.give_up(&files(committables)?)?)
    }

    fn begin_anew(&mut self) -> Result<(), BoxError> {
        // Files that do not wait for a checkpoint may be there before there is one.
        if self.appends || self.guarantee == DeliveryGuarantee::AtLeastOnce {
            return Ok(());
        }
        let Place { directory, .. } = &self.publisher.place;
        let names = self.publisher.place.names(directory)?;
        let mut parts: Vec<_> = names.into_iter().filter(|name| is_part(name)).collect();
        parts.sort_unstable();
        let Some(part) = parts.first() else { return Ok(()) };
        let (directory, part) = (directory.clone(), directory.join(part));
        Err(SinkError::EarlierRun { directory, part, files: parts.len() }.into())
    }

    fn recover(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        self.begin_attempt()?;
        let mut files = files(committables)?;
        // What the sink promised when the checkpoint was taken counts, too: it may be another promise by now.
        files.iter_mut().for_each(|file| file.early |= self.guarantee == DeliveryGuarantee::AtLeastOnce);
        self.publisher.commit_left(&files)?;
        Ok(self.publisher.clean()?)
    }
}
