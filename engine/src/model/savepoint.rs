//! Where a savepoint is.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::error::Error;
use crate::platform::remote::RemoteConfig;

/// Where a savepoint is, or is to be written to.
///
/// Made of text, it is a remote store if that is a URL (`s3://BUCKET/PREFIX` or `file:///DIRECTORY`, see [`RemoteConfig`]), and else a
/// directory; made of a path, it is a directory. Shown, it is that URL or directory, without any secret.
///
/// What a [`RemoteConfig`] that is a URL alone does not say (endpoint, region, keys) comes from the job's
/// [`CheckpointConfig::remote`](super::checkpoint_config::CheckpointConfig::remote), and from the environment if there is none.
///
/// ```
/// use tidemill_engine::{model::savepoint::SavepointPlace, platform::remote::RemoteConfig};
///
/// let there = SavepointPlace::from("s3://savepoints/orders/before-the-change");
/// assert_eq!(there, RemoteConfig::new("s3://savepoints/orders/before-the-change").into());
/// let here = SavepointPlace::from("/var/lib/orders/before-the-change");
/// assert!(here.as_directory().is_some() && there.as_directory().is_none());
/// assert_eq!(there.to_string(), "s3://savepoints/orders/before-the-change");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SavepointPlace {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A prefix of a remote store, which holds nothing else.
    Remote(RemoteConfig),
}

impl SavepointPlace {
    /// The directory, if it is one of this machine.
    pub fn as_directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory) => Some(directory),
            Self::Remote(_) => None,
        }
    }

    /// Checks the URL, if it is one, and that there is a path, if not.
    ///
    /// # Errors
    /// [`Error::Config`] about `what`, when it names no store and no directory.
    pub fn check(&self, what: &str) -> Result<(), Error> {
        let remote = match self {
            Self::Directory(directory) if directory.as_os_str().is_empty() => {
                return Err(Error::config(
                    format!("{what} is empty"),
                    "a savepoint is in a directory or a remote store".to_owned(),
                    "name the path or the URL; is a variable of the environment not set?".to_owned(),
                ));
            }
            Self::Directory(_) => return Ok(()),
            Self::Remote(remote) => remote,
        };
        remote.check().map_err(|error| {
            Error::config(
                format!("{what} cannot be used"),
                error.to_string(),
                "name such a URL, or a directory".to_owned(),
            )
        })
    }
}

/// Whether it begins with `SCHEME://`.
fn is_url(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
}

impl From<&str> for SavepointPlace {
    fn from(text: &str) -> Self {
        if is_url(text) { Self::Remote(RemoteConfig::new(text)) } else { Self::Directory(text.into()) }
    }
}

impl From<String> for SavepointPlace {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&String> for SavepointPlace {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<PathBuf> for SavepointPlace {
    fn from(directory: PathBuf) -> Self {
        Self::Directory(directory)
    }
}

impl From<&PathBuf> for SavepointPlace {
    fn from(directory: &PathBuf) -> Self {
        Self::Directory(directory.clone())
    }
}

impl From<&Path> for SavepointPlace {
    fn from(directory: &Path) -> Self {
        Self::Directory(directory.to_owned())
    }
}

impl From<RemoteConfig> for SavepointPlace {
    fn from(remote: RemoteConfig) -> Self {
        Self::Remote(remote)
    }
}

impl fmt::Display for SavepointPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => directory.display().fmt(formatter),
            Self::Remote(remote) => remote.url().fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_remote_and_all_else_is_a_directory() {
        for url in ["s3://bucket/prefix", "file:///mnt/savepoints", "gs://bucket", "S3://bucket"] {
            let place = SavepointPlace::from(url);
            assert_eq!(place, SavepointPlace::Remote(RemoteConfig::new(url)));
            assert_eq!((place.to_string().as_str(), place.as_directory()), (url, None));
        }
        for directory in ["/savepoints", "savepoints", "", "s3:/bucket", "a b://c", "://x", "./x://y"] {
            let place = SavepointPlace::from(directory);
            assert_eq!(place.as_directory(), Some(Path::new(directory)));
            assert_eq!(place.to_string(), directory);
        }
        assert!(SavepointPlace::from(Path::new("s3://bucket")).as_directory().is_some());
    }

    #[test]
    fn urls_that_name_no_store_are_refused_in_one_line_and_secrets_are_not_shown() {
        SavepointPlace::from("savepoints").check("savepoint").unwrap();
        SavepointPlace::from("s3://bucket/prefix").check("savepoint").unwrap();
        let empty = SavepointPlace::from("").check("checkpoints.savepoint").unwrap_err().to_string();
        assert!(
            empty.contains("checkpoints.savepoint is empty") && empty.contains("name the path"),
            "{empty}"
        );
        for url in ["gs://bucket", "s3://", "file://relative", "s3://bucket/../x"] {
            let message = SavepointPlace::from(url).check("checkpoints.savepoint").unwrap_err().to_string();
            assert!(message.starts_with("checkpoints.savepoint cannot be used") && message.contains(url));
            assert!(!message.contains('\n'), "{message}");
        }
        let place =
            SavepointPlace::from(RemoteConfig::new("s3://bucket").credentials("a-name", "hidden-word"));
        assert!(!format!("{place} {place:?}").contains("hidden-word"));
    }
}
