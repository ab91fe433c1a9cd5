//! Brings files back from a remote store: those of a checkpoint, to the job's directory.
//!
//! Files that are there are left as they are, unless the checkpoint turns out not to be whole: then each is compared with the store.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use tidemill_storage::snapshot::disk::Disk;

use super::{
    Archive, Claim, Counted,
    entry::{BLOCK_BYTES_MAX, Block, Kept, StoredFile},
    retry::{failed, patiently},
};
use crate::{
    control::{
        library::{Library, Unusable},
        manifest::{JobManifest, Unreadable},
    },
    model::checkpoint_error::CheckpointError,
    platform::{
        Platform,
        remote::{RemoteError, RemoteStore},
    },
};

/// Blocks that are read at once.
const BATCH_BLOCKS_MAX: usize = 4;

/// Why something cannot be brought.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Something of it is missing or damaged in the store.
    Lost(String),
    /// It cannot be told now.
    Stop(CheckpointError),
}

impl From<CheckpointError> for Trouble {
    fn from(error: CheckpointError) -> Self {
        Self::Stop(error)
    }
}

fn io_failed<'a>(doing: &'static str, file: &'a Path) -> impl FnOnce(io::Error) -> Trouble + use<'a> {
    move |source| Trouble::Stop(CheckpointError::Io { doing, file: file.to_owned(), source })
}

impl Archive {
    /// The newest checkpoint that can be used, of those in the store and in the job's directory; its files are in the directory then.
    ///
    /// # Errors
    /// When there are some and none can be used, one is of a newer version, or the store cannot be reached.
    pub(in crate::control) fn newest(
        &self,
        claim: &Claim,
        library: &mut Library,
        enough: &dyn Fn() -> bool,
    ) -> Result<Option<JobManifest>, CheckpointError> {
        claim.damaged.iter().for_each(|reason| library.note_lost(reason.clone()));
        claim.checkpoints.values().for_each(|counted| library.skip_to(counted.kept.checkpoint));
        for Counted { kept, .. } in claim.checkpoints.values().rev() {
            if library.newest_kept() > Some(kept.checkpoint) {
                match library.newest() {
                    Ok(Some(local)) if local.checkpoint > kept.checkpoint => {
                        let (checkpoint, remote, store) =
                            (local.checkpoint, kept.checkpoint, self.store.place());
                        tracing::warn!(
                            checkpoint,
                            remote,
                            store,
                            "the job's directory has a newer checkpoint than the remote store: it was written while no \
                             remote store was set, or another one"
                        );
                        return Ok(Some(local));
                    }
                    Ok(_) | Err(CheckpointError::NoneWhole { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            match self.bring(kept, library, enough) {
                Ok(manifest) => return Ok(Some(manifest)),
                Err(Trouble::Lost(reason)) => library.reject(kept.checkpoint, reason),
                Err(Trouble::Stop(error)) => return Err(error),
            }
        }
        library.newest()
    }

    fn bring(
        &self,
        kept: &Kept,
        library: &mut Library,
        enough: &dyn Fn() -> bool,
    ) -> Result<JobManifest, Trouble> {
        let (id, place) = (kept.checkpoint, self.store.place());
        let lost = |what: String| Trouble::Lost(format!("checkpoint {id} in {place}: {what}"));
        let manifest = match JobManifest::decode(kept.manifest.as_bytes(), &self.root) {
            Ok(manifest) => manifest,
            Err(Unreadable::Damaged(what)) => {
                return Err(lost(format!("its manifest cannot be read: {what}")));
            }
            Err(Unreadable::Newer(found)) => {
                let file = place.into();
                return Err(CheckpointError::NewerVersion { file, found, known: 1 }.into());
            }
        };
        let files: BTreeSet<PathBuf> = kept.files.iter().map(|file| self.root.join(&file.path)).collect();
        let mut parts = manifest.operators.values().flat_map(|operator| operator.manifests());
        if manifest.checkpoint != id || manifest.job != self.job || parts.any(|part| !files.contains(&part)) {
            return Err(lost("its manifest is of another checkpoint".to_owned()));
        }
        let distrusted = self.distrusted.contains(&id);
        for is_thorough in [distrusted, true] {
            self.fetcher().bring(&kept.files, is_thorough, enough).map_err(|trouble| match trouble {
                Trouble::Lost(what) => lost(what),
                stop => stop,
            })?;
            library.adopt(&manifest, kept.manifest.as_bytes())?;
            match library.read(id) {
                Ok(manifest) => return Ok(manifest),
                Err(Unusable::Unread(error)) => return Err(error.into()),
                Err(Unusable::Damaged(what)) if is_thorough => return Err(lost(what)),
                Err(Unusable::Damaged(reason)) => {
                    tracing::warn!(
                        checkpoint = id,
                        reason,
                        "what is damaged is brought back from the remote store"
                    );
                }
            }
        }
        unreachable!("the second look is thorough")
    }

    /// What brings the files of checkpoints to the job's directory.
    pub(super) fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            store: &*self.store,
            platform: &*self.platform,
            disk: &*self.disk,
            root: &self.root,
            key: &Block::key,
            doing: "read blocks of a checkpoint",
        }
    }
}

/// Whether the file at `path` has the length of a stored one; with `is_thorough`, also its checksums.
pub(super) fn is_there(disk: &dyn Disk, path: &Path, file: &StoredFile, is_thorough: bool) -> bool {
    let Ok(found) = disk.open(path) else { return false };
    if !found.length().is_ok_and(|length| length == file.bytes()) {
        return false;
    }
    let mut offset = 0;
    !is_thorough
        || file.blocks.iter().all(|block| {
            let mut bytes = vec![0; block.bytes as usize];
            let read = found.read_at(offset, &mut bytes);
            offset += block.bytes;
            read.is_ok() && block.is(&bytes)
        })
}

/// Brings files from a store to a directory.
pub(super) struct Fetcher<'a> {
    pub(super) store: &'a dyn RemoteStore,
    pub(super) platform: &'a dyn Platform,
    pub(super) disk: &'a dyn Disk,
    /// The directory that paths are relative to.
    pub(super) root: &'a Path,
    /// What the object of a block is called.
    pub(super) key: &'a dyn Fn(&Block) -> String,
    /// What is being done, for messages.
    pub(super) doing: &'static str,
}

impl Fetcher<'_> {
    /// Brings those of some files that are not in the directory; with `is_thorough`, also those that differ.
    ///
    /// # Errors
    /// When one is not whole in the store, or cannot be written.
    pub(super) fn bring(
        &self,
        files: &[StoredFile],
        is_thorough: bool,
        enough: &dyn Fn() -> bool,
    ) -> Result<(), Trouble> {
        let missing = files.iter().filter(|file| !self.has(file, is_thorough));
        missing.into_iter().try_for_each(|file| self.fetch(file, enough))
    }

    /// Whether a file is in the directory.
    fn has(&self, file: &StoredFile, is_thorough: bool) -> bool {
        is_there(self.disk, &self.root.join(&file.path), file, is_thorough)
    }

    /// Brings a file: it is there whole, or as it was.
    pub(super) fn fetch(&self, file: &StoredFile, enough: &dyn Fn() -> bool) -> Result<(), Trouble> {
        let path = self.root.join(&file.path);
        let directory = path.parent().unwrap_or(self.root);
        let unfinished = path.with_extension("fetched");
        self.disk.create_directory(directory).map_err(io_failed("create", directory))?;
        match self.disk.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_failed("remove", &unfinished)(error));
            }
            _ => {}
        }
        let mut stream = self.disk.create_stream(&unfinished).map_err(io_failed("create", &unfinished))?;
        for blocks in file.blocks.chunks(BATCH_BLOCKS_MAX) {
            if enough() {
                let why = "the job was cancelled meanwhile".to_owned();
                let error = failed(self.store, self.doing)(RemoteError::Failed { why });
                return Err(Trouble::Stop(error));
            }
            let keys: Vec<String> = blocks.iter().map(self.key).collect();
            let read = patiently(self.platform, enough, || self.store.get(&keys, BLOCK_BYTES_MAX));
            let read = read.map_err(|error| match error {
                RemoteError::Absent { .. } | RemoteError::TooLong { .. } => {
                    Trouble::Lost(format!("`{}` is not whole: {error}", file.path))
                }
                error => Trouble::Stop(failed(self.store, self.doing)(error)),
            })?;
            for (block, bytes) in blocks.iter().zip(&read) {
                if !block.is(bytes) {
                    let what =
                        format!("`{}` is damaged: the checksum of {} is wrong", file.path, (self.key)(block));
                    return Err(Trouble::Lost(what));
                }
                stream.write(bytes).map_err(io_failed("write", &unfinished))?;
            }
        }
        drop(stream);
        self.disk.sync_file(&unfinished).map_err(io_failed("sync", &unfinished))?;
        self.disk.rename(&unfinished, &path).map_err(io_failed("rename", &unfinished))?;
        self.disk.sync_directory(directory).map_err(io_failed("sync", directory))
    }
}
