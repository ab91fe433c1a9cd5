//! The real disk.
//!
//! Segments are written past the page cache (`O_DIRECT`) where the filesystem takes it, by io_uring where the kernel
//! allows it, else by plain writes: the page cache would keep a second copy of what is in memory anyway, and its
//! writeback stalls others. Reads go through the page cache, which reads ahead.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{DirectoryLock, Disk, NewFile, OldFile, STAGING_BYTES, StreamFile, failed, in_use, uring::Ring};
use crate::{snapshot::buffer::PageBuffer, state::StateError};

/// Name of the file that is locked. It stays when the lock is given back, so that two that come at once lock the same.
const LOCK_FILE: &str = "lock";

/// The real disk. Clones share a ring and its buffers.
#[derive(Clone, Debug, Default)]
pub struct OsDisk {
    ring: Arc<Mutex<Rings>>,
}

#[derive(Debug, Default)]
struct Rings {
    /// At rest, for the next file.
    free: Option<Box<Ring>>,
    /// The kernel said no: not asked again.
    refused: bool,
}

impl OsDisk {
    /// A disk that writes without io_uring.
    pub fn plain() -> Self {
        Self { ring: Arc::new(Mutex::new(Rings { free: None, refused: true })) }
    }

    fn take_ring(&self) -> Option<Box<Ring>> {
        let mut rings = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if rings.free.is_none() && !rings.refused {
            match Ring::new() {
                Ok(ring) => return Some(Box::new(ring)),
                Err(_) => rings.refused = true,
            }
        }
        rings.free.take()
    }
}

impl Disk for OsDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }
    }

    fn lock(&self, directory: &Path) -> Result<DirectoryLock, StateError> {
        let path = directory.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.take(32).read_to_string(&mut text);
                return Err(in_use(directory, text.trim().parse().ok()));
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        // Only for the other's error message.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Box::new(file))
    }

    fn create(&self, path: &Path, length: u64) -> io::Result<Box<dyn NewFile>> {
        let open = |flags| OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(path);
        let file = match open(libc::O_DIRECT) {
            // The filesystem does not do direct writes; the file may have been made all the same.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let _ = fs::remove_file(path);
                open(0)?
            }
            other => other?,
        };
        // Writes within the length may run side by side, writes that extend a file may not.
        file.set_len(length)?;
        Ok(match self.take_ring() {
            Some(ring) => Box::new(RingFile { file, ring: Some(ring), disk: self.clone() }),
            None => Box::new(PlainFile { file, buffer: None }),
        })
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn create_stream(&self, path: &Path) -> io::Result<Box<dyn StreamFile>> {
        Ok(Box::new(Stream(File::create_new(path)?)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn StreamFile>> {
        Ok(Box::new(Stream(OpenOptions::new().append(true).create(true).open(path)?)))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        let metadata = fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() > length { file.set_len(length) } else { Ok(()) }
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OldFile>> {
        Ok(Box::new(ReadOnly(File::open(path)?)))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn OldFile>> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = match open(libc::O_DIRECT) {
            // The filesystem does not do direct reads.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0)?,
            other => other?,
        };
        Ok(Box::new(ReadOnly(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn is_same_file(&self, one: &Path, other: &Path) -> bool {
        let identity = |path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort_unstable();
        Ok(paths)
    }
}

struct Stream(File);

impl StreamFile for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

struct ReadOnly(File);

impl OldFile for ReadOnly {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.0.as_raw_fd())
    }
}

/// Written with one plain write after another.
struct PlainFile {
    file: File,
    buffer: Option<PageBuffer>,
}

impl NewFile for PlainFile {
    fn buffer(&mut self) -> io::Result<PageBuffer> {
        Ok(self.buffer.take().unwrap_or_else(|| PageBuffer::new(STAGING_BYTES)))
    }

    fn write(&mut self, offset: u64, mut pages: PageBuffer) -> io::Result<()> {
        self.file.write_all_at(pages.bytes(), offset)?;
        pages.clear();
        self.buffer = Some(pages);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Written by a ring, a few writes at a time.
struct RingFile {
    file: File,
    /// There until it is dropped.
    ring: Option<Box<Ring>>,
    disk: OsDisk,
}

impl RingFile {
    fn ring(&mut self) -> io::Result<&mut Ring> {
        self.ring.as_deref_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl NewFile for RingFile {
    fn buffer(&mut self) -> io::Result<PageBuffer> {
        self.ring()?.buffer()
    }

    fn write(&mut self, offset: u64, pages: PageBuffer) -> io::Result<()> {
        let ring = self.ring.as_deref_mut().ok_or(io::ErrorKind::NotConnected)?;
        ring.write(&self.file, offset, pages)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.ring()?.wait_for_all()?;
        self.file.sync_data()
    }
}

impl Drop for RingFile {
    fn drop(&mut self) {
        // A ring goes on to the next file only without writes of this one.
        let Some(mut ring) = self.ring.take() else { return };
        if ring.settle() {
            self.disk.ring.lock().unwrap_or_else(PoisonError::into_inner).free = Some(ring);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_on_and_cut_and_a_device_has_no_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let disk = OsDisk::default();
        let kind = |error: io::Error| error.kind();
        assert_eq!(disk.length(&path).map_err(kind), Err(io::ErrorKind::NotFound));
        assert_eq!(disk.cut(&path, 0).map_err(kind), Err(io::ErrorKind::NotFound));
        for text in ["one\n", "two\n"] {
            disk.append(&path).unwrap().write(text.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        for (length, left) in [(9, 8), (8, 8), (4, 4), (0, 0)] {
            disk.cut(&path, length).unwrap();
            assert_eq!(disk.length(&path).unwrap(), Some(left));
        }
        disk.sync_file(&path).unwrap();
        disk.sync_directory(Path::new("")).unwrap();
        assert_eq!(disk.length(directory.path()).map_err(kind), Err(io::ErrorKind::IsADirectory));
        let null = Path::new("/dev/null");
        assert_eq!(disk.length(null).unwrap(), None);
        disk.append(null).unwrap().write(b"away").unwrap();
    }
}
