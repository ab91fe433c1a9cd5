//! Reading snapshots back: any key groups from any parts.
//!
//! A job of another parallelism has its state in other parts than it wants them: so a subtask opens *all* manifests
//! of a snapshot, of which those that share no key group with it are skipped. What it gets of a part are all records
//! of the part, so the table that loads them keeps those of its own key groups. Where a part has taken over a file of another
//! store, only some key groups of the file count in it, whatever else is there.
//!
//! Within a part the order matters: pieces come in the order of their seals, removed keys before the records of the
//! same seal, and the last word on a key counts. Between parts it does not: no key is in two of them.
//!
//! Files are read in large steps into memory rather than mapped: a mapped file that is cut off while it is read kills
//! the process, and a read one is an error.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    adopt::{PartSources, overlap},
    ahead::{Ahead, Step},
    disk::{Disk, read_whole},
    export::open_needed,
    format::{
        FileKind, Malformed, kind_of,
        manifest::{MANIFEST_BYTES_MAX, Manifest, NeededSegment},
        segment::{Contents, Entry},
    },
    segment::Segment,
};
use crate::{
    log::seal::{Layout, StateDeclaration},
    state::{Slice, StateError, StateName},
};

/// Bytes that are read at once, as long as what is wanted lies that close together.
const STEP_BYTES: u64 = 8 << 20;
/// What lies between two wanted extents is read along up to this length.
const GAP_BYTES: u64 = 16 << 10;

/// A state that some part declares; all that do agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredState {
    /// Its name.
    pub name: StateName,
    /// Name of the key type.
    pub keys: String,
    /// Schema of the values.
    pub values: String,
    /// How records lie.
    pub layout: Layout,
}

/// What a table is restored from, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Keys to remove, in the form of [`RemovedKeys`](crate::log::seal::RemovedKeys).
    Removed(&'a [u8]),
    /// Records, in the state's layout; the first byte is at a multiple of 16.
    Records(&'a [u8]),
}

/// The parts of a snapshot.
#[derive(Debug)]
pub struct Parts {
    disk: Arc<dyn Disk>,
    snapshot: u64,
    max_parallelism: u32,
    states: Vec<RestoredState>,
    tables: BTreeMap<(StateName, Slice), Table>,
    /// Of each part that was opened, the segments that it needs.
    sources: PartSources,
    /// Number of the last seal in any part that was opened.
    seal: u64,
}

#[derive(Debug, Default)]
struct Table {
    live_keys: u64,
    /// How many of them are to be expected in the wanted key groups.
    expected_keys: u64,
    extents: Vec<Found>,
}

/// A segment, as a part needs it. What a store has taken over several parts may need, each for key groups of its own.
#[derive(Debug)]
pub struct Source {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Number of the part, among those that were opened.
    pub part: usize,
    /// Number among the sources of the part.
    pub at: usize,
    /// The key groups whose records count.
    pub key_groups: Range<u32>,
    /// Number of key groups of the store that wrote the segment.
    pub written_for: u32,
    /// Bytes of the extents that count.
    pub live_bytes: u64,
}

/// An extent that counts.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) source: Arc<Source>,
    /// Which of the segment's.
    pub(crate) at: usize,
}

impl Found {
    pub(crate) fn entry(&self) -> &Entry {
        &self.source.segment.entries[self.at]
    }

    fn range(&self) -> Range<u64> {
        let entry = self.entry();
        entry.offset..entry.offset + u64::from(entry.length)
    }
}

impl Parts {
    /// Opens the parts of a snapshot for these key groups: reads all manifests, and the directories of the segments
    /// of those parts that share key groups with them. The segments lie beside their manifest.
    ///
    /// # Errors
    /// When a file is damaged, missing or not what its name says, when manifests are not parts of one snapshot or
    /// declare a state differently, and of the disk.
    pub fn open(
        disk: Arc<dyn Disk>,
        manifests: &[PathBuf],
        key_groups: Range<u32>,
    ) -> Result<Self, StateError> {
        let parts = read_manifests(&*disk, manifests)?;
        let mut all = Self {
            disk,
            snapshot: parts.first().map_or(0, |(_, part)| part.snapshot),
            max_parallelism: parts.first().map_or(0, |(_, part)| part.max_parallelism),
            states: merge_states(&parts)?,
            tables: BTreeMap::new(),
            sources: Vec::new(),
            seal: 0,
        };
        for (path, part) in &parts {
            if !overlap(&part.key_groups, &key_groups).is_empty() {
                all.add(path, part, &key_groups)?;
            }
        }
        Ok(all)
    }

    /// Number of the snapshot.
    pub fn snapshot(&self) -> u64 {
        self.snapshot
    }

    /// Number of key groups of the job that wrote them; 0 when there are no parts.
    pub fn max_parallelism(&self) -> u32 {
        self.max_parallelism
    }

    /// States that any part declares, by name.
    pub fn states(&self) -> &[RestoredState] {
        &self.states
    }

    /// The declaration of a state.
    pub fn state(&self, name: &StateName) -> Option<&RestoredState> {
        self.states.iter().find(|state| state.name == *name)
    }

    /// The slices of a state, ascending.
    pub fn slices(&self, name: &StateName) -> Vec<Slice> {
        let from = (name.clone(), Slice::MIN)..=(name.clone(), Slice::MAX);
        self.tables.range(from).map(|((_, slice), _)| *slice).collect()
    }

    /// Number of keys of a slice in the parts that were opened, as their manifests declare it: if that is right, an upper
    /// bound of those in the wanted key groups.
    pub fn live_keys(&self, name: &StateName, slice: Slice) -> u64 {
        self.tables.get(&(name.clone(), slice)).map_or(0, |table| table.live_keys)
    }

    /// Number of keys of a slice that are to be expected in the wanted key groups, if keys are evenly spread.
    pub fn expected_keys(&self, name: &StateName, slice: Slice) -> u64 {
        self.tables.get(&(name.clone(), slice)).map_or(0, |table| table.expected_keys)
    }

    /// The segments that each part needs.
    pub fn sources(&self) -> &PartSources {
        &self.sources
    }

    /// Number of the last seal in any part.
    pub fn seal(&self) -> u64 {
        self.seal
    }

    /// Bytes of a slice's pieces, those of replaced records included.
    pub fn bytes(&self, name: &StateName, slice: Slice) -> u64 {
        let table = self.tables.get(&(name.clone(), slice));
        let length = |found: &Found| u64::from(found.entry().length);
        table.map_or(0, |table| table.extents.iter().map(length).sum())
    }

    /// Reads a slice; without pieces where there is no such slice.
    pub fn reader(&self, name: &StateName, slice: Slice) -> TableReader {
        let table = self.tables.get(&(name.clone(), slice));
        let extents = table.map_or_else(Vec::new, |table| table.extents.clone());
        TableReader::new(Arc::clone(&self.disk), extents)
    }

    fn add(&mut self, path: &Path, part: &Manifest, wanted: &Range<u32>) -> Result<(), StateError> {
        let mut keys = HashMap::new();
        let share = overlap(&part.key_groups, wanted).len() as f64 / part.key_groups.len() as f64;
        for needed in &part.tables {
            let declaration = needed.declaration;
            // Checked by the decoder: a table's state is declared.
            let Some(state) = part.state(declaration.state) else { continue };
            let key = (state.name.clone(), declaration.slice);
            let table = self.tables.entry(key.clone()).or_default();
            table.live_keys = table.live_keys.saturating_add(needed.live_keys);
            let expected = (needed.live_keys as f64 * share).ceil() as u64;
            table.expected_keys = table.expected_keys.saturating_add(expected);
            keys.insert(declaration.table, key);
        }
        let mut sources = Vec::with_capacity(part.segments.len());
        let mut extents = HashMap::<_, Vec<Found>>::new();
        for needed in &part.segments {
            let source = Arc::new(self.source(path, part, needed, sources.len())?);
            let mut last = 0;
            for at in (0..source.segment.entries.len()).filter(|at| needed.counts(*at)) {
                let entry = &source.segment.entries[at];
                let broken =
                    |what| Malformed::at(source.segment.footer.directory_at(), what).of(&source.segment.path);
                if entry.seal < last || entry.seal > part.seal {
                    return Err(broken(format!("an extent of seal {} out of order", entry.seal)));
                }
                last = entry.seal;
                let Some(key) = needed.table(entry.table).and_then(|table| keys.get(&table)) else {
                    return Err(broken(format!(
                        "an extent of table {} that {} lacks",
                        entry.table.0,
                        path.display()
                    )));
                };
                if !overlap(&source.key_groups, wanted).is_empty() {
                    extents.entry(key).or_default().push(Found { source: Arc::clone(&source), at });
                }
            }
            sources.push(source);
        }
        for (key, mut found) in extents {
            // What was moved to another segment is older than what else is there. Those of several stores share no key.
            found.sort_by_key(|found| {
                let Entry { seal, contents, .. } = found.entry();
                (*seal, *contents != Contents::Removed)
            });
            self.tables.entry(key.clone()).or_default().extents.append(&mut found);
        }
        self.sources.push(sources);
        self.seal = self.seal.max(part.seal);
        Ok(())
    }

    /// Opens a segment that a part needs.
    fn source(
        &self,
        path: &Path,
        part: &Manifest,
        needed: &NeededSegment,
        at: usize,
    ) -> Result<Source, StateError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let segment = Arc::new(open_needed(&*self.disk, directory, part, needed)?);
        let lengths = segment.entries.iter().enumerate().filter(|(at, _)| needed.counts(*at));
        let live_bytes = lengths.map(|(_, entry)| u64::from(entry.length)).sum();
        let (key_groups, written_for) = match &needed.adopted {
            None => (part.key_groups.clone(), part.key_groups.len() as u32),
            Some(adopted) => (adopted.key_groups.clone(), adopted.written_for),
        };
        Ok(Source { segment, part: self.sources.len(), at, key_groups, written_for, live_bytes })
    }
}

/// Reads a manifest and checks that it is the one that its name says.
///
/// # Errors
/// When it is damaged or misplaced, and of the disk.
pub fn read_manifest(disk: &dyn Disk, path: &Path) -> Result<Manifest, StateError> {
    let bytes = read_whole(disk, path, MANIFEST_BYTES_MAX)?;
    let manifest = Manifest::decode(&bytes).map_err(|malformed| malformed.of(path))?;
    match kind_of(path) {
        Some(FileKind::Manifest(number)) if number != manifest.snapshot => {
            let what = format!("the manifest of snapshot {}, and its name says {number}", manifest.snapshot);
            Err(Malformed::at(32, what).of(path))
        }
        _ => Ok(manifest),
    }
}

/// Reads manifests and checks that they are parts of one snapshot.
fn read_manifests(disk: &dyn Disk, paths: &[PathBuf]) -> Result<Vec<(PathBuf, Manifest)>, StateError> {
    let mut parts: Vec<(PathBuf, Manifest)> = Vec::with_capacity(paths.len());
    for path in paths {
        parts.push((path.clone(), read_manifest(disk, path)?));
    }
    parts.sort_by_key(|(_, part)| part.key_groups.start);
    for pair in parts.windows(2) {
        let [(first_path, first), (path, part)] = pair else { continue };
        let what = if part.snapshot != first.snapshot {
            format!(
                "a part of snapshot {}, and that of {} is {}",
                part.snapshot,
                first_path.display(),
                first.snapshot
            )
        } else if part.max_parallelism != first.max_parallelism {
            format!(
                "{} key groups, and {} has {}",
                part.max_parallelism,
                first_path.display(),
                first.max_parallelism
            )
        } else if part.key_groups.start < first.key_groups.end {
            format!("key groups {:?} overlap those of {}", part.key_groups, first_path.display())
        } else {
            continue;
        };
        return Err(Malformed::at(32, what).of(path));
    }
    Ok(parts)
}

/// The states of all parts; those of one name must agree.
fn merge_states(parts: &[(PathBuf, Manifest)]) -> Result<Vec<RestoredState>, StateError> {
    let mut states = BTreeMap::<_, (RestoredState, &Path)>::new();
    for (path, part) in parts {
        for StateDeclaration { name, keys, values, layout, .. } in &part.states {
            let state = RestoredState {
                name: name.clone(),
                keys: keys.clone(),
                values: values.clone(),
                layout: *layout,
            };
            let (first, first_path) = states.entry(name.clone()).or_insert_with(|| (state.clone(), path));
            if *first != state {
                let what = format!(
                    "state `{}` of operator `{}` is declared otherwise than in {}",
                    name.state,
                    name.operator,
                    first_path.display()
                );
                return Err(Malformed::at(0, what).of(path));
            }
        }
    }
    Ok(states.into_values().map(|(state, _)| state).collect())
}

/// Reads the pieces of one slice, part by part. Every byte was checked.
pub struct TableReader {
    extents: Vec<Found>,
    next: usize,
    ahead: Ahead,
    /// Where in the file the pages begin that are in memory, and the extent behind those that they hold.
    start: u64,
    held_to: usize,
}

impl TableReader {
    fn new(disk: Arc<dyn Disk>, extents: Vec<Found>) -> Self {
        let ahead = Ahead::new(disk, steps(&extents));
        Self { extents, next: 0, ahead, start: 0, held_to: 0 }
    }

    /// The next piece, until `None`.
    ///
    /// # Errors
    /// When a page is damaged, and of the disk. The reader is of no use then.
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, StateError> {
        let Some(found) = self.extents.get(self.next) else { return Ok(None) };
        if self.next == self.held_to {
            let step = self.ahead.advance()?;
            self.start = step.start();
            self.held_to += step.extents;
        }
        self.next += 1;
        let entry = *found.entry();
        let at = (entry.offset - self.start) as usize;
        let bytes = &self.ahead.bytes()[at..at + entry.length as usize];
        Ok(Some(match entry.contents {
            Contents::Removed => Piece::Removed(bytes),
            Contents::Records { .. } => Piece::Records(bytes),
        }))
    }

    /// The file of the last piece, and where in it the piece begins: for errors about what is in it.
    pub fn last(&self) -> Option<(PathBuf, u64)> {
        let found = self.extents.get(self.next.checked_sub(1)?)?;
        Some((found.source.segment.path.clone(), found.entry().offset))
    }

    /// The key groups whose keys count in the next piece, until `None`; what it holds of others is another's, or nobody's.
    pub fn next_key_groups(&self) -> Option<Range<u32>> {
        self.extents.get(self.next).map(|found| found.source.key_groups.clone())
    }

    /// What it reads.
    pub(crate) fn extents(&self) -> &[Found] {
        &self.extents
    }
}

/// What is read at once: an extent, and those behind it as far as they are close.
fn steps(extents: &[Found]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = extents;
    while let Some((first, behind)) = rest.split_first() {
        let Range { start, mut end } = first.range();
        // Within a segment extents ascend.
        let close = behind.iter().take_while(|found| {
            let next = found.range();
            let is_close = Arc::ptr_eq(&found.source, &first.source)
                && next.start <= end + GAP_BYTES
                && next.end - start <= STEP_BYTES;
            if is_close {
                end = next.end;
            }
            is_close
        });
        let extents = 1 + close.count();
        steps.push(Step {
            segment: Arc::clone(&first.source.segment),
            pages: Segment::pages_of(start..end),
            extents,
        });
        rest = &rest[extents..];
    }
    steps
}
