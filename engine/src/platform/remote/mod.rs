//! Stores on other machines, which keep objects: named bytes that are put whole, read whole and deleted, as S3 does it.
//!
//! What is asked of them: an object is there whole or not at all, whoever reads or lists sees what was put before, and
//! [`RemoteStore::put_if_absent`] lets one of many win. S3 has that; so has a directory of a local filesystem.
//!
//! Calls block, so they never happen on a worker's thread.

mod config;
mod directory;
mod memory;
#[cfg(feature = "object-store")]
mod s3;
mod watched;

use std::{fmt, sync::Arc};

pub use config::RemoteConfig;
pub use directory::DirectoryStore;
pub use memory::{MemoryFaults, MemoryStore};
pub use watched::{Request, Verdict, WatchedStore};

use super::Nanos;

/// Keeps objects by name. Names consist of lower-case letters, digits, `-`, `.` and `/`.
pub trait RemoteStore: Send + Sync + fmt::Debug {
    /// Where it is, for people.
    fn place(&self) -> String;

    /// Puts objects, in place of those that may be there; several at once where the store can.
    ///
    /// # Errors
    /// When one at least was not put for certain. Others may have been.
    fn put(&self, objects: &[(String, Vec<u8>)]) -> Result<(), RemoteError>;

    /// Puts an object if there is none of this name. Of many that try, one wins.
    ///
    /// # Errors
    /// [`RemoteError::Taken`] when there is one; it may be the one that an earlier call put and reported as failed.
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<(), RemoteError>;

    /// The objects of these names, of `bytes_max` each at most; several at once where the store can.
    ///
    /// # Errors
    /// [`RemoteError::Absent`] when one is not there.
    fn get(&self, keys: &[String], bytes_max: u64) -> Result<Vec<Vec<u8>>, RemoteError>;

    /// The names of all objects that begin with `prefix`, which ends in `/`; sorted.
    ///
    /// # Errors
    /// Of the store.
    fn list(&self, prefix: &str) -> Result<Vec<String>, RemoteError>;

    /// Deletes objects. Those that are not there are no error.
    ///
    /// # Errors
    /// When one at least may still be there.
    fn delete(&self, keys: &[String]) -> Result<(), RemoteError>;

    /// How long the last call took in virtual time. Real stores take real time, and say nothing.
    fn took(&self) -> Nanos {
        0
    }
}

/// What a remote store says instead of doing it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// There is no such object.
    #[error("the object `{key}` is not there")]
    Absent {
        /// Its name.
        key: String,
    },
    /// There is such an object already.
    #[error("the object `{key}` is there already")]
    Taken {
        /// Its name.
        key: String,
    },
    /// The object is longer than it can be.
    #[error("the object `{key}` has {bytes} bytes and can have {bytes_max} at most: it is none of ours")]
    TooLong {
        /// Its name.
        key: String,
        /// Its length.
        bytes: u64,
        /// The greatest length.
        bytes_max: u64,
    },
    /// The store will not do it another time either.
    #[error("{why}. {fix}")]
    Refused {
        /// What it says.
        why: String,
        /// What to do about it.
        fix: String,
    },
    /// It may go well another time. Whether it was done all the same is not known.
    #[error("{why}. Check that the store is up and that this machine can reach it")]
    Failed {
        /// What happened.
        why: String,
    },
}

impl RemoteError {
    /// Whether it is worth another try.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// Opens the store that the settings name. Does not speak with it yet.
///
/// # Errors
/// When the settings cannot be used, or this program was built without what they need.
pub fn open(config: &RemoteConfig) -> Result<Arc<dyn RemoteStore>, RemoteError> {
    match config.target()? {
        config::Target::Directory(root) => Ok(Arc::new(DirectoryStore::new(root))),
        #[cfg(feature = "object-store")]
        config::Target::S3 { bucket, prefix } => Ok(Arc::new(s3::S3Store::open(config, &bucket, &prefix)?)),
        #[cfg(not(feature = "object-store"))]
        config::Target::S3 { .. } => Err(RemoteError::Refused {
            why: format!("`{}` needs a client of S3, and this program was built without one", config.url()),
            fix: "Build it with the feature `object-store` of the crate `tidemill`".to_owned(),
        }),
    }
}
