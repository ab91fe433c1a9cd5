//! Opens the remote stores of savepoints, and looks where one is to be written.

use std::{path::PathBuf, sync::Arc};

use crate::{
    control::{archive::look, savepoint::look as look_at_directory},
    model::{checkpoint_error::CheckpointError, error::Error, savepoint::SavepointPlace},
    platform::{
        Platform,
        remote::{RemoteConfig, RemoteStore},
    },
};

/// Where a savepoint is to be written.
pub(in crate::control) enum Target {
    /// A directory.
    Directory(PathBuf),
    /// A store in which there was none.
    Remote(Arc<dyn RemoteStore>),
}

/// Opens stores for a job.
pub(in crate::control) struct Stores {
    platform: Arc<dyn Platform>,
    /// How the store of the job's checkpoints is reached, if it has one.
    own: Option<RemoteConfig>,
}

impl Stores {
    pub(in crate::control) fn new(platform: Arc<dyn Platform>, own: Option<RemoteConfig>) -> Self {
        Self { platform, own }
    }

    /// The platform that opens them.
    pub(super) fn platform(&self) -> &dyn Platform {
        &*self.platform
    }

    /// Opens a store, which is reached as that of the job's checkpoints is unless it says how.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub(super) fn open(
        &self,
        remote: &RemoteConfig,
        doing: &'static str,
    ) -> Result<Arc<dyn RemoteStore>, CheckpointError> {
        let remote = self.own.iter().fold(remote.clone(), RemoteConfig::reached_as);
        let opened = self.platform.remote(&remote);
        opened.map_err(|source| CheckpointError::Remote { doing, place: remote.url().to_owned(), source })
    }

    /// Looks whether a savepoint may be written to a place, on the thread of whoever has asked for it: behind the barrier it would
    /// be too late to say no.
    ///
    /// # Errors
    /// When there is one already, nothing can be written to the directory, or the store cannot be used.
    pub(in crate::control) fn target(
        &self,
        place: &SavepointPlace,
        enough: &dyn Fn() -> bool,
    ) -> Result<Target, Error> {
        place.check("the place of the savepoint")?;
        match place {
            SavepointPlace::Directory(directory) => {
                look_at_directory(&*self.platform.disk(), directory)?;
                Ok(Target::Directory(directory.clone()))
            }
            SavepointPlace::Remote(remote) => {
                let store = self.open(remote, "take a savepoint")?;
                look(&*store, &*self.platform, enough)?;
                Ok(Target::Remote(store))
            }
        }
    }
}
