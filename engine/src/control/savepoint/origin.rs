//! The savepoint that a job begins with.

use std::{path::PathBuf, sync::Arc};

use super::{Stores, read};
use crate::{
    control::{archive::Saved, library::Library, manifest::JobManifest},
    model::{checkpoint_error::CheckpointError, savepoint::SavepointPlace},
    platform::remote::RemoteStore,
};

/// The savepoint that a job begins with, as long as it has no checkpoint of its own.
pub(in crate::control) struct Origin {
    place: SavepointPlace,
    stores: Arc<Stores>,
    /// What is in the remote store, once it was asked.
    found: Option<(Arc<dyn RemoteStore>, Saved)>,
}

impl Origin {
    pub(in crate::control) fn new(place: SavepointPlace, stores: Arc<Stores>) -> Self {
        Self { place, stores, found: None }
    }

    /// Where it is, for people.
    pub(in crate::control) fn place(&self) -> String {
        self.place.to_string()
    }

    /// Reads it, and fetches it before if it is in a remote store; with the directory that it is read from, and may be read from again
    /// until the job has a checkpoint.
    ///
    /// # Errors
    /// When it is not there whole, or cannot be fetched.
    pub(in crate::control) fn open(
        &mut self,
        library: &mut Library,
        enough: &dyn Fn() -> bool,
    ) -> Result<(JobManifest, PathBuf), CheckpointError> {
        let directory = match &self.place {
            SavepointPlace::Directory(directory) => {
                library.retain_fetched(None);
                directory.clone()
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
                directory
            }
        };
        Ok((read(&**library.disk(), &directory)?, directory))
    }
}
