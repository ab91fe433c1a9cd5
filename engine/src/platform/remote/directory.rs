//! A directory as a remote store: one of a network filesystem, or for a try.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{RemoteError, RemoteStore};
use crate::platform::unique;

/// End of the name of a file that is not finished.
const UNFINISHED: &str = "unfinished";

/// Objects as files in a directory, which has to be there.
#[derive(Debug)]
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// The store in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn failed<'a>(&self, doing: &'a str, path: &'a Path) -> impl Fn(io::Error) -> RemoteError + use<'a> {
        let is_there = self.root.is_dir();
        let root = self.root.clone();
        move |error| {
            let why = format!("cannot {doing} {}: {error}", path.display());
            // A mount that is missing must not be replaced by a directory of this machine.
            if !is_there {
                let fix = format!("Mount or make the directory {}", root.display());
                return RemoteError::Refused { why, fix };
            }
            if error.kind() == io::ErrorKind::PermissionDenied {
                let fix = format!("Let this user write to {}", root.display());
                return RemoteError::Refused { why, fix };
            }
            RemoteError::Failed { why }
        }
    }

    /// Writes a file beside the one that it is to become, durably.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<PathBuf, RemoteError> {
        let directory = path.parent().unwrap_or(&self.root);
        if !self.root.is_dir() {
            return Err(self.failed("write", path)(io::ErrorKind::NotFound.into()));
        }
        fs::create_dir_all(directory).map_err(self.failed("make", directory))?;
        let unfinished = path.with_extension(format!("{:016x}.{UNFINISHED}", unique()));
        let written = File::create_new(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(self.failed("write", &unfinished))?;
        Ok(unfinished)
    }

    fn sync_names(&self, path: &Path) -> Result<(), RemoteError> {
        for directory in path.ancestors().skip(1).take_while(|directory| directory.starts_with(&self.root)) {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(self.failed("sync", directory))?;
        }
        Ok(())
    }

    fn walk(&self, directory: &Path, keys: &mut Vec<String>) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.walk(&entry.path(), keys)?;
            } else if let Some(key) = entry.path().strip_prefix(&self.root).ok().and_then(Path::to_str) {
                keys.push(key.to_owned());
            }
        }
        Ok(())
    }
}

impl RemoteStore for DirectoryStore {
    fn place(&self) -> String {
        format!("file://{}", self.root.display())
    }

    fn put(&self, objects: &[(String, Vec<u8>)]) -> Result<(), RemoteError> {
        for (key, bytes) in objects {
            let path = self.root.join(key);
            let unfinished = self.write(&path, bytes)?;
            fs::rename(&unfinished, &path).map_err(self.failed("write", &path))?;
            self.sync_names(&path)?;
        }
        Ok(())
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<(), RemoteError> {
        let path = self.root.join(key);
        let unfinished = self.write(&path, bytes)?;
        let linked = fs::hard_link(&unfinished, &path);
        // Left behind it would only be garbage.
        let _left = fs::remove_file(&unfinished);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(RemoteError::Taken { key: key.to_owned() })
            }
            linked => linked.map_err(self.failed("write", &path)).and_then(|()| self.sync_names(&path)),
        }
    }

    fn get(&self, keys: &[String], bytes_max: u64) -> Result<Vec<Vec<u8>>, RemoteError> {
        let one = |key: &String| {
            let path = self.root.join(key);
            let length = match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => {
                    return Err(RemoteError::Absent { key: key.clone() });
                }
                found => found.map_err(self.failed("read", &path))?.len(),
            };
            if length > bytes_max {
                return Err(RemoteError::TooLong { key: key.clone(), bytes: length, bytes_max });
            }
            fs::read(&path).map_err(self.failed("read", &path))
        };
        keys.iter().map(one).collect()
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, RemoteError> {
        let directory = self.root.join(prefix);
        if !self.root.is_dir() {
            return Err(self.failed("list", &self.root)(io::ErrorKind::NotFound.into()));
        }
        let mut keys = Vec::new();
        self.walk(&directory, &mut keys).map_err(self.failed("list", &directory))?;
        keys.sort_unstable();
        Ok(keys)
    }

    fn delete(&self, keys: &[String]) -> Result<(), RemoteError> {
        for key in keys {
            let path = self.root.join(key);
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(self.failed("remove", &path))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_and_go_and_one_of_two_wins() {
        let place = tempfile::tempdir().unwrap();
        let store = DirectoryStore::new(place.path());
        assert_eq!(store.list("log/").unwrap(), [""; 0]);
        store.put_if_absent("log/1", b"first").unwrap();
        let second = store.put_if_absent("log/1", b"second");
        assert_eq!(second, Err(RemoteError::Taken { key: "log/1".to_owned() }));
        store.put(&[("blocks/1/2".to_owned(), b"abc".to_vec()), ("log/2".to_owned(), Vec::new())]).unwrap();
        assert_eq!(store.list("log/").unwrap(), ["log/1", "log/2"]);
        assert_eq!(store.get(&["log/1".to_owned()], 5).unwrap(), [b"first"]);
        assert!(matches!(store.get(&["log/1".to_owned()], 4), Err(RemoteError::TooLong { .. })));
        store.delete(&["log/1".to_owned(), "log/3".to_owned()]).unwrap();
        assert!(matches!(store.get(&["log/1".to_owned()], 5), Err(RemoteError::Absent { .. })));
    }

    #[test]
    fn a_directory_that_is_not_mounted_is_not_made() {
        let place = tempfile::tempdir().unwrap();
        let store = DirectoryStore::new(place.path().join("mount"));
        for error in [store.list("log/").unwrap_err(), store.put_if_absent("log/1", b"").unwrap_err()] {
            assert!(matches!(&error, RemoteError::Refused { fix, .. } if fix.contains("Mount")), "{error}");
        }
        assert!(!place.path().join("mount").exists());
    }
}
