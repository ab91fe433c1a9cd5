//! What a snapshot holds: found by reading all of it, the newest record of a key counting as it does in a restore.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    disk::Disk,
    format::Malformed,
    records::{Wrong, records, removed_keys},
    restore::{Parts, Piece, RestoredState, read_manifest},
    verify::find_manifests,
};
use crate::{
    key::key_group,
    state::{Slice, StateError, StateName},
};

/// Keys, and bytes of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Keys.
    pub keys: u64,
    /// Bytes of their records: header, key, value and room to grow.
    pub bytes: u64,
}

/// A snapshot, all parts of it that were found together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Its number.
    pub snapshot: u64,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// Its parts.
    pub parts: Vec<PartReport>,
    /// Its states, by name.
    pub states: Vec<StateReport>,
    /// Keys and bytes of each key group that has any.
    pub key_groups: BTreeMap<u32, Count>,
}

/// A part: what one store had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartReport {
    /// Its manifest.
    pub manifest: PathBuf,
    /// The store that wrote it.
    pub store: u128,
    /// Its key groups.
    pub key_groups: Range<u32>,
    /// Segments it needs.
    pub segments: u64,
    /// Bytes of their files.
    pub file_bytes: u64,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReport {
    /// Its name, types and layout.
    pub state: RestoredState,
    /// Its slices, ascending.
    pub slices: Vec<SliceReport>,
}

/// A slice of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceReport {
    /// Which.
    pub slice: Slice,
    /// Keys and bytes that count.
    pub live: Count,
    /// Records and bytes on disk, replaced and removed ones included.
    pub stored: Count,
    /// Keys that the store said it had.
    pub declared_keys: u64,
}

/// Which part of `whole` is not `part`: 0 where there is nothing.
fn rest_of(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 1.0 - part as f64 / whole as f64 }
}

impl SliceReport {
    /// Which part of the bytes of its records is dead.
    pub fn dead_ratio(&self) -> f64 {
        rest_of(self.live.bytes, self.stored.bytes)
    }
}

impl SnapshotReport {
    /// Bytes of the files that it needs.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.file_bytes).sum()
    }

    /// Keys and bytes that count.
    pub fn live(&self) -> Count {
        self.key_groups.values().fold(Count::default(), |all, group| Count {
            keys: all.keys + group.keys,
            bytes: all.bytes + group.bytes,
        })
    }

    /// Which part of its files is not of records that count.
    pub fn dead_ratio(&self) -> f64 {
        rest_of(self.live().bytes, self.file_bytes())
    }
}

/// Reads the snapshots that a path means, as [`verify`](super::verify::verify) takes it: one after another by their
/// numbers.
///
/// # Errors
/// When a file is damaged or missing, when parts of one number do not belong together, and of the disk.
pub fn inspect(disk: &Arc<dyn Disk>, path: &Path) -> Result<Vec<SnapshotReport>, StateError> {
    let mut snapshots = BTreeMap::<u64, Vec<PathBuf>>::new();
    for path in find_manifests(&**disk, path)? {
        let number = read_manifest(&**disk, &path)?.snapshot;
        snapshots.entry(number).or_default().push(path);
    }
    snapshots.values().map(|manifests| inspect_one(disk, manifests)).collect()
}

fn inspect_one(disk: &Arc<dyn Disk>, manifests: &[PathBuf]) -> Result<SnapshotReport, StateError> {
    let parts = Parts::open(Arc::clone(disk), manifests, 0..u32::MAX)?;
    let mut report = SnapshotReport {
        snapshot: parts.snapshot(),
        max_parallelism: parts.max_parallelism(),
        parts: Vec::new(),
        states: Vec::new(),
        key_groups: BTreeMap::new(),
    };
    for path in manifests {
        let manifest = read_manifest(&**disk, path)?;
        report.parts.push(PartReport {
            manifest: path.clone(),
            store: manifest.store,
            key_groups: manifest.key_groups,
            segments: manifest.segments.len() as u64,
            file_bytes: manifest.segments.iter().map(|segment| segment.length).sum(),
        });
    }
    report.parts.sort_by_key(|part| part.key_groups.start);
    for state in parts.states() {
        let slices = parts.slices(&state.name).into_iter();
        let slices = slices.map(|slice| count(&parts, state, slice, &mut report.key_groups));
        let slices = slices.collect::<Result<_, _>>()?;
        report.states.push(StateReport { state: state.clone(), slices });
    }
    Ok(report)
}

fn count(
    parts: &Parts,
    state: &RestoredState,
    slice: Slice,
    groups: &mut BTreeMap<u32, Count>,
) -> Result<SliceReport, StateError> {
    let mut reader = parts.reader(&state.name, slice);
    let mut newest = HashMap::<(u64, Box<[u8]>), u64>::new();
    let mut stored = Count::default();
    let max_parallelism = parts.max_parallelism();
    while let Some(groups) = reader.next_key_groups() {
        let Some(piece) = reader.next_piece()? else { break };
        let counts = |hash| groups.contains(&key_group(hash, max_parallelism));
        let wrong = match piece {
            Piece::Records(bytes) => records(state.layout, bytes).find_map(|record| {
                let record = match record {
                    Ok(record) => record,
                    Err(wrong) => return Some(wrong),
                };
                stored.keys += 1;
                stored.bytes += record.length as u64;
                if !record.dead && counts(record.hash) {
                    newest.insert((record.hash, record.key.into()), record.length as u64);
                }
                None
            }),
            Piece::Removed(bytes) => removed_keys(bytes).find_map(|key| {
                let key = match key {
                    Ok(key) => key,
                    Err(wrong) => return Some(wrong),
                };
                if counts(key.hash) {
                    newest.remove(&(key.hash, key.key.into()));
                }
                None
            }),
        };
        if let Some(wrong) = wrong {
            return Err(not_whole(&reader.last(), wrong, &state.name));
        }
    }
    let mut live = Count::default();
    for ((hash, _), bytes) in &newest {
        let group = groups.entry(key_group(*hash, parts.max_parallelism())).or_default();
        for count in [group, &mut live] {
            count.keys += 1;
            count.bytes += bytes;
        }
    }
    Ok(SliceReport { slice, live, stored, declared_keys: parts.live_keys(&state.name, slice) })
}

fn not_whole(last: &Option<(PathBuf, u64)>, (at, what): Wrong, state: &StateName) -> StateError {
    let (file, offset) = last.clone().unwrap_or_default();
    let what = format!("{what}, in state `{}` of operator `{}`", state.state, state.operator);
    Malformed::at(offset + at as u64, what).of(&file)
}
