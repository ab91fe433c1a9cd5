//! What the store holds on disk, and who needs it: a state machine without any disk in it.
//!
//! Seals are applied in order. Their data are *pending* until a segment with them is durable, so that a failed write
//! loses nothing: the next segment takes them along. An extent of a durable segment is *live* until its block is
//! freed, its table dropped or its removed keys forgotten. A segment is needed while an extent in it is live, or a
//! retained snapshot names it. What is live in a segment may be [moved](super::clean) to another one.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map},
    ops::Range,
    sync::Arc,
};

use super::{
    adopt::{AdoptedExtent, overlap},
    clean::{MOVED_BYTES_MIN, Moved, SEGMENT_BYTES_MAX, is_sparse},
    format::{
        adopted::Adopted,
        manifest::{Manifest, NeededSegment, NeededTable},
        segment::{Contents, Entry, Footer, SegmentId},
    },
    restore::Source,
    segment::{Extent, Written},
};
use crate::{
    log::seal::{BlockId, RemovedKeys, Sealed, SealedRange, StateDeclaration, TableDeclaration, TableId},
    state::StateId,
};

/// Removed keys are cut into extents of about this many bytes, so that readers need no large buffers.
const REMOVED_BYTES: usize = 1 << 20;

/// What counts, and where it is.
#[derive(Debug, Default)]
pub struct Catalog {
    seal: Option<u64>,
    states: Vec<StateDeclaration>,
    tables: BTreeMap<TableId, Table>,
    pending: Vec<Pending>,
    segments: BTreeMap<u64, Segment>,
    /// Segments of each retained snapshot.
    snapshots: BTreeMap<u64, Vec<u64>>,
    /// Whether extents of segments that were taken over may still come to count.
    is_adopting: bool,
}

/// A table that was not dropped, and where its durable data are.
#[derive(Debug)]
struct Table {
    declaration: TableDeclaration,
    live_keys: u64,
    blocks: HashMap<BlockId, Vec<Place>>,
    /// How many extents of records there are of each seal.
    seals: BTreeMap<u64, usize>,
    removed: Vec<Place>,
}

/// An extent of a segment.
#[derive(Clone, Copy, Debug)]
struct Place {
    seal: u64,
    segment: u64,
    entry: usize,
}

impl Table {
    fn add(&mut self, block: BlockId, place: Place) {
        self.blocks.entry(block).or_default().push(place);
        *self.seals.entry(place.seal).or_default() += 1;
    }

    /// Takes the extents of a block that is gone.
    fn free(&mut self, block: BlockId) -> Vec<Place> {
        let places = self.blocks.remove(&block).unwrap_or_default();
        for place in &places {
            if let btree_map::Entry::Occupied(mut extents) = self.seals.entry(place.seal) {
                *extents.get_mut() -= 1;
                if *extents.get() == 0 {
                    extents.remove();
                }
            }
        }
        places
    }

    /// Takes the removed keys that no longer matter: no record is left that is older than their removal.
    fn forget(&mut self) -> Vec<Place> {
        let oldest = self.seals.first_key_value().map_or(u64::MAX, |(seal, _)| *seal);
        self.removed.extract_if(.., |place| place.seal <= oldest).collect()
    }
}

/// Sealed data that no durable segment has.
#[derive(Clone, Debug)]
pub struct Pending {
    seal: u64,
    table: TableId,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    Records(SealedRange),
    Removed(Arc<[u8]>),
}

#[derive(Debug)]
struct Segment {
    length: u64,
    checksum: u32,
    /// Length of each extent.
    lengths: Vec<u32>,
    live: Vec<u8>,
    live_entries: usize,
    live_bytes: u64,
    /// Retained snapshots that name it.
    holders: usize,
    /// Where it comes from, if another store has written it.
    origin: Option<Origin>,
}

/// Of a segment that was taken over: what the manifest says of it, of the tables only those that were there.
#[derive(Debug)]
struct Origin {
    segment: SegmentId,
    key_groups: Range<u32>,
    written_for: u32,
    /// By what they were when it was written.
    tables: BTreeMap<TableId, TableId>,
}

impl Origin {
    fn named(&self) -> Adopted {
        Adopted {
            segment: self.segment,
            key_groups: self.key_groups.clone(),
            written_for: self.written_for,
            tables: self.tables.iter().map(|(theirs, ours)| (*theirs, *ours)).collect(),
        }
    }
}

/// How much of the files counts for the current state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segments that the current state needs.
    pub segments: usize,
    /// Length of these files.
    pub file_bytes: u64,
    /// Bytes of live extents in them. Records within them may have been replaced.
    pub live_bytes: u64,
    /// Bytes that are sealed and not durable.
    pub pending_bytes: u64,
}

impl Pending {
    /// As an extent to be written.
    pub fn extent(&self) -> Extent<'_> {
        let Self { seal, table, data } = self;
        let (contents, bytes) = match data {
            Data::Records(range) => {
                (Contents::Records { block: range.block, from: range.from }, range.bytes())
            }
            Data::Removed(keys) => (Contents::Removed, &**keys),
        };
        Extent { seal: *seal, table: *table, contents, bytes }
    }
}

impl Segment {
    fn is_live(&self, entry: usize) -> bool {
        self.live[entry / 8] >> (entry % 8) & 1 == 1
    }

    /// Lets an extent of a segment that was taken over count.
    fn revive(&mut self, entry: usize) {
        assert!(!self.is_live(entry), "an extent is taken over once");
        self.live[entry / 8] |= 1 << (entry % 8);
        self.live_entries += 1;
        self.live_bytes += u64::from(self.lengths[entry]);
    }

    fn kill(&mut self, entry: usize) {
        assert!(self.is_live(entry), "an extent dies once");
        self.live[entry / 8] &= !(1 << (entry % 8));
        self.live_entries -= 1;
        self.live_bytes -= u64::from(self.lengths[entry]);
    }
}

impl Catalog {
    /// Applies what a seal handed over. Seals have ascending numbers.
    ///
    /// # Panics
    /// When the store breaks its own rules: numbers that do not ascend, data of a table that was not declared.
    pub fn apply(&mut self, seal: u64, sealed: Sealed) {
        assert!(self.seal.is_none_or(|last| last < seal), "seal {seal} after {:?}", self.seal);
        let Sealed { states, tables, adopted, removed, journal, ranges, freed, dropped, live } = sealed;
        for state in states {
            assert!(self.states.iter().all(|other| other.id != state.id), "state {:?} twice", state.id);
            self.states.push(state);
        }
        for declaration in tables {
            assert!(self.has_state(declaration.state), "a table of an undeclared {:?}", declaration.state);
            let table = Table {
                declaration,
                live_keys: 0,
                blocks: HashMap::new(),
                seals: BTreeMap::new(),
                removed: Vec::new(),
            };
            assert!(self.tables.insert(declaration.table, table).is_none(), "{:?} twice", declaration.table);
        }
        for (table, keys) in live {
            if let Some(table) = self.tables.get_mut(&table) {
                table.live_keys = keys;
            }
        }
        self.add_adopted(adopted);
        if !journal.is_empty() {
            let is_free = seal > 0 && self.seal.is_none_or(|last| last < seal - 1);
            assert!(is_free, "no number before seal {seal}, which is after {:?}", self.seal);
            self.add_pending(seal - 1, Vec::new(), journal);
        }
        self.seal = Some(seal);
        self.add_pending(seal, removed, ranges);
        self.free(&freed);
        self.drop_tables(&dropped);
        self.forget();
    }

    /// Takes in a segment that another store has written, under a number of this one. Nothing in it counts before a seal
    /// says so; it is not needed no more before [`end_adoption`](Self::end_adoption).
    pub fn adopt(&mut self, number: u64, source: &Source, key_groups: &Range<u32>) {
        self.is_adopting = true;
        let Footer { segment, length, .. } = source.segment.footer;
        let lengths: Vec<_> = source.segment.entries.iter().map(|entry| entry.length).collect();
        let adopted = Segment {
            length,
            checksum: source.segment.footer.checksum(),
            live: vec![0; lengths.len().div_ceil(8)],
            lengths,
            live_entries: 0,
            live_bytes: 0,
            holders: 0,
            origin: Some(Origin {
                segment,
                key_groups: overlap(&source.key_groups, key_groups),
                written_for: source.written_for,
                tables: BTreeMap::new(),
            }),
        };
        assert!(self.segments.insert(number, adopted).is_none(), "segment {number} twice");
    }

    /// What was taken over and does not count by now never will.
    pub fn end_adoption(&mut self) {
        self.is_adopting = false;
    }

    fn add_adopted(&mut self, adopted: Vec<AdoptedExtent>) {
        for AdoptedExtent { table, block, segment: number, entry, seal, written_as } in adopted {
            // A table that is gone before any seal has told of it needs nothing.
            let Some(owner) = self.tables.get_mut(&table) else { continue };
            let Some(segment) = self.segments.get_mut(&number) else {
                unreachable!("segment {number} was taken over")
            };
            segment.revive(entry);
            segment.origin.iter_mut().for_each(|origin| {
                origin.tables.insert(written_as, table);
            });
            let place = Place { seal, segment: number, entry };
            match block {
                Some(block) => owner.add(block, place),
                None => owner.removed.push(place),
            }
        }
    }

    fn has_state(&self, state: StateId) -> bool {
        self.states.iter().any(|declared| declared.id == state)
    }

    fn add_pending(&mut self, seal: u64, removed: Vec<RemovedKeys>, ranges: Vec<SealedRange>) {
        let first = self.pending.len();
        for RemovedKeys { table, keys } in removed {
            let parts = split_removed(&keys).map(|part| Data::Removed(part.into()));
            self.pending.extend(parts.map(|data| Pending { seal, table, data }));
        }
        let ranges = ranges.into_iter().filter(|range| range.from < range.to);
        self.pending.extend(ranges.map(|range| Pending {
            seal,
            table: range.table,
            data: Data::Records(range),
        }));
        // A table's data lie together, its removed keys before its records as they are to be applied.
        self.pending[first..]
            .sort_by_key(|pending| (pending.table, matches!(pending.data, Data::Records(_))));
        for pending in &self.pending[first..] {
            assert!(self.tables.contains_key(&pending.table), "data of an undeclared {:?}", pending.table);
        }
    }

    fn free(&mut self, freed: &[(TableId, BlockId)]) {
        if freed.is_empty() {
            return;
        }
        let blocks: HashSet<_> = freed.iter().copied().collect();
        self.pending.retain(|pending| match &pending.data {
            Data::Records(range) => !blocks.contains(&(range.table, range.block)),
            Data::Removed(_) => true,
        });
        for (table, block) in freed {
            let places = self.tables.get_mut(table).map(|table| table.free(*block));
            self.kill(places.into_iter().flatten());
        }
    }

    /// Lets removed keys go that no longer matter.
    fn forget(&mut self) {
        let tables = self.tables.values_mut().filter(|table| !table.removed.is_empty());
        let gone: Vec<Place> = tables.flat_map(Table::forget).collect();
        self.kill(gone.into_iter());
    }

    fn drop_tables(&mut self, dropped: &[TableId]) {
        if dropped.is_empty() {
            return;
        }
        let gone: HashSet<_> = dropped.iter().copied().collect();
        self.pending.retain(|pending| !gone.contains(&pending.table));
        for table in dropped {
            let Some(table) = self.tables.remove(table) else { continue };
            self.kill(table.blocks.into_values().flatten());
            self.kill(table.removed.into_iter());
        }
    }

    fn kill(&mut self, places: impl Iterator<Item = Place>) {
        for Place { segment, entry, .. } in places {
            // There as long as one of its extents lives, and this one does.
            if let Some(segment) = self.segments.get_mut(&segment) {
                segment.kill(entry);
            }
        }
    }

    /// What the next segment has to hold, in the order to apply it in; empty when nothing is new.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// Notes that everything pending is durable in this segment, behind what was moved to it.
    pub fn durable(&mut self, written: &Written, moved: &[Moved]) {
        assert_eq!(
            written.entries.len(),
            moved.len() + self.pending.len(),
            "it holds these and what was pending"
        );
        self.pending.clear();
        let number = written.footer.segment.number;
        for (entry, moved) in moved.iter().enumerate() {
            self.relocate(moved, Place { seal: moved.entry.seal, segment: number, entry });
        }
        for (i, Entry { seal, table, contents, .. }) in written.entries.iter().enumerate().skip(moved.len()) {
            let place = Place { seal: *seal, segment: number, entry: i };
            let Some(table) = self.tables.get_mut(table) else { unreachable!("pending data have a table") };
            match contents {
                Contents::Records { block, .. } => table.add(*block, place),
                Contents::Removed => table.removed.push(place),
            }
        }
        let entries = written.entries.len();
        let lengths: Vec<_> = written.entries.iter().map(|entry| entry.length).collect();
        let mut live = vec![u8::MAX; entries.div_ceil(8)];
        if let (Some(last), rest @ 1..) = (live.last_mut(), entries % 8) {
            *last = (1 << rest) - 1;
        }
        let live_bytes = lengths.iter().copied().map(u64::from).sum();
        let (length, checksum) = (written.footer.length, written.footer.checksum());
        let segment = Segment {
            length,
            checksum,
            lengths,
            live,
            live_entries: entries,
            live_bytes,
            holders: 0,
            origin: None,
        };
        assert!(self.segments.insert(number, segment).is_none(), "segment {number} twice");
        self.forget();
    }

    /// Notes that an extent is elsewhere.
    fn relocate(&mut self, moved: &Moved, to: Place) {
        let Entry { table, contents, .. } = moved.entry;
        let places = self.tables.get_mut(&table).and_then(|table| match contents {
            Contents::Records { block, .. } => table.blocks.get_mut(&block),
            Contents::Removed => Some(&mut table.removed),
        });
        let mut places = places.into_iter().flatten();
        let Some(place) = places.find(|place| (place.segment, place.entry) == moved.from) else {
            unreachable!("an extent that counts has its place")
        };
        let from = std::mem::replace(place, to);
        self.kill(std::iter::once(from));
    }

    /// Segments of which so little counts that their files had better go, those first of which least does: as soon as files have
    /// more than half, and `waste_bytes_max` bytes more, that do not count. What counts in them is no longer than what is pending.
    pub fn sparse(&self, waste_bytes_max: u64) -> Vec<u64> {
        let Usage { file_bytes, live_bytes, pending_bytes, .. } = self.usage();
        if file_bytes <= live_bytes.saturating_mul(2).saturating_add(waste_bytes_max) {
            return Vec::new();
        }
        // Of what was taken over only some key groups may count.
        let may_go = |segment: &Segment| {
            segment.live_entries > 0
                && is_sparse(segment.live_bytes, segment.length)
                && segment.origin.is_none()
        };
        let mut sparse: Vec<_> = self.segments.iter().filter(|(_, segment)| may_go(segment)).collect();
        sparse.sort_by_key(|(_, segment)| segment.live_bytes * 1_000 / segment.length);
        let (mut bytes, bytes_max) = (0, pending_bytes.max(MOVED_BYTES_MIN));
        sparse.retain(|(_, segment)| {
            let max = if bytes == 0 { bytes_max.max(SEGMENT_BYTES_MAX) } else { bytes_max };
            let fits = bytes + segment.live_bytes <= max;
            bytes += if fits { segment.live_bytes } else { 0 };
            fits
        });
        sparse.into_iter().map(|(number, _)| *number).collect()
    }

    /// Whether an extent of a segment counts.
    pub fn counts(&self, segment: u64, entry: usize) -> bool {
        self.segments.get(&segment).is_some_and(|segment| segment.is_live(entry))
    }

    /// What a snapshot of the current state names. Needs that nothing is pending.
    pub fn manifest(&self, snapshot: u64, store: u128, key_groups: Range<u32>, max: u32) -> Manifest {
        assert!(self.pending.is_empty(), "a snapshot of what is not durable");
        let segments = self.segments.iter().filter(|(_, segment)| segment.live_entries > 0);
        Manifest {
            store,
            snapshot,
            seal: self.seal.unwrap_or(0),
            key_groups,
            max_parallelism: max,
            states: self.states.clone(),
            tables: self
                .tables
                .values()
                .map(|table| NeededTable { declaration: table.declaration, live_keys: table.live_keys })
                .collect(),
            segments: segments
                .map(|(number, segment)| NeededSegment {
                    number: *number,
                    length: segment.length,
                    checksum: segment.checksum,
                    entries: segment.lengths.len() as u32,
                    live: if segment.live_entries == segment.lengths.len() {
                        Vec::new()
                    } else {
                        segment.live.clone()
                    },
                    adopted: segment.origin.as_ref().map(Origin::named),
                })
                .collect(),
        }
    }

    /// Keeps the segments of a snapshot until it is released.
    pub fn retain(&mut self, manifest: &Manifest) {
        self.release(manifest.snapshot);
        let segments: Vec<_> = manifest.segments.iter().map(|segment| segment.number).collect();
        for number in &segments {
            self.segments.get_mut(number).into_iter().for_each(|segment| segment.holders += 1);
        }
        self.snapshots.insert(manifest.snapshot, segments);
    }

    /// Forgets a snapshot; whether it was retained.
    pub fn release(&mut self, snapshot: u64) -> bool {
        let Some(segments) = self.snapshots.remove(&snapshot) else { return false };
        for number in segments {
            self.segments.get_mut(&number).into_iter().for_each(|segment| segment.holders -= 1);
        }
        true
    }

    /// Whether a snapshot is retained.
    pub fn retains(&self, snapshot: u64) -> bool {
        self.snapshots.contains_key(&snapshot)
    }

    /// Takes the segments that nothing needs any more; their files may go.
    pub fn take_unneeded(&mut self) -> Vec<u64> {
        let is_adopting = self.is_adopting;
        let unneeded = |segment: &mut Segment| {
            segment.live_entries == 0 && segment.holders == 0 && !(is_adopting && segment.origin.is_some())
        };
        self.segments.extract_if(.., |_, segment| unneeded(segment)).map(|(number, _)| number).collect()
    }

    /// How much counts.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for segment in self.segments.values().filter(|segment| segment.live_entries > 0) {
            usage.segments += 1;
            usage.file_bytes += segment.length;
            usage.live_bytes += segment.live_bytes;
        }
        usage.pending_bytes = self.pending.iter().map(|pending| pending.extent().bytes.len() as u64).sum();
        usage
    }
}

/// Cuts removed keys between two of them. What cannot be read as keys stays whole.
fn split_removed(mut keys: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let mut end = 0;
        while end < keys.len().min(REMOVED_BYTES) {
            let length = keys.get(end + 8..end + 12).and_then(|bytes| bytes.try_into().ok());
            end = match length.map(|bytes| end + 12 + u32::from_le_bytes(bytes) as usize) {
                Some(next) if next <= keys.len() => next,
                _ => keys.len(),
            };
        }
        let (part, rest) = keys.split_at(end);
        keys = rest;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_keys_are_cut_between_keys() {
        let key = |length: u32| {
            let mut key = vec![7; 8];
            key.extend(length.to_le_bytes());
            key.extend(std::iter::repeat_n(9, length as usize));
            key
        };
        let keys: Vec<u8> = (0..300_000).flat_map(|i| key(i % 7)).collect();
        let parts: Vec<_> = split_removed(&keys).collect();
        assert_eq!(parts.concat(), keys);
        assert!(parts.len() > 3 && parts.iter().all(|part| part.len() < REMOVED_BYTES + 20));
        assert!(parts.iter().all(|part| part[..8] == [7; 8]));
        assert_eq!(split_removed(&keys[..5]).collect::<Vec<_>>(), [&keys[..5]]);
    }
}
