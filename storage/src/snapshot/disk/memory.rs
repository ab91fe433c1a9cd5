//! A disk in memory that fails, fills up, rots and crashes when told to; for tests and simulation.
//!
//! It keeps what a crash leaves apart from what a reader sees: contents become durable by a sync of the file, names by
//! a sync of the directory. [`MemoryDisk::crash`] goes back to the durable ones, where each name and page that was not
//! synced may have got there all the same, by the roll of a seeded die; some of those that did are damaged. What was
//! synced is changed by [`MemoryDisk::rot`] alone.

mod faults;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use faults::Faults;

use super::{DirectoryLock, Disk, NewFile, OldFile, STAGING_BYTES, StreamFile, in_use};
use crate::{snapshot::buffer::PageBuffer, state::StateError};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

type Contents = Arc<Mutex<File>>;

#[derive(Clone, Debug, Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    seen: BTreeMap<PathBuf, Contents>,
    durable: BTreeMap<PathBuf, Contents>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    reads: u64,
    faults: Faults,
}

impl State {
    /// Bytes in the files under a directory, each counted once, whatever names it has.
    fn used_bytes_in(&self, directory: &Path) -> u64 {
        let inside = self.seen.iter().filter(|(path, _)| path.starts_with(directory));
        let files: BTreeMap<_, _> = inside.map(|(_, file)| (Arc::as_ptr(file), file)).collect();
        files.values().map(|file| lock(file).seen.len() as u64).sum()
    }

    /// Whoever still has a file open has it in the process that is gone.
    fn detach(&mut self) {
        let mut copies: BTreeMap<*const Mutex<File>, Contents> = BTreeMap::new();
        for file in self.seen.values_mut().chain(self.durable.values_mut()) {
            let copy =
                copies.entry(Arc::as_ptr(file)).or_insert_with(|| Arc::new(Mutex::new(lock(file).clone())));
            *file = Arc::clone(copy);
        }
    }

    fn find(&self, path: &Path) -> io::Result<Contents> {
        self.seen.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl MemoryDisk {
    /// Sets when it misbehaves, and counts operations and reads from 0 again.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.faults = faults;
        (state.operations, state.reads) = (0, 0);
    }

    /// Operations since the faults were set.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Reads of the contents of files since the faults were set.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Bytes in all files.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes_in(Path::new(""))
    }

    /// Bytes in all files under a directory.
    pub fn used_bytes_in(&self, directory: &Path) -> u64 {
        self.state().used_bytes_in(directory)
    }

    /// What the end of the process alone leaves: all that it wrote, though a later power cut may take what it did not sync.
    /// Faults are gone, and locks.
    pub fn end_process(&self) {
        let mut state = self.state();
        state.detach();
        state.locks.clear();
        state.faults = Faults::default();
    }

    /// The contents of a file.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        self.state().seen.get(path).map(|file| lock(file).seen.clone())
    }

    /// All files, with their contents.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.state().seen.iter().map(|(path, file)| (path.clone(), lock(file).seen.clone())).collect()
    }

    /// Puts a file there, durably, whatever was there; the faults do not apply.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let file = Arc::new(Mutex::new(File { seen: bytes.to_vec(), durable: bytes.to_vec() }));
        let mut state = self.state();
        state.seen.insert(path.to_owned(), Arc::clone(&file));
        state.durable.insert(path.to_owned(), file);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.step()?;
        Ok(state)
    }
}

fn lock(file: &Contents) -> MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for MemoryDisk {
    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn make_directory(&self, _: &Path) -> io::Result<()> {
        // Directories exist by what is in them, also those above.
        Ok(())
    }

    fn lock(&self, directory: &Path) -> Result<DirectoryLock, StateError> {
        if !self.state().locks.insert(directory.to_owned()) {
            return Err(in_use(directory, None));
        }
        Ok(Box::new(Held { disk: self.clone(), directory: directory.to_owned() }))
    }

    fn create(&self, path: &Path, length: u64) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.step()?;
        if state.seen.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.room(length)?;
        let seen = vec![0; length as usize];
        let file = Arc::new(Mutex::new(File { seen, durable: Vec::new() }));
        state.seen.insert(path.to_owned(), Arc::clone(&file));
        drop(state);
        Ok(Box::new(Unfinished { disk: self.clone(), file }))
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        state.room(bytes.len() as u64)?;
        let file: Contents = Arc::new(Mutex::new(File { seen: bytes.to_vec(), durable: Vec::new() }));
        state.seen.insert(path.to_owned(), Arc::clone(&file));
        state.step()?;
        let file = &mut *lock(&file);
        file.durable.clone_from(&file.seen);
        Ok(())
    }

    fn create_stream(&self, path: &Path) -> io::Result<Box<dyn StreamFile>> {
        let mut state = self.step()?;
        if state.seen.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Contents::default();
        state.seen.insert(path.to_owned(), Arc::clone(&file));
        drop(state);
        Ok(Box::new(Stream { disk: self.clone(), file }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn StreamFile>> {
        let mut state = self.step()?;
        let file = Arc::clone(state.seen.entry(path.to_owned()).or_default());
        drop(state);
        Ok(Box::new(Stream { disk: self.clone(), file }))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        let file = self.state().find(path)?;
        let length = lock(&file).seen.len() as u64;
        Ok(Some(length))
    }

    fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = self.step()?.find(path)?;
        lock(&file).seen.truncate(length as usize);
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let file = self.step()?.find(path)?;
        let file = &mut *lock(&file);
        file.durable.clone_from(&file.seen);
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OldFile>> {
        let file = self.state().find(path)?;
        Ok(Box::new(Opened { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let file = state.find(from)?;
        state.seen.remove(from);
        state.seen.insert(to.to_owned(), file);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let file = state.find(from)?;
        if state.seen.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.seen.insert(to.to_owned(), file);
        Ok(())
    }

    fn is_same_file(&self, one: &Path, other: &Path) -> bool {
        let state = self.state();
        matches!((state.find(one), state.find(other)), (Ok(one), Ok(other)) if Arc::ptr_eq(&one, &other))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.seen.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_directory(&self, _: &Path) -> io::Result<()> {
        // Directories exist by what is in them.
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let State { seen, durable, .. } = &mut *state;
        durable.retain(|name, _| name.parent() != Some(path));
        let names = seen.iter().filter(|(name, _)| name.parent() == Some(path));
        durable.extend(names.map(|(name, file)| (name.clone(), Arc::clone(file))));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        // Directories exist by what is in them.
        let state = self.state();
        let inside = state.seen.keys().filter_map(|name| {
            let first = name.strip_prefix(path).ok()?.components().next()?;
            Some(path.join(first))
        });
        Ok(inside.collect::<BTreeSet<_>>().into_iter().collect())
    }
}

#[derive(Debug)]
struct Held {
    disk: MemoryDisk,
    directory: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.directory);
    }
}

struct Unfinished {
    disk: MemoryDisk,
    file: Contents,
}

impl NewFile for Unfinished {
    fn buffer(&mut self) -> io::Result<PageBuffer> {
        Ok(PageBuffer::new(STAGING_BYTES))
    }

    fn write(&mut self, offset: u64, pages: PageBuffer) -> io::Result<()> {
        let result = self.disk.state().step();
        let bytes = pages.bytes();
        let arrives = if result.is_ok() { bytes.len() } else { bytes.len() / 2 };
        let at = offset as usize;
        lock(&self.file).seen[at..at + arrives].copy_from_slice(&bytes[..arrives]);
        result
    }

    fn finish(&mut self) -> io::Result<()> {
        self.disk.state().step()?;
        let file = &mut *lock(&self.file);
        file.durable.clone_from(&file.seen);
        Ok(())
    }
}

struct Stream {
    disk: MemoryDisk,
    file: Contents,
}

impl StreamFile for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.step().and_then(|()| state.room(bytes.len() as u64));
        drop(state);
        let arrives = if result.is_ok() { bytes.len() } else { bytes.len() / 2 };
        lock(&self.file).seen.extend_from_slice(&bytes[..arrives]);
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.state().step()?;
        let file = &mut *lock(&self.file);
        file.durable.clone_from(&file.seen);
        Ok(())
    }
}

struct Opened {
    disk: MemoryDisk,
    file: Contents,
}

impl OldFile for Opened {
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.file).seen.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.state().read()?;
        let file = lock(&self.file);
        let from = file.seen.get(offset as usize..).unwrap_or_default();
        let Some(bytes) = from.get(..into.len()) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        into.copy_from_slice(bytes);
        Ok(())
    }
}
