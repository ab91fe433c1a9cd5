//! A disk in memory that fails, fills up and crashes when told to; for tests and simulation.
//!
//! It keeps what a crash leaves apart from what a reader sees: contents become durable by a sync of the file, names by
//! a sync of the directory. [`MemoryDisk::crash`] goes back to the durable ones, where each name and page that was not
//! synced may have got there all the same, by the roll of a seeded die.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{DirectoryLock, Disk, NewFile, OldFile, STAGING_BYTES, StreamFile, in_use};
use crate::{
    snapshot::{buffer::PageBuffer, format::PAGE_BYTES},
    state::StateError,
};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// When the disk misbehaves. Operations are those that change something: creating, writing, syncing, renaming,
/// linking, removing; the first is number 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// This operation fails; a write gets half of its way.
    pub fail_at: Option<u64>,
    /// This operation and all that follow fail, until [`MemoryDisk::crash`].
    pub dead_from: Option<u64>,
    /// No more than this many bytes fit.
    pub capacity_bytes: Option<u64>,
    /// Nothing can be changed.
    pub read_only: bool,
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
    faults: Faults,
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        let now = self.operations;
        self.operations += 1;
        if self.faults.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if self.faults.fail_at == Some(now) || self.faults.dead_from.is_some_and(|from| now >= from) {
            return Err(io::Error::other("the simulated disk fails"));
        }
        Ok(())
    }

    fn room(&self, more: u64) -> io::Result<()> {
        let Some(capacity) = self.faults.capacity_bytes else { return Ok(()) };
        if self.used_bytes_in(Path::new("")) + more > capacity {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

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
    /// Sets when it misbehaves, and counts operations from 0 again.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.faults = faults;
        state.operations = 0;
    }

    /// Operations since the faults were set.
    pub fn operations(&self) -> u64 {
        self.state().operations
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

    /// What a power cut at this moment leaves; faults are gone, and locks.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        // Neighbouring seeds roll differently, and none is zero, where a xorshift stays.
        let mut die = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd134_2543_de82_ef95;
        let mut roll = move || {
            die ^= die << 13;
            die ^= die >> 7;
            die ^= die << 17;
            die >> 63 == 1
        };
        let State { seen, durable, .. } = &mut *state;
        let names: BTreeSet<_> = seen.keys().chain(durable.keys()).cloned().collect();
        for name in names {
            let (new, old) = (seen.get(&name), durable.get(&name));
            let same = matches!((new, old), (Some(new), Some(old)) if Arc::ptr_eq(new, old));
            if !same && roll() {
                match new.cloned() {
                    Some(file) => durable.insert(name, file),
                    None => durable.remove(&name),
                };
            }
        }
        let files: BTreeMap<_, _> =
            durable.values().map(|file| (Arc::as_ptr(file), Arc::clone(file))).collect();
        for file in files.values() {
            let File { seen, durable } = &mut *lock(file);
            if seen.len() != durable.len() && roll() {
                durable.resize(seen.len(), 0);
            }
            for (old, new) in durable.chunks_mut(PAGE_BYTES).zip(seen.chunks(PAGE_BYTES)) {
                if old != new && roll() {
                    let length = old.len().min(new.len());
                    old[..length].copy_from_slice(&new[..length]);
                }
            }
            seen.clone_from(durable);
        }
        drop(files);
        state.seen = state.durable.clone();
        state.detach();
        state.locks.clear();
        state.faults = Faults::default();
    }

    /// The contents of a file.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        self.state().seen.get(path).map(|file| lock(file).seen.clone())
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

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let file = self.step()?.find(path)?;
        let file = &mut *lock(&file);
        file.durable.clone_from(&file.seen);
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OldFile>> {
        Ok(Box::new(Opened(self.state().find(path)?)))
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

struct Opened(Contents);

impl OldFile for Opened {
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.0).seen.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let file = lock(&self.0);
        let from = file.seen.get(offset as usize..).unwrap_or_default();
        let Some(bytes) = from.get(..into.len()) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        into.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_synced_surely_survives_a_crash() {
        let path = Path::new("d/file");
        let mut left = BTreeSet::new();
        for seed in 0..64 {
            let disk = MemoryDisk::default();
            let mut file = disk.create(path, 4096).unwrap();
            let mut pages = file.buffer().unwrap();
            pages.extend(&[7; 4096]);
            file.write(0, pages).unwrap();
            disk.crash(seed);
            left.insert(disk.contents(path));
        }
        assert!(left.len() >= 3, "nothing, nothing in it, zeros, or all: {} of them", left.len());
        let disk = MemoryDisk::default();
        disk.write_whole(path, b"abc").unwrap();
        assert_eq!(disk.used_bytes(), 3);
        disk.sync_directory(Path::new("d")).unwrap();
        disk.rename(path, Path::new("d/other")).unwrap();
        disk.sync_directory(Path::new("d")).unwrap();
        disk.crash(1);
        assert_eq!(disk.list(Path::new("d")).unwrap(), [Path::new("d/other")]);
        assert_eq!(disk.contents(Path::new("d/other")).unwrap(), b"abc");
    }

    #[test]
    fn links_are_names_of_one_file_and_stay_so_after_a_crash() {
        let (path, link, other) = (Path::new("d/file"), Path::new("d/link"), Path::new("d/other"));
        let disk = MemoryDisk::default();
        disk.write_whole(path, b"abc").unwrap();
        disk.write_whole(other, b"abc").unwrap();
        disk.link(path, link).unwrap();
        disk.sync_directory(Path::new("d")).unwrap();
        for _ in 0..2 {
            assert!(disk.is_same_file(path, link) && disk.is_same_file(path, path));
            assert!(!disk.is_same_file(path, other) && !disk.is_same_file(path, Path::new("d/none")));
            disk.crash(1);
        }
    }

    #[test]
    fn the_end_of_the_process_alone_takes_nothing_and_lets_go_of_everything() {
        let (directory, path) = (Path::new("d"), Path::new("d/file"));
        let disk = MemoryDisk::default();
        let held = disk.lock(directory).unwrap();
        let mut stream = disk.create_stream(path).unwrap();
        stream.write(b"abc").unwrap();
        disk.set_faults(Faults { dead_from: Some(0), ..Faults::default() });
        disk.end_process();
        // What is left of the process reaches nothing any more.
        stream.write(b"def").unwrap();
        assert_eq!(disk.contents(path).unwrap(), b"abc");
        std::mem::forget(held);
        assert!(disk.lock(directory).is_ok());
        // Nothing was synced: a power cut may still take it.
        let left: BTreeSet<_> = (0..64)
            .map(|seed| {
                let disk = MemoryDisk::default();
                disk.create_stream(path).unwrap().write(b"abc").unwrap();
                disk.end_process();
                disk.crash(seed);
                disk.contents(path)
            })
            .collect();
        assert!(left.contains(&None) && left.contains(&Some(b"abc".to_vec())), "{left:?}");
    }
}
