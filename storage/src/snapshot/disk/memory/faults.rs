//! How a disk in memory misbehaves, and what a power cut leaves on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use super::{File, MemoryDisk, State, lock};
use crate::snapshot::format::PAGE_BYTES;

/// When the disk misbehaves. Operations are those that change something: creating, writing, cutting, syncing,
/// renaming, linking, removing; the first is number 0. Reads of the contents of files are counted apart from them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// This operation fails; a write gets half of its way.
    pub fail_at: Option<u64>,
    /// This operation and all that follow fail, until [`MemoryDisk::crash`].
    pub dead_from: Option<u64>,
    /// This read fails, though nothing is wrong with the file: the next one gets what is there.
    pub fail_read_at: Option<u64>,
    /// No more than this many bytes fit.
    pub capacity_bytes: Option<u64>,
    /// Nothing can be changed.
    pub read_only: bool,
}

impl State {
    pub(super) fn step(&mut self) -> io::Result<()> {
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

    pub(super) fn read(&mut self) -> io::Result<()> {
        let now = self.reads;
        self.reads += 1;
        if self.faults.fail_read_at == Some(now) {
            return Err(io::Error::other("the simulated disk fails to read"));
        }
        Ok(())
    }

    pub(super) fn room(&self, more: u64) -> io::Result<()> {
        let Some(capacity) = self.faults.capacity_bytes else { return Ok(()) };
        if self.used_bytes_in(Path::new("")) + more > capacity {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

impl MemoryDisk {
    /// What a power cut at this moment leaves; faults are gone, and locks.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut die = Die::new(seed);
        let State { seen, durable, .. } = &mut *state;
        let names: BTreeSet<_> = seen.keys().chain(durable.keys()).cloned().collect();
        for name in names {
            let (new, old) = (seen.get(&name), durable.get(&name));
            let same = matches!((new, old), (Some(new), Some(old)) if Arc::ptr_eq(new, old));
            if !same && die.roll() {
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
            if seen.len() != durable.len() && die.roll() {
                durable.resize(seen.len(), 0);
            }
            for (old, new) in durable.chunks_mut(PAGE_BYTES).zip(seen.chunks(PAGE_BYTES)) {
                if old != new && die.roll() {
                    arrive(old, new, &mut die);
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

    /// Changes bits of one byte of a file, under all its names, as a disk does that grows old: durably, and nobody is told. The same
    /// call again mends it. Whether there is such a byte.
    pub fn rot(&self, path: &Path, offset: u64, bits: u8) -> bool {
        let state = self.state();
        let Ok(file) = state.find(path) else { return false };
        let File { seen, durable } = &mut *lock(&file);
        let Some(byte) = seen.get_mut(offset as usize) else { return false };
        *byte ^= bits;
        durable.get_mut(offset as usize).into_iter().for_each(|byte| *byte ^= bits);
        true
    }
}

/// What a power cut does is rolled with it.
struct Die(u64);

impl Die {
    fn new(seed: u64) -> Self {
        // Neighbouring seeds roll differently, and none is zero, where a xorshift stays.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd134_2543_de82_ef95)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// True every other time.
    fn roll(&mut self) -> bool {
        self.next() >> 63 == 1
    }
}

/// A page that was not synced gets there; now and then with a bit flipped, in a byte that was not what it is now.
fn arrive(old: &mut [u8], new: &[u8], die: &mut Die) {
    let changed: Vec<usize> = (0..old.len().min(new.len())).filter(|at| old[*at] != new[*at]).collect();
    let length = old.len().min(new.len());
    old[..length].copy_from_slice(&new[..length]);
    let is_damaged = die.next() >> 62 == 0;
    if is_damaged && !changed.is_empty() {
        old[changed[(die.next() >> 8) as usize % changed.len()]] ^= 1 << (die.next() >> 61);
    }
}
