//! The writer: makes what was sealed durable, keeps snapshots, and removes files that nothing needs.
//!
//! [`WriterCore`] is the whole of it, one command after another on the caller's thread, so that tests and a
//! simulation can run it; [`Writer`](super::thread::Writer) runs one on a thread of its own.
//!
//! A command that fails leaves the store as healthy as it was: what could not be written stays pending and goes along
//! with the next segment, and files that were finished are never touched.

use std::{
    collections::VecDeque,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    catalog::{Catalog, Usage},
    clean::{Moved, to_be_moved},
    disk::{DirectoryLock, Disk, OldFile, failed},
    export::{self, ExportForm, Exported, publish},
    format::{
        FileKind, kind_of, manifest_path,
        segment::{Contents, SegmentId},
        segment_path,
    },
    restore::Source,
    segment,
};
use crate::{
    log::seal::{BlockId, Sealed, TableId},
    state::StateError,
};

/// Files that are removed between two commands at least, if there are so many: a snapshot makes two.
const REMOVED_MIN: usize = 2;

/// Whose snapshots are written, and where.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The store's own directory; made if it is missing.
    pub directory: PathBuf,
    /// A random number that no other store has.
    pub store: u128,
    /// The key groups that the store owns.
    pub key_groups: Range<u32>,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// Bytes of files beyond twice those that count from which on files are [cleaned](super::clean), as a rule
    /// [`WASTE_BYTES_MAX`](super::clean::WASTE_BYTES_MAX).
    pub waste_bytes_max: u64,
}

/// What the writer is asked to do. Seals are numbered by the store, ascending.
#[derive(Debug)]
pub enum Command {
    /// Makes a seal durable, with all that is pending, so that its memory can be given back. Answered by
    /// [`Event::Durable`], or by nothing when there is nothing to write, or by [`Event::Failed`].
    Spill {
        /// Number of the seal.
        seal: u64,
        /// What it handed over.
        sealed: Sealed,
    },
    /// Makes a snapshot of the state at a seal, and retains it. Answered by [`Event::Durable`] if anything was
    /// written, then [`Event::SnapshotDone`]; or by [`Event::Failed`].
    Snapshot {
        /// Number of the snapshot: none that is retained.
        snapshot: u64,
        /// Number of the seal.
        seal: u64,
        /// What it handed over.
        sealed: Sealed,
    },
    /// Forgets a snapshot and removes the files that only it needed. Answered by [`Event::Released`].
    Release {
        /// Number of the snapshot.
        snapshot: u64,
    },
    /// Brings a retained snapshot to another directory. Answered by [`Event::Exported`] or [`Event::Failed`].
    Export {
        /// Number of the snapshot.
        snapshot: u64,
        /// Where to; a directory for this store alone.
        directory: PathBuf,
        /// How.
        form: ExportForm,
    },
    /// Removes the files that earlier stores left in the directory: when no checkpoint that is kept needs them.
    RemoveEarlier,
}

/// What the writer has to say.
#[derive(Debug)]
pub enum Event {
    /// A segment is durable.
    Durable(DurableSegment),
    /// A snapshot is durable.
    SnapshotDone {
        /// Its number.
        snapshot: u64,
        /// The manifest, beside its segments.
        manifest: PathBuf,
        /// Bytes written for it: segment and manifest.
        bytes_written: u64,
        /// Segments that it needs.
        segments: usize,
        /// How much of the files counts.
        usage: Usage,
    },
    /// A snapshot was exported.
    Exported {
        /// Its number.
        snapshot: u64,
        /// What was done.
        exported: Exported,
    },
    /// A snapshot was forgotten, if there was one of this number.
    Released {
        /// Its number.
        snapshot: u64,
    },
    /// A command failed; nothing durable was harmed, and what was to be written stays pending.
    Failed {
        /// The snapshot it was about, if about one.
        snapshot: Option<u64>,
        /// Why.
        error: StateError,
    },
}

/// A segment that is durable: where the sealed bytes are now.
pub struct DurableSegment {
    /// Its number.
    pub segment: u64,
    /// Its file, open for [direct reads](Disk::open_direct): its name may be gone before anybody hears of it, once no extent
    /// of it counts.
    pub file: Box<dyn OldFile>,
    /// The name that it has or had.
    pub path: PathBuf,
    /// Where the records are, of those seals that had not been durable, and of what was moved from other segments.
    pub extents: Vec<DurableExtent>,
    /// CRC-32C of each page of 4096 bytes, from byte 4096 of the file on; see
    /// [`check_pages`](super::segment::check_pages).
    pub page_checksums: Arc<[u32]>,
    /// Length of the file.
    pub bytes: u64,
}

impl fmt::Debug for DurableSegment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, path, extents, bytes, .. } = self;
        formatter
            .debug_struct("DurableSegment")
            .field("segment", segment)
            .field("path", path)
            .field("extents", extents)
            .field("bytes", bytes)
            .finish_non_exhaustive()
    }
}

/// Bytes of a block, and where in the segment they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurableExtent {
    /// The table.
    pub table: TableId,
    /// The block.
    pub block: BlockId,
    /// Where in the block they begin.
    pub from: u32,
    /// Where they end.
    pub to: u32,
    /// Where they begin in the file, a multiple of 16.
    pub file_offset: u64,
}

/// The writer without a thread.
#[derive(Debug)]
pub struct WriterCore {
    disk: Arc<dyn Disk>,
    settings: StoreSettings,
    catalog: Catalog,
    next_segment: u64,
    /// Files of stores that had the directory before.
    earlier: Vec<PathBuf>,
    /// Files that are needed no more, in the order in which they have to go: a manifest before the segments that it names.
    garbage: VecDeque<PathBuf>,
    /// The first of them could not be removed.
    is_stuck: bool,
    /// Last, so that it is given back when all else is gone.
    _lock: DirectoryLock,
}

impl WriterCore {
    /// Takes the directory for a new, empty store. Files of earlier stores in it stay.
    ///
    /// # Errors
    /// When another store has the directory, naming it and the process; else of the disk.
    pub fn open(disk: Arc<dyn Disk>, settings: StoreSettings) -> Result<Self, StateError> {
        let directory = &settings.directory;
        disk.create_directory(directory).map_err(failed("create", directory))?;
        let lock = disk.lock(directory)?;
        let mut next_segment = 0;
        let (mut earlier, mut garbage) = (Vec::new(), VecDeque::new());
        for path in disk.list(directory).map_err(failed("list", directory))? {
            match kind_of(&path) {
                Some(FileKind::Segment(number)) => {
                    next_segment = next_segment.max(number.saturating_add(1));
                    earlier.push(path);
                }
                Some(FileKind::Manifest(_)) => earlier.push(path),
                Some(FileKind::Unfinished) => garbage.push_back(path),
                None => {}
            }
        }
        let catalog = Catalog::default();
        Ok(Self { disk, settings, catalog, next_segment, earlier, garbage, is_stuck: false, _lock: lock })
    }

    /// Gives the segments of a part that the store is restored from names in its own directory, so that it can take them over.
    /// The names become durable with the first manifest. Returns their numbers, in order; `None` where links cannot be
    /// made: then nothing is taken over, and what they hold has to be written anew.
    pub fn adopt(&mut self, part: &[Arc<Source>]) -> Option<Vec<u64>> {
        let first = self.next_segment;
        let directory = &self.settings.directory;
        for (number, source) in (first..).zip(part) {
            // A number is used once, whatever becomes of it.
            self.next_segment = number + 1;
            if self.disk.link(&source.segment.path, &segment_path(directory, number)).is_err() {
                self.garbage.extend((first..=number).map(|number| segment_path(directory, number)));
                return None;
            }
        }
        let numbers: Vec<u64> = (first..self.next_segment).collect();
        for (number, source) in numbers.iter().zip(part) {
            self.catalog.adopt(*number, source, &self.settings.key_groups);
        }
        Some(numbers)
    }

    /// Does what is asked, removes all that nothing needs any more, and says what became of what was asked.
    pub fn handle(&mut self, command: Command) -> Vec<Event> {
        let events = self.perform(command);
        while self.has_garbage() {
            self.remove_one();
        }
        events
    }

    /// Does what is asked, and says what became of it. What nothing needs any more is left to [`remove_one`](Self::remove_one).
    pub fn perform(&mut self, command: Command) -> Vec<Event> {
        let mut events = Vec::new();
        let (snapshot, result) = match command {
            Command::Spill { seal, sealed } => {
                self.catalog.apply(seal, sealed);
                (None, self.write_pending(&mut events).map(drop))
            }
            Command::Snapshot { snapshot, seal, sealed } => {
                self.catalog.apply(seal, sealed);
                // All tables were there to be sealed.
                self.catalog.end_adoption();
                (Some(snapshot), self.snapshot(snapshot, &mut events))
            }
            Command::Release { snapshot } => {
                if self.catalog.release(snapshot) {
                    self.garbage.push_back(manifest_path(&self.settings.directory, snapshot));
                }
                events.push(Event::Released { snapshot });
                (Some(snapshot), Ok(()))
            }
            Command::Export { snapshot, directory, form } => {
                (Some(snapshot), self.export(snapshot, &directory, form, &mut events))
            }
            Command::RemoveEarlier => {
                self.garbage.extend(self.earlier.drain(..));
                (None, Ok(()))
            }
        };
        if let Err(error) = result {
            events.push(Event::Failed { snapshot, error });
        }
        let directory = &self.settings.directory;
        let unneeded = self.catalog.take_unneeded();
        self.garbage.extend(unneeded.into_iter().map(|number| segment_path(directory, number)));
        // It may work by now.
        self.is_stuck = false;
        events
    }

    /// Whether there are files to be removed, and no reason to think that they cannot be.
    pub fn has_garbage(&self) -> bool {
        !self.is_stuck && !self.garbage.is_empty()
    }

    /// Removes one file that nothing needs any more. Hundreds of segments can become useless at once, and no snapshot is to wait until
    /// they are gone. What cannot be removed is tried again, it and what is behind it, when something else was done.
    pub fn remove_one(&mut self) {
        let Some(path) = self.garbage.front().filter(|_| !self.is_stuck) else { return };
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.is_stuck = true,
            _ => drop(self.garbage.pop_front()),
        }
    }

    /// Removes some files between two commands, so that they do not pile up where commands come without a pause.
    pub fn remove_some(&mut self) {
        for _ in 0..REMOVED_MIN {
            self.remove_one();
        }
    }

    /// The store's own directory.
    pub fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// How much of the files counts.
    pub fn usage(&self) -> Usage {
        self.catalog.usage()
    }

    /// Writes what is pending into a segment, with what counts of some that had better go; its length.
    fn write_pending(&mut self, events: &mut Vec<Event>) -> Result<u64, StateError> {
        if self.catalog.pending().is_empty() {
            return Ok(0);
        }
        // A number is used once, even where the attempt fails and its file cannot be removed.
        let id = SegmentId { store: self.settings.store, number: self.next_segment };
        self.next_segment += 1;
        let directory = &self.settings.directory;
        let moved = to_be_moved(&*self.disk, directory, &self.catalog, self.settings.waste_bytes_max);
        let pending = self.catalog.pending().iter().map(|pending| pending.extent());
        // What is moved is of older seals.
        let extents: Vec<_> = moved.iter().map(Moved::extent).chain(pending).collect();
        let path = segment_path(directory, id.number);
        let opened = segment::write(&*self.disk, directory, id, &extents).and_then(|written| {
            let file = self.disk.open_direct(&path).map_err(failed("open", &path))?;
            Ok((written, file))
        });
        let (written, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.garbage.push_back(path);
                return Err(error);
            }
        };
        drop(extents);
        self.catalog.durable(&written, &moved);
        let bytes = written.footer.length;
        let extents = written.entries.iter().filter_map(|entry| match entry.contents {
            Contents::Removed => None,
            Contents::Records { block, from } => Some(DurableExtent {
                table: entry.table,
                block,
                from,
                to: from + entry.length,
                file_offset: entry.offset,
            }),
        });
        events.push(Event::Durable(DurableSegment {
            segment: id.number,
            extents: extents.collect(),
            file,
            path,
            page_checksums: written.pages,
            bytes,
        }));
        Ok(bytes)
    }

    fn snapshot(&mut self, snapshot: u64, events: &mut Vec<Event>) -> Result<(), StateError> {
        let segment_bytes = self.write_pending(events)?;
        if self.catalog.retains(snapshot) {
            let path = manifest_path(&self.settings.directory, snapshot);
            return Err(failed("create", &path)(io::ErrorKind::AlreadyExists.into()));
        }
        let StoreSettings { directory, store, key_groups, max_parallelism, .. } = &self.settings;
        let manifest = self.catalog.manifest(snapshot, *store, key_groups.clone(), *max_parallelism);
        let bytes = manifest.encode();
        // An earlier snapshot of this number may wait for its removal: this one must not fall to it.
        self.garbage.retain(|garbage| *garbage != manifest_path(directory, snapshot));
        let path = match publish(&*self.disk, directory, snapshot, &bytes) {
            Ok(path) => path,
            Err(error) => {
                // It may be there although its name could not be made durable: nobody is to believe in it. But what
                // an earlier store left under the name is not ours to remove.
                let path = manifest_path(directory, snapshot);
                if !self.earlier.contains(&path) {
                    self.garbage.push_back(path);
                }
                return Err(error);
            }
        };
        self.earlier.retain(|earlier| *earlier != path);
        self.catalog.retain(&manifest);
        events.push(Event::SnapshotDone {
            snapshot,
            manifest: path,
            bytes_written: segment_bytes + bytes.len() as u64,
            segments: manifest.segments.len(),
            usage: self.catalog.usage(),
        });
        Ok(())
    }

    fn export(
        &self,
        snapshot: u64,
        directory: &Path,
        form: ExportForm,
        events: &mut Vec<Event>,
    ) -> Result<(), StateError> {
        let store = &self.settings.directory;
        if !self.catalog.retains(snapshot) {
            let path = manifest_path(store, snapshot);
            return Err(failed("export a snapshot that is not kept in", &path)(
                io::ErrorKind::NotFound.into(),
            ));
        }
        let exported = export::export(&*self.disk, store, snapshot, directory, form)?;
        events.push(Event::Exported { snapshot, exported });
        Ok(())
    }
}
