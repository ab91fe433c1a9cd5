//! The savepoint that a job begins with.

use std::{
    io,
    path::{self, Component, Path, PathBuf},
    sync::Arc,
};

use tidemill_storage::{
    snapshot::disk::{DirectoryLock, Disk},
    state::StateError,
};

use super::{Source, Stores};
use crate::{
    control::{
        archive::Saved,
        library::{Library, check_parts},
        manifest::JobManifest,
    },
    model::{checkpoint_error::CheckpointError, savepoint::SavepointPlace},
    platform::remote::RemoteStore,
};

/// The savepoint that a job begins with, as long as it has no checkpoint of its own; or a checkpoint of another directory, which is as good
/// as long as no job takes it away.
pub(in crate::control) struct Origin {
    place: SavepointPlace,
    stores: Arc<Stores>,
    /// What is in the remote store, once it was asked.
    found: Option<(Arc<dyn RemoteStore>, Saved)>,
    /// Keeps the job from running whose checkpoint it is.
    lock: Option<DirectoryLock>,
}

/// Takes the directory of the job whose checkpoint is begun with, so that no process removes it meanwhile. Where nobody may write, nobody will.
fn lock(disk: &dyn Disk, root: &Path) -> Result<Option<DirectoryLock>, CheckpointError> {
    match disk.lock(root) {
        Ok(lock) => Ok(Some(lock)),
        Err(StateError::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

impl Origin {
    pub(in crate::control) fn new(place: SavepointPlace, stores: Arc<Stores>) -> Self {
        Self { place, stores, found: None, lock: None }
    }

    /// Where it is, for people; and by what it is known as the one that a job began with.
    pub(in crate::control) fn place(&self) -> String {
        match &self.place {
            // However it was written.
            SavepointPlace::Directory(directory) => {
                let absolute = path::absolute(directory).unwrap_or_else(|_| directory.clone());
                let mut place = PathBuf::new();
                for component in absolute.components() {
                    match component {
                        Component::ParentDir => drop(place.pop()),
                        component => place.push(component),
                    }
                }
                place.display().to_string()
            }
            remote => remote.to_string(),
        }
    }

    /// Reads it, and fetches it before if it is in a remote store; with where it is read from, and may be read from again
    /// until the job has a checkpoint.
    ///
    /// # Errors
    /// When it is not there whole, or cannot be fetched.
    pub(in crate::control) fn open(
        &mut self,
        library: &mut Library,
        enough: &dyn Fn() -> bool,
    ) -> Result<(JobManifest, Source), CheckpointError> {
        let disk = Arc::clone(library.disk());
        let source = match &self.place {
            SavepointPlace::Directory(directory) => {
                library.retain_fetched(None);
                Source::find(&*disk, directory)?
            }
            SavepointPlace::Remote(remote) => {
                let platform = self.stores.platform();
                let (store, saved) = match self.found.take() {
                    Some(found) => found,
                    None => {
                        let store = self.stores.open(remote, "read a savepoint")?;
                        let saved = Saved::read(&*store, platform, enough)?;
                        (store, saved)
                    }
                };
                let directory = library.fetched(saved.id());
                library.retain_fetched(Some(&directory));
                let fetched = saved.fetch(&*store, platform, &directory, enough);
                // It does not change: nobody has to be asked again.
                self.found = Some((store, saved));
                fetched?;
                Source::savepoint(&directory)
            }
        };
        if source.is_checkpoint && self.lock.is_none() && source.root != library.root() {
            self.lock = lock(&*disk, &source.root)?;
        }
        let manifest = source.read(&*disk)?;
        if source.is_checkpoint {
            check_parts(&disk, &manifest)?;
        }
        Ok((manifest, source))
    }
}
