//! What is in the store already when an attempt begins: state that it has taken over lies in the files of the checkpoint before, under other
//! names. They are not sent again.
//!
//! A file is believed to be there if it is a link to one of that checkpoint, has its checksums, and the store lists its blocks. The checkpoint is
//! the newest of the log: no other process takes its blocks away, however long it stood still.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tidemill_storage::snapshot::disk::Disk;

use super::{
    entry::{BLOCKS, Block, StoredFile},
    fetch::is_there,
};
use crate::platform::remote::{RemoteError, RemoteStore};

/// The files of the checkpoint before the attempt.
pub(super) struct Former {
    /// By their lengths.
    files: BTreeMap<u64, Vec<StoredFile>>,
    /// Whether those are left out that the store does not have whole.
    is_checked: bool,
}

impl Former {
    pub(super) fn new(files: Vec<StoredFile>) -> Self {
        let mut by_length = BTreeMap::<_, Vec<_>>::new();
        for file in files {
            by_length.entry(file.bytes()).or_default().push(file);
        }
        Self { files: by_length, is_checked: false }
    }

    /// Whether nothing was there before, or that is of no interest any more.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Forgets the files of which the store does not list all blocks. Asks once.
    ///
    /// # Errors
    /// Of the store.
    pub(super) fn check(&mut self, store: &dyn RemoteStore) -> Result<(), RemoteError> {
        if !self.is_checked {
            let found: BTreeSet<String> = store.list(BLOCKS)?.into_iter().collect();
            let is_whole =
                |file: &StoredFile| file.blocks.iter().map(Block::key).all(|key| found.contains(&key));
            self.files.values_mut().for_each(|files| files.retain(is_whole));
            self.is_checked = true;
        }
        Ok(())
    }

    /// The blocks of a file, if it is one of these. `root` is the job's directory.
    pub(super) fn blocks(&self, disk: &dyn Disk, root: &Path, path: &Path) -> Option<Vec<Block>> {
        let length = disk.open(path).and_then(|file| file.length()).ok()?;
        let same =
            self.files.get(&length)?.iter().find(|file| disk.is_same_file(path, &root.join(&file.path)))?;
        is_there(disk, path, same, true).then(|| same.blocks.clone())
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.files.clear();
    }
}
