//! What the disk can do by itself, measured beside what the store does with it; and where the files of a store go.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use memmap2::{Advice, MmapMut};
use tidemill::{
    platform::Random,
    storage::{
        snapshot::disk::os::OsDisk,
        store::files::{FileOptions, WriterKind},
    },
};

use crate::{cases::scratch::Scratch, error::BenchError};

/// `O_DIRECT`: past the page cache, whose speed is that of memory.
const DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };
/// Bytes of one sequential read or write.
const LARGE_BYTES: usize = 1 << 20;
/// Bytes of one random read.
const PAGE_BYTES: usize = 4096;
/// Reads or writes under way at once: sequential, and random.
const SEQUENTIAL: usize = 4;
const RANDOM: usize = 32;

/// The files of a store.
pub(super) fn files(scratch: &Scratch) -> FileOptions {
    let disk = std::sync::Arc::new(OsDisk::default());
    FileOptions {
        directory: scratch.path().join("store"),
        store: 1,
        disk,
        notify: None,
        writer: WriterKind::Thread,
    }
}

/// A file of whole pages, to measure with.
pub(super) struct Probe {
    path: PathBuf,
    bytes: u64,
    /// Bytes per second of writing it and making it durable.
    pub(super) write_rate: f64,
}

impl Probe {
    /// Writes a file of so many bytes.
    pub(super) fn write(directory: &Path, bytes: u64) -> Result<Self, BenchError> {
        let path = directory.join("probe");
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).custom_flags(DIRECT).open(&path)?;
        let start = Instant::now();
        at_once(SEQUENTIAL, |lane| {
            let mut buffer = Buffer::new(LARGE_BYTES);
            buffer.bytes().fill(0x5a);
            offsets(bytes, lane).try_for_each(|offset| file.write_all_at(buffer.bytes(), offset))
        })?;
        file.sync_all()?;
        let write_rate = bytes as f64 / start.elapsed().as_secs_f64();
        Ok(Self { path, bytes, write_rate })
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(DIRECT).open(&self.path)
    }

    /// Bytes per second of reading it from front to back.
    pub(super) fn read_rate(&self) -> Result<f64, BenchError> {
        let file = self.open()?;
        let start = Instant::now();
        at_once(SEQUENTIAL, |lane| {
            let mut buffer = Buffer::new(LARGE_BYTES);
            offsets(self.bytes, lane).try_for_each(|offset| file.read_exact_at(buffer.bytes(), offset))
        })?;
        Ok(self.bytes as f64 / start.elapsed().as_secs_f64())
    }

    /// Bytes per second of reading it from front to back into huge pages that were never touched: what any program
    /// takes that has the file in its memory at the end.
    pub(super) fn read_rate_into_new_memory(&self) -> Result<f64, BenchError> {
        let file = self.open()?;
        let start = Instant::now();
        let mut memory = MmapMut::map_anon(self.bytes as usize)?;
        // Where there are no huge pages, it is small ones.
        let _ = memory.advise(Advice::HugePage);
        let mut lanes: Vec<Vec<(u64, &mut [u8])>> = (0..SEQUENTIAL).map(|_| Vec::new()).collect();
        for (piece, into) in memory.chunks_exact_mut(LARGE_BYTES).enumerate() {
            lanes[piece % SEQUENTIAL].push(((piece * LARGE_BYTES) as u64, into));
        }
        let file = &file;
        thread::scope(|scope| {
            let read = |lane: Vec<(u64, &mut [u8])>| {
                lane.into_iter().try_for_each(|(offset, into)| file.read_exact_at(into, offset))
            };
            let lanes: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(move || read(lane))).collect();
            lanes.into_iter().try_for_each(|lane| {
                lane.join().unwrap_or_else(|_| Err(io::Error::other("a probing thread failed")))
            })
        })?;
        Ok(self.bytes as f64 / start.elapsed().as_secs_f64())
    }

    /// Pages per second, read at random for so long.
    pub(super) fn random_reads(&self, duration: Duration) -> Result<f64, BenchError> {
        let file = self.open()?;
        let pages = self.bytes / PAGE_BYTES as u64;
        let start = Instant::now();
        let counts = at_once(RANDOM, |lane| {
            let (mut buffer, mut random) = (Buffer::new(PAGE_BYTES), Random::from_seed(lane as u64));
            let mut count = 0;
            while start.elapsed() < duration {
                file.read_exact_at(buffer.bytes(), random.below(pages) * PAGE_BYTES as u64)?;
                count += 1;
            }
            Ok(count)
        })?;
        Ok(counts.into_iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64())
    }
}

/// Every fourth large piece.
fn offsets(bytes: u64, lane: usize) -> impl Iterator<Item = u64> {
    (lane as u64..bytes / LARGE_BYTES as u64).step_by(SEQUENTIAL).map(|piece| piece * LARGE_BYTES as u64)
}

fn at_once<T: Send>(lanes: usize, run: impl Fn(usize) -> io::Result<T> + Sync) -> io::Result<Vec<T>> {
    let run = &run;
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|lane| scope.spawn(move || run(lane))).collect();
        lanes
            .into_iter()
            .map(|lane| lane.join().unwrap_or_else(|_| Err(io::Error::other("a probing thread failed"))))
            .collect()
    })
}

/// Bytes at a page's boundary, as direct reads and writes need them.
struct Buffer {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        let memory = vec![0; len + PAGE_BYTES];
        let from = memory.as_ptr().align_offset(PAGE_BYTES);
        Self { memory, from, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}
