//! Exporting a snapshot: a directory that holds one part whole, wherever the store's own files go later.
//!
//! Segments that an earlier export of the same store left there are kept as they are, so exporting again and again
//! into one directory writes what is new.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    buffer::PageBuffer,
    disk::{Disk, NewFile, OldFile, STAGING_BYTES, failed, read_whole, reads::Reader},
    format::{
        Malformed, PAGE_BYTES,
        manifest::{MANIFEST_BYTES_MAX, Manifest, NeededSegment},
        manifest_path, segment_path,
    },
    segment::Segment,
};
use crate::state::StateError;

/// Bytes read at once where all of a segment is read.
const THROUGH_BYTES: usize = 8 << 20;

/// How segments get to another directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportForm {
    /// As hard links where the filesystem allows it, else as copies. For checkpoints.
    Link,
    /// As copies, which share nothing with the store. For savepoints.
    Copy,
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The manifest, in its new directory.
    pub manifest: PathBuf,
    /// Bytes copied; links cost none.
    pub bytes_copied: u64,
    /// Segments that the directory has for this snapshot.
    pub segments: usize,
}

/// Exports a snapshot from the directory of its store. Every copied byte is read back and verified.
///
/// # Errors
/// When a file of it is damaged, and of the disk. Files may then be left that no manifest names.
pub fn export(
    disk: &dyn Disk,
    store: &Path,
    snapshot: u64,
    target: &Path,
    form: ExportForm,
) -> Result<Exported, StateError> {
    let mut export = Export::begin(disk, store, snapshot, target, form)?;
    loop {
        if let Some(exported) = export.step(disk)? {
            return Ok(exported);
        }
    }
}

/// As [`export`], some megabytes at a time: whoever drives it may stop in between.
pub struct Export {
    store: PathBuf,
    target: PathBuf,
    form: ExportForm,
    snapshot: u64,
    bytes: Vec<u8>,
    manifest: Manifest,
    /// Segments that the target has, or is about to have.
    begun: usize,
    work: Option<Work>,
    bytes_copied: u64,
}

/// What is being done about one segment.
enum Work {
    Copy {
        source: Box<dyn OldFile>,
        file: Box<dyn NewFile>,
        length: u64,
        at: u64,
    },
    /// Its pages up to this one were read back.
    Verify {
        segment: Segment,
        file: Box<dyn OldFile>,
        page: u64,
    },
}

impl Export {
    /// Reads what is to be exported.
    ///
    /// # Errors
    /// As [`export`].
    pub fn begin(
        disk: &dyn Disk,
        store: &Path,
        snapshot: u64,
        target: &Path,
        form: ExportForm,
    ) -> Result<Self, StateError> {
        let source = manifest_path(store, snapshot);
        let bytes = read_whole(disk, &source, MANIFEST_BYTES_MAX)?;
        let manifest = Manifest::decode(&bytes).map_err(|malformed| malformed.of(&source))?;
        disk.create_directory(target).map_err(failed("create", target))?;
        let (store, target) = (store.to_owned(), target.to_owned());
        Ok(Self { store, target, form, snapshot, bytes, manifest, begun: 0, work: None, bytes_copied: 0 })
    }

    /// Bytes copied so far.
    pub fn bytes_copied(&self) -> u64 {
        self.bytes_copied
    }

    /// Does a part of what is left; what was exported, when that was the last.
    ///
    /// # Errors
    /// As [`export`]. No step follows.
    pub fn step(&mut self, disk: &dyn Disk) -> Result<Option<Exported>, StateError> {
        let Some(work) = self.work.take() else { return self.next(disk) };
        let needed = &self.manifest.segments[self.begun - 1];
        let to = segment_path(&self.target, needed.number);
        let worked = work_on(disk, &to, work, &mut self.bytes_copied, || {
            open_needed(disk, &self.target, &self.manifest, needed)
        });
        match worked {
            Ok(work) => self.work = work,
            Err(error) => {
                let _ = disk.remove(&to);
                return Err(error);
            }
        }
        Ok(None)
    }

    /// Begins with the next segment, or publishes the manifest.
    fn next(&mut self, disk: &dyn Disk) -> Result<Option<Exported>, StateError> {
        if let Some(needed) = self.manifest.segments.get(self.begun) {
            self.begun += 1;
            self.work = bring(disk, &self.store, &self.target, &self.manifest, needed, self.form)?;
            return Ok(None);
        }
        // Names of segments first: a manifest never names what a crash can take away.
        disk.sync_directory(&self.target).map_err(failed("sync", &self.target))?;
        let manifest = publish(disk, &self.target, self.snapshot, &self.bytes)?;
        let (bytes_copied, segments) = (self.bytes_copied, self.manifest.segments.len());
        Ok(Some(Exported { manifest, bytes_copied, segments }))
    }
}

/// Copies some of a segment to `to`, or reads some of it back; what is left to do.
fn work_on(
    disk: &dyn Disk,
    to: &Path,
    work: Work,
    copied: &mut u64,
    open: impl FnOnce() -> Result<Segment, StateError>,
) -> Result<Option<Work>, StateError> {
    match work {
        Work::Copy { source, mut file, length, at } if at < length => {
            let mut buffer = file.buffer().map_err(failed("write", to))?;
            buffer.set_length((length - at).min(STAGING_BYTES as u64) as usize);
            source.read_at(at, buffer.bytes_mut()).map_err(failed("read for", to))?;
            let bytes = buffer.bytes().len() as u64;
            file.write(at, buffer).map_err(failed("write", to))?;
            *copied += bytes;
            Ok(Some(Work::Copy { source, file, length, at: at + bytes }))
        }
        Work::Copy { mut file, .. } => {
            file.finish().map_err(failed("write", to))?;
            drop(file);
            let segment = open()?;
            let file = segment.file(disk, true)?;
            Ok(Some(Work::Verify { segment, file, page: 0 }))
        }
        Work::Verify { segment, file, page } => {
            let pages = segment.footer.pages;
            let until = pages.min(page + (THROUGH_BYTES / PAGE_BYTES) as u64);
            read_range(&segment, &mut Reader::default(), &*file, page..until)?;
            Ok((until < pages).then_some(Work::Verify { segment, file, page: until }))
        }
    }
}

/// Writes a manifest under another name, and gives it its own when it is durable.
pub(super) fn publish(
    disk: &dyn Disk,
    directory: &Path,
    snapshot: u64,
    bytes: &[u8],
) -> Result<PathBuf, StateError> {
    let path = manifest_path(directory, snapshot);
    let unfinished = path.with_extension("tmm.new");
    let written = disk
        .write_whole(&unfinished, bytes)
        .map_err(failed("write", &unfinished))
        .and_then(|()| disk.rename(&unfinished, &path).map_err(failed("rename", &unfinished)));
    if let Err(error) = written {
        // The next attempt writes over it.
        let _ = disk.remove(&unfinished);
        return Err(error);
    }
    disk.sync_directory(directory).map_err(failed("sync", directory))?;
    Ok(path)
}

/// Opens a segment and checks that it is the one that is needed.
///
/// # Errors
/// When it is damaged or another one, and of the disk.
pub fn open_needed(
    disk: &dyn Disk,
    directory: &Path,
    manifest: &Manifest,
    needed: &NeededSegment,
) -> Result<Segment, StateError> {
    let path = segment_path(directory, needed.number);
    let segment = Segment::open(disk, &path)?;
    let id = needed.id(manifest.store);
    let (found, footer) = (segment.footer.segment, &segment.footer);
    let what = if found.store != id.store {
        format!("a segment of store {:032x}; the manifest needs one of {:032x}", found.store, id.store)
    } else if found.number != id.number && needed.adopted.is_some() {
        format!("segment {} of its store; the manifest needs segment {}", found.number, id.number)
    } else if found.number != id.number {
        format!("segment {}, and its name says {}", found.number, id.number)
    } else if (footer.length, footer.checksum(), footer.entries)
        != (needed.length, needed.checksum, needed.entries)
    {
        format!("another segment {} than the one that the manifest was written with", needed.number)
    } else {
        return Ok(segment);
    };
    Err(Malformed::at(0, what).of(&path))
}

/// Begins to bring a segment to a directory; what is left to do.
fn bring(
    disk: &dyn Disk,
    store: &Path,
    target: &Path,
    manifest: &Manifest,
    needed: &NeededSegment,
    form: ExportForm,
) -> Result<Option<Work>, StateError> {
    let (from, to) = (segment_path(store, needed.number), segment_path(target, needed.number));
    if open_needed(disk, target, manifest, needed).is_ok() {
        return Ok(None);
    }
    match Segment::open(disk, &to) {
        Ok(other) if other.footer.segment.store != needed.id(manifest.store).store => {
            let what = "a segment of another store; export each store to a directory of its own";
            return Err(Malformed::at(0, what).of(&to));
        }
        // Half of an earlier attempt, or damaged since.
        Ok(_) | Err(StateError::Damaged { .. }) => disk.remove(&to).map_err(failed("remove", &to))?,
        // Most likely nothing is there; else making it says what is wrong.
        Err(_) => {}
    }
    if form == ExportForm::Link && disk.link(&from, &to).is_ok() {
        open_needed(disk, target, manifest, needed)?;
        return Ok(None);
    }
    let source = disk.open(&from).map_err(failed("open", &from))?;
    let length = source.length().map_err(failed("read", &from))?;
    let file = disk.create(&to, length).map_err(failed("create", &to))?;
    Ok(Some(Work::Copy { source, file, length, at: 0 }))
}

/// Reads data pages of a segment, a step at a time, and checks them.
///
/// # Errors
/// When a page is damaged, and of the disk.
pub fn read_range(
    segment: &Segment,
    reader: &mut Reader,
    file: &dyn OldFile,
    pages: Range<u64>,
) -> Result<(), StateError> {
    let step = THROUGH_BYTES / PAGE_BYTES;
    let mut buffer = PageBuffer::default();
    for first in pages.clone().step_by(step) {
        segment.read_pages(reader, file, first..pages.end.min(first + step as u64), &mut buffer)?;
    }
    Ok(())
}
