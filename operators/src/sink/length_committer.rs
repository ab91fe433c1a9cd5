//! Keeps files at what a checkpoint knows of them, for sinks that write rows into place as they come.
//!
//! At a barrier a writer says how long its file is, and how it ends; that much is made durable before the checkpoint is complete. When the job
//! goes on from it, its files are cut to these lengths before they are opened again: rows behind them, the last of which may be
//! torn, come once more. So a file has each row once; who reads it meanwhile may see some of them twice.
//!
//! What a job finds of a file that its checkpoint, or the savepoint that it begins with, knows:
//!
//! | the file is | then the job |
//! |---|---|
//! | as long or longer, and ends at that length as it did | goes on there, also if it is elsewhere now |
//! | empty | goes on with it, with a warning |
//! | not there, where another place is known of it | begins it: what was there is another job's |
//! | not there, shorter, or another one | refuses |
//!
//! All parts are in every checkpoint, also those of more subtasks than there are now; one that is in none was begun behind the checkpoint, and
//! is emptied. In a fresh start all are. Where a checkpoint knows none at all, since the sink has another id than before or was
//! added, files with rows are refused.
//!
//! Where a job begins files, rows come into them before a checkpoint knows them so. Until there is one a *mark* beside them says whose they are,
//! and as what the last checkpoint knows them, so that a process that dies before is no riddle to the next: it empties them once more, and
//! touches no others'.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tidemill_engine::model::{
    checkpoint::Committable,
    sink::{CommitContext, Committer},
    source::BoxError,
};
use tidemill_storage::snapshot::{
    disk::{Disk, read_whole},
    format::checksum,
};

use super::{
    error::SinkError,
    failed,
    file::{Target, directory_of},
    lengths::{Extent, Lengths, PartLength, TAIL_BYTES, longest},
};

/// A longer mark is not read.
const MARK_BYTES_MAX: u64 = 1 << 24;

/// The mark of files that were begun and are in no checkpoint as they are: JSON, of which later versions may add fields.
#[derive(Deserialize, Serialize)]
struct Mark {
    job: String,
    operator: String,
    /// As what the last checkpoint knows them, if it does.
    known: Vec<PartLength>,
}

/// What is there of a part that a checkpoint knows.
enum Found {
    /// The rows that it knows.
    Rows(Extent),
    /// A file that has none of them, or those of a start that came to no checkpoint.
    Begun,
    /// Nothing yet, since it was elsewhere.
    Nothing,
    /// A pipe or device.
    NoFile,
}

/// Makes sure of what a checkpoint knows of the files, and cuts them to that.
pub(super) struct LengthCommitter {
    disk: Arc<dyn Disk>,
    target: Target,
    subtasks: usize,
    lengths: Lengths,
    job: String,
    operator: String,
    /// The job begins from nothing.
    is_anew: bool,
    is_marked: bool,
    /// What is durable of which part since the job has gone on, and its name.
    secured: BTreeMap<usize, PartLength>,
}

impl LengthCommitter {
    pub(super) fn new(target: Target, subtasks: usize, lengths: Lengths, context: &CommitContext) -> Self {
        Self {
            disk: Arc::clone(&context.disk),
            target,
            subtasks,
            lengths,
            job: context.job.clone(),
            operator: context.operator.clone(),
            is_anew: false,
            is_marked: false,
            secured: BTreeMap::new(),
        }
    }

    /// The length of a file: `None` if it is not there, or is none.
    fn length(&self, path: &Path) -> Result<Option<u64>, SinkError> {
        match self.disk.length(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            length => length.map_err(failed(path)),
        }
    }

    /// Makes durable what a checkpoint is to know of a file.
    fn make_durable(&mut self, length: PartLength) -> Result<(), SinkError> {
        let path = self.target.path(length.part);
        self.lengths.check(length.part, &path)?;
        match self.length(&path)? {
            Some(found) if found >= length.bytes => {}
            found => return Err(not_as_it_was(path, &length, found)),
        }
        self.disk.sync_file(&path).map_err(|error| {
            self.lengths.note_broken(length.part);
            failed(&path)(error)
        })?;
        if !self.secured.contains_key(&length.part) {
            self.sync_names(&path)?;
        }
        self.secured.insert(length.part, length);
        Ok(())
    }

    /// Makes the names durable in the directory that a file is in.
    fn sync_names(&self, path: &Path) -> Result<(), SinkError> {
        let directory = directory_of(path);
        self.disk.sync_directory(directory).map_err(failed(directory))
    }

    /// The mark beside the files, if it is this sink's.
    fn read_mark(&self) -> Result<Option<Mark>, SinkError> {
        let path = self.target.mark();
        if self.length(&path)?.is_none() {
            return Ok(None);
        }
        let read = read_whole(&*self.disk, &path, MARK_BYTES_MAX);
        let bytes = read.map_err(|error| failed(&path)(io::Error::other(error)))?;
        // One that a power cut has torn was not done, and nothing had come behind it.
        let mark = serde_json::from_slice::<Mark>(&bytes).ok();
        Ok(mark.filter(|mark| mark.job == self.job && mark.operator == self.operator))
    }

    fn write_mark(&self, mark: &Mark) -> Result<(), SinkError> {
        let path = self.target.mark();
        // Names, numbers and a text have a form in JSON.
        let bytes = serde_json::to_vec(mark).unwrap_or_default();
        let unfinished = path.with_added_extension("unfinished");
        match self.disk.write_whole(&unfinished, &bytes).and_then(|()| self.disk.rename(&unfinished, &path)) {
            // Not everybody may make files beside a link such as `/dev/stdout`. Without it the next process may refuse what it finds.
            Err(error) if may_not_write(&error) && !self.target.is_directory() => Ok(()),
            written => {
                written.map_err(failed(&path))?;
                self.sync_names(&path)
            }
        }
    }

    fn remove_mark(&self) -> Result<(), SinkError> {
        let path = self.target.mark();
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&path)(error)),
            _ => self.sync_names(&path),
        }
    }

    /// What is there of a part that a checkpoint knows: see the table above. `begun` says as what it was known when it was begun.
    fn find(&self, length: &PartLength, begun: Option<&PartLength>) -> Result<Found, SinkError> {
        let PartLength { part, bytes, .. } = *length;
        let path = self.target.path(part);
        let there = match self.disk.length(&path) {
            // A pipe or device, whatever it was before.
            Ok(None) => return Ok(Found::NoFile),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            length => length.map_err(failed(&path))?,
        };
        if let Some(found) = there.filter(|found| *found >= bytes) {
            // Nothing says whose they are.
            if bytes == 0 && found > 0 && begun != Some(length) && length.is_elsewhere(&path) {
                return Err(SinkError::UnknownRows { path, bytes: found });
            }
            let tail = self.tail(&path, bytes)?;
            // Also one that was begun, and is put back.
            if length.tail.is_none_or(|known| known == checksum(&tail)) {
                return Ok(Found::Rows(Extent { bytes, tail }));
            }
            if begun != Some(length) {
                return Err(not_as_it_was(path, length, Some(found)));
            }
        }
        match there {
            None if bytes == 0 => Ok(Found::Nothing),
            Some(_) if begun == Some(length) => Ok(Found::Begun),
            Some(0) => {
                tracing::warn!(
                    path = %path.display(),
                    bytes,
                    "the checkpoint knows rows of this file, which is empty: it has those from here on"
                );
                Ok(Found::Begun)
            }
            None if length.is_elsewhere(&path) => {
                tracing::info!(path = %path.display(), before = length.path, "rows from here on go to another file");
                Ok(Found::Nothing)
            }
            found => Err(not_as_it_was(path, length, found)),
        }
    }

    /// The last of so many bytes of a file.
    fn tail(&self, path: &Path, bytes: u64) -> Result<Vec<u8>, SinkError> {
        let mut tail = vec![0; TAIL_BYTES.min(bytes as usize)];
        if !tail.is_empty() {
            let file = self.disk.open(path).map_err(failed(path))?;
            file.read_at(bytes - tail.len() as u64, &mut tail).map_err(failed(path))?;
        }
        Ok(tail)
    }

    /// Whether it is a file that is written, or will be: no pipe, no device.
    fn is_file(&self) -> Result<bool, SinkError> {
        let path = self.target.path(0);
        match self.disk.length(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            length => Ok(length.map_err(failed(&path))?.is_some()),
        }
    }

    /// Fails if there is a part that would look like one of this result, and is none; where the job goes on from a checkpoint that knows
    /// none, also if there is one that it would empty.
    fn check_others(&self, parts: &[usize]) -> Result<(), SinkError> {
        if !self.is_anew {
            for path in parts.iter().map(|part| self.target.path(*part)) {
                if let Some(bytes) = self.length(&path)?.filter(|bytes| *bytes > 0) {
                    return Err(SinkError::UnknownRows { path, bytes });
                }
            }
        }
        let Target::Directory { directory, .. } = &self.target else { return Ok(()) };
        for part in parts.iter().filter(|part| **part >= self.subtasks) {
            let part = self.target.path(*part);
            if self.length(&part)?.is_some_and(|bytes| bytes > 0) {
                return Err(SinkError::LeftoverPart { directory: directory.clone(), part });
            }
        }
        Ok(())
    }

    /// Cuts the files to what a checkpoint knows of them; returns what they have then.
    fn go_on(&mut self, lengths: BTreeMap<usize, PartLength>) -> Result<BTreeMap<usize, Extent>, SinkError> {
        let mark = self.read_mark()?;
        let mut found = BTreeMap::new();
        let mut begun = Vec::new();
        for (part, length) in lengths {
            let before = mark.iter().flat_map(|mark| &mark.known).find(|known| known.part == part);
            match self.find(&length, before)? {
                Found::Rows(extent) => {
                    found.insert(part, extent);
                }
                Found::Begun => {
                    found.insert(part, Extent::default());
                    begun.push(length);
                }
                Found::Nothing => begun.push(length),
                Found::NoFile => {}
            }
        }
        let parts = self.target.parts(&*self.disk)?;
        let is_new = found.is_empty();
        if is_new && mark.is_none() {
            self.check_others(&parts)?;
        }
        let is_new = is_new && (self.target.is_directory() || (!self.is_anew && self.is_file()?));
        self.is_marked = !begun.is_empty() || is_new;
        if self.is_marked {
            let (job, operator) = (self.job.clone(), self.operator.clone());
            // Also where it is there already: it may be that it could not be made durable.
            self.write_mark(&Mark { job, operator, known: begun })?;
        } else if mark.is_some() {
            self.remove_mark()?;
        }
        for part in parts {
            let bytes = found.entry(part).or_default().bytes;
            let path = self.target.path(part);
            if self.length(&path)?.is_some_and(|there| there > bytes) {
                self.disk.cut(&path, bytes).map_err(failed(&path))?;
            }
        }
        Ok(found)
    }
}

/// Whether this user may not write there at all.
fn may_not_write(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// The error of a file that is not what a checkpoint knows.
#[cold]
fn not_as_it_was(path: PathBuf, length: &PartLength, found: Option<u64>) -> SinkError {
    let how = match found {
        None => "it is not there".to_owned(),
        Some(found) if found < length.bytes => format!("it has {found}"),
        Some(_) => "others are there".to_owned(),
    };
    SinkError::NotAsItWas { path, bytes: length.bytes, how }
}

impl Committer for LengthCommitter {
    fn secure(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        for (part, length) in longest(committables)? {
            if self.secured.get(&part) != Some(&length) {
                self.make_durable(length)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, _committables: &[Committable]) -> Result<(), BoxError> {
        if self.is_marked {
            self.remove_mark()?;
            self.is_marked = false;
        }
        Ok(())
    }

    fn abort(&mut self, _committables: &[Committable]) -> Result<(), BoxError> {
        Ok(())
    }

    fn positions(&self, committables: &[Committable]) -> Vec<Committable> {
        committables.to_vec()
    }

    fn begin_anew(&mut self) -> Result<(), BoxError> {
        self.is_anew = true;
        Ok(())
    }

    fn recover(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        self.secured.clear();
        let found = self.go_on(longest(committables)?);
        self.is_anew = false;
        self.lengths.set(found?);
        Ok(())
    }
}
