//! Checking a snapshot offline: every byte of every file, and that the records are where they belong.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use super::{
    buffer::PageBuffer,
    disk::{Disk, failed, reads::Reader},
    export::{open_needed, read_range},
    format::{
        FileKind, Malformed, PAGE_BYTES, kind_of,
        manifest::{Manifest, NeededSegment},
        segment::{Contents, DATA_AT, Entry},
    },
    records::{RecordView, Wrong, records, removed_keys},
    restore::read_manifest,
    segment::Segment,
};
use crate::{key::key_group, log::seal::Layout, state::StateError};

/// How deep below a directory manifests are looked for: those of a job are in state/ATTEMPT/OPERATOR/SUBTASK of its directory.
const DEPTH_MAX: usize = 4;

/// Read at once.
const WINDOW_BYTES: u64 = 8 << 20;
/// Longer segments are read past the page cache.
const DIRECT_BYTES: u64 = 1 << 20;

/// What was checked and found right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Part manifests.
    pub manifests: u64,
    /// Segments, each once.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Records that count for some manifest, those that newer ones replace included.
    pub records: u64,
    /// Removed keys.
    pub removed_keys: u64,
}

/// The part manifests that a path means: itself, or all that are in the directory and those below it.
///
/// # Errors
/// When there are none, and of the disk.
pub fn find_manifests(disk: &dyn Disk, path: &Path) -> Result<Vec<PathBuf>, StateError> {
    if kind_of(path).is_some() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    match disk.list(path) {
        Ok(inside) => collect(disk, inside, DEPTH_MAX, &mut found),
        // Whatever the file is called, it may be a manifest.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => found.push(path.to_owned()),
        Err(error) => return Err(failed("list", path)(error)),
    }
    if found.is_empty() {
        let nothing = io::Error::new(io::ErrorKind::NotFound, "no part-*.tmm is there or below");
        return Err(failed("find a snapshot in", path)(nothing));
    }
    Ok(found)
}

fn collect(disk: &dyn Disk, paths: Vec<PathBuf>, depth: usize, found: &mut Vec<PathBuf>) {
    for path in paths {
        match kind_of(&path) {
            Some(FileKind::Manifest(_)) => found.push(path),
            Some(_) => {}
            // Most are no directories.
            None if depth > 0 => {
                disk.list(&path).into_iter().for_each(|inside| collect(disk, inside, depth - 1, found));
            }
            None => {}
        }
    }
}

/// Checks the snapshots that a path means: each manifest, and of each segment that one needs the header, the footer,
/// the directory, every page, and every record and removed key: that they are whole, and of the part's key groups.
///
/// # Errors
/// The first thing that is wrong: file, offset and what. And of the disk.
pub fn verify(disk: &dyn Disk, path: &Path) -> Result<Verified, StateError> {
    let mut verifier = Verifier { disk, read: HashSet::new(), verified: Verified::default() };
    for path in find_manifests(disk, path)? {
        verifier.part(&path)?;
    }
    Ok(verifier.verified)
}

struct Verifier<'a> {
    disk: &'a dyn Disk,
    /// Segments whose pages were read: several manifests of a directory need the same.
    read: HashSet<(PathBuf, u32)>,
    verified: Verified,
}

impl Verifier<'_> {
    fn part(&mut self, path: &Path) -> Result<(), StateError> {
        let manifest = read_manifest(self.disk, path)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        for needed in &manifest.segments {
            let segment = open_needed(self.disk, directory, &manifest, needed)?;
            if self.read.insert((segment.path.clone(), needed.checksum)) {
                self.verified.segments += 1;
                self.verified.bytes += segment.footer.length;
            }
            self.data(&manifest, needed, &segment)?;
        }
        self.verified.manifests += 1;
        Ok(())
    }

    /// Reads all data pages once, a window of whole extents at a time, and walks over what counts.
    fn data(
        &mut self,
        manifest: &Manifest,
        needed: &NeededSegment,
        segment: &Segment,
    ) -> Result<(), StateError> {
        let file = segment.file(self.disk, segment.footer.length > DIRECT_BYTES)?;
        let (mut buffer, mut reader) = (PageBuffer::default(), Reader::default());
        let (mut first, mut covered) = (0, 0);
        while first < segment.entries.len() {
            let end_of = |entry: &Entry| entry.offset + u64::from(entry.length);
            let start = segment.entries[first].offset;
            let rest = &segment.entries[first + 1..];
            let last = first + rest.iter().take_while(|entry| end_of(entry) - start <= WINDOW_BYTES).count();
            let pages = Segment::pages_of(start..end_of(&segment.entries[last]));
            // Pages that no extent reaches: there are none in what the writer writes.
            read_range(segment, &mut reader, &*file, covered..pages.start)?;
            segment.read_pages(&mut reader, &*file, pages.clone(), &mut buffer)?;
            covered = pages.end;
            let base = DATA_AT + pages.start * PAGE_BYTES as u64;
            for i in (first..=last).filter(|i| needed.counts(*i)) {
                let entry = &segment.entries[i];
                let at = (entry.offset - base) as usize;
                let bytes = &buffer.bytes()[at..at + entry.length as usize];
                self.extent(manifest, needed, entry, bytes)
                    .map_err(|(at, what)| Malformed::at(entry.offset + at as u64, what).of(&segment.path))?;
            }
            first = last + 1;
        }
        read_range(segment, &mut reader, &*file, covered..segment.footer.pages)
    }

    fn extent(
        &mut self,
        manifest: &Manifest,
        needed: &NeededSegment,
        entry: &Entry,
        bytes: &[u8],
    ) -> Result<(), Wrong> {
        let layout = layout_of(manifest, needed, entry)?;
        match entry.contents {
            Contents::Records { .. } => {
                self.verified.records += check(manifest, needed, records(layout, bytes))?;
            }
            Contents::Removed => {
                self.verified.removed_keys += check(manifest, needed, removed_keys(bytes))?;
            }
        }
        Ok(())
    }
}

fn layout_of(manifest: &Manifest, needed: &NeededSegment, entry: &Entry) -> Result<Layout, Wrong> {
    let table = needed.table(entry.table).and_then(|table| manifest.table(table));
    let state = table.and_then(|table| manifest.state(table.declaration.state));
    state
        .map(|state| state.layout)
        .ok_or_else(|| (0, format!("an extent of unknown table {}", entry.table.0)))
}

/// Counts, and checks the key groups: of a file that was taken over only some count, and others may be there.
fn check<'a>(
    manifest: &Manifest,
    needed: &NeededSegment,
    found: impl Iterator<Item = Result<RecordView<'a>, Wrong>>,
) -> Result<u64, Wrong> {
    let (mut at, mut count) = (0, 0);
    for record in found {
        let record = record?;
        let group = key_group(record.hash, manifest.max_parallelism);
        at += record.length;
        if let Some(adopted) = &needed.adopted {
            count += u64::from(adopted.key_groups.contains(&group));
            continue;
        }
        if !manifest.key_groups.contains(&group) {
            return Err((
                at - record.length,
                format!("a key of group {group} in a part of groups {:?}", manifest.key_groups),
            ));
        }
        count += 1;
    }
    Ok(count)
}
