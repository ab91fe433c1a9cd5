//! Part manifests: what one store's state was at a snapshot, by the segments that hold it.
//!
//! The extents themselves are named by the segments' directories. The manifest says which of them count, with one bit
//! each, so that it stays small however many records there are; and it holds each segment's length and checksum, so
//! that no other file can take its place.

use std::ops::Range;

use super::{
    Malformed, VERSION, VERSION_ADOPTING,
    adopted::Adopted,
    bytes::{Reader, Writer},
    check_kind, checksum,
    segment::SegmentId,
};
use crate::{
    key::MAX_PARALLELISM_MAX,
    log::{
        seal::{Layout, StateDeclaration, TableDeclaration, TableId},
        sized,
    },
    state::{StateId, StateName},
};

/// First bytes of a part manifest.
pub const MAGIC: [u8; 8] = *b"TIDEPART";
/// A manifest is never longer, so that no file makes a reader allocate without end.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// Least length of what is counted, for the check of the counts.
const STATE_BYTES_MIN: usize = 40;
/// No store has more states.
const STATES_MAX: u32 = 1 << 16;
const TABLE_BYTES: usize = 32;
const SEGMENT_BYTES_MIN: usize = 32;

/// A segment that a part needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededSegment {
    /// Its number.
    pub number: u64,
    /// Length of its file.
    pub length: u64,
    /// Checksum of its footer.
    pub checksum: u32,
    /// Number of extents in it.
    pub entries: u32,
    /// Which of them count: bit `i % 8` of byte `i / 8`; empty when all do.
    pub live: Vec<u8>,
    /// Where it comes from, if another store has written it.
    pub adopted: Option<Adopted>,
}

impl NeededSegment {
    /// Whether extent `i` counts.
    pub fn counts(&self, i: usize) -> bool {
        self.live.is_empty() || self.live.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1)
    }

    /// What the file says of itself in a part of this store.
    pub fn id(&self, store: u128) -> SegmentId {
        self.adopted.as_ref().map_or(SegmentId { store, number: self.number }, |adopted| adopted.segment)
    }

    /// The table of the part that a table of the file is; `None` if it does not count.
    pub fn table(&self, theirs: TableId) -> Option<TableId> {
        let Some(adopted) = &self.adopted else { return Some(theirs) };
        let found = adopted.tables.binary_search_by_key(&theirs, |(theirs, _)| *theirs);
        found.ok().map(|i| adopted.tables[i].1)
    }
}

/// A table, and how many keys it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeededTable {
    /// The table, its state and slice.
    pub declaration: TableDeclaration,
    /// Its number of live keys.
    pub live_keys: u64,
}

/// A part manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The store that wrote it.
    pub store: u128,
    /// Number of the snapshot.
    pub snapshot: u64,
    /// Number of the last seal in it.
    pub seal: u64,
    /// The key groups that the store owned.
    pub key_groups: Range<u32>,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// States that were opened.
    pub states: Vec<StateDeclaration>,
    /// Tables that there were, ascending.
    pub tables: Vec<NeededTable>,
    /// Segments to read, ascending, which is the order to apply them in.
    pub segments: Vec<NeededSegment>,
}

impl Manifest {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        let adopts = self.segments.iter().any(|segment| segment.adopted.is_some());
        let version = if adopts { VERSION_ADOPTING } else { VERSION };
        out.put(&MAGIC).u32(version).u32(0).u128(self.store).u64(self.snapshot).u64(self.seal);
        out.u32(self.key_groups.start).u32(self.key_groups.end).u32(self.max_parallelism);
        out.u32(self.states.len() as u32).u32(self.tables.len() as u32).u32(self.segments.len() as u32);
        for state in &self.states {
            let [kind, a, b, c] = layout_words(state.layout);
            out.u32(state.id.0).u32(kind).u32(a).u32(b).u32(c).u32(0);
            out.string(&state.name.operator)
                .string(&state.name.state)
                .string(&state.keys)
                .string(&state.values);
        }
        for NeededTable { declaration, live_keys } in &self.tables {
            out.u64(declaration.table.0).u64(declaration.slice as u64).u64(*live_keys);
            out.u32(declaration.state.0).u32(0);
        }
        for segment in &self.segments {
            out.u64(segment.number).u64(segment.length).u32(segment.checksum).u32(segment.entries);
            out.u32(segment.live.len() as u32).u32(segment.adopted.is_some().into()).put(&segment.live);
            segment.adopted.iter().for_each(|adopted| adopted.encode(&mut out));
        }
        let sum = checksum(&out.bytes);
        out.u32(sum);
        out.bytes
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When the bytes are none, are damaged, are of a version that cannot be read, or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let version = check_kind(&mut Reader::new(bytes, 0), MAGIC, "part manifest", VERSION_ADOPTING)?;
        let Some(end) = bytes.len().checked_sub(4) else {
            return Err(Malformed::at(0, "the file was cut off"));
        };
        if Reader::new(&bytes[end..], end as u64).u32()? != checksum(&bytes[..end]) {
            return Err(Malformed::at(0, "the manifest's checksum is wrong, or its end is missing"));
        }
        let mut reader = Reader::new(&bytes[..end], 0);
        reader.take(12)?;
        reader.zeros(4)?;
        let (store, snapshot, seal) = (reader.u128()?, reader.u64()?, reader.u64()?);
        let at = reader.offset();
        let (key_groups, max_parallelism) = (reader.u32()?..reader.u32()?, reader.u32()?);
        let sound = key_groups.start < key_groups.end && key_groups.end <= max_parallelism;
        if !sound || max_parallelism > MAX_PARALLELISM_MAX {
            return Err(Malformed::at(at, format!("key groups {key_groups:?} of {max_parallelism}")));
        }
        let (states, tables, segments) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let states = read_states(&mut reader, states)?;
        let tables = read_tables(&mut reader, tables, &states)?;
        let segments = read_segments(&mut reader, segments, version, &key_groups)?;
        if reader.left() > 0 {
            return Err(Malformed::at(reader.offset(), "bytes behind the end"));
        }
        // There is one way to write a manifest, so that bytes and what they mean are never in doubt.
        if version == VERSION_ADOPTING && segments.iter().all(|segment| segment.adopted.is_none()) {
            return Err(Malformed::at(8, "a manifest of version 2 that names no segment of another store"));
        }
        Ok(Self { store, snapshot, seal, key_groups, max_parallelism, states, tables, segments })
    }

    /// The table's declaration and number of keys.
    pub fn table(&self, table: TableId) -> Option<&NeededTable> {
        let found = self.tables.binary_search_by_key(&table, |needed| needed.declaration.table);
        found.ok().map(|i| &self.tables[i])
    }

    /// The declaration of a state.
    pub fn state(&self, state: StateId) -> Option<&StateDeclaration> {
        self.states.iter().find(|declared| declared.id == state)
    }
}

fn layout_words(layout: Layout) -> [u32; 4] {
    match layout {
        Layout::Stride { stride, value_at, value_len } => [1, stride, value_at, value_len],
        Layout::Sized { narrow, align } => [2, narrow.into(), align, 0],
    }
}

fn read_layout(reader: &mut Reader<'_>) -> Result<Layout, Malformed> {
    let at = reader.offset();
    let words = [reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?];
    let layout = match words {
        [1, stride, value_at, value_len]
            if stride > 0
                && stride.is_multiple_of(8)
                && stride as usize <= sized::RECORD_BYTES_MAX
                && matches!(value_at, 8 | 16)
                && value_at.checked_add(value_len).is_some_and(|end| end <= stride) =>
        {
            Layout::Stride { stride, value_at, value_len }
        }
        [2, narrow @ 0..=1, align @ (8 | 16), 0] => Layout::Sized { narrow: narrow == 1, align },
        _ => return Err(Malformed::at(at, format!("a layout {words:?} that cannot be"))),
    };
    reader.zeros(4)?;
    Ok(layout)
}

fn read_states(reader: &mut Reader<'_>, count: u32) -> Result<Vec<StateDeclaration>, Malformed> {
    if count > STATES_MAX {
        return Err(Malformed::at(reader.offset(), format!("{count} states, over {STATES_MAX}")));
    }
    let count = reader.count(count, STATE_BYTES_MIN)?;
    let mut states = Vec::<StateDeclaration>::with_capacity(count);
    for _ in 0..count {
        let at = reader.offset();
        let id = StateId(reader.u32()?);
        let layout = read_layout(reader)?;
        let name = StateName { operator: reader.string()?, state: reader.string()? };
        let state = StateDeclaration { id, name, keys: reader.string()?, values: reader.string()?, layout };
        if states.iter().any(|other| other.id == id || other.name == state.name) {
            return Err(Malformed::at(at, "a state that is declared twice"));
        }
        states.push(state);
    }
    Ok(states)
}

fn read_tables(
    reader: &mut Reader<'_>,
    count: u32,
    states: &[StateDeclaration],
) -> Result<Vec<NeededTable>, Malformed> {
    let count = reader.count(count, TABLE_BYTES)?;
    let mut tables = Vec::<NeededTable>::with_capacity(count);
    for _ in 0..count {
        let at = reader.offset();
        let (table, slice, live_keys) = (TableId(reader.u64()?), reader.u64()? as i64, reader.u64()?);
        let state = StateId(reader.u32()?);
        reader.zeros(4)?;
        if tables.last().is_some_and(|last| last.declaration.table >= table) {
            return Err(Malformed::at(at, "tables that do not ascend"));
        }
        if !states.iter().any(|declared| declared.id == state) {
            return Err(Malformed::at(at, "a table of a state that is not declared"));
        }
        tables.push(NeededTable { declaration: TableDeclaration { table, state, slice }, live_keys });
    }
    Ok(tables)
}

fn read_segments(
    reader: &mut Reader<'_>,
    count: u32,
    version: u32,
    part: &Range<u32>,
) -> Result<Vec<NeededSegment>, Malformed> {
    let count = reader.count(count, SEGMENT_BYTES_MIN)?;
    let mut segments = Vec::<NeededSegment>::with_capacity(count);
    for _ in 0..count {
        let at = reader.offset();
        let (number, length) = (reader.u64()?, reader.u64()?);
        let (checksum, entries, bits) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let is_adopted = match reader.u32()? {
            0 => false,
            1 if version >= VERSION_ADOPTING => true,
            _ => return Err(Malformed::at(reader.offset() - 4, "bytes that have to be zero are not")),
        };
        let live = reader.take(bits as usize)?.to_vec();
        if !live.is_empty() && live.len() != (entries as usize).div_ceil(8) {
            return Err(Malformed::at(at, format!("{bits} bytes of bits for {entries} extents")));
        }
        if segments.last().is_some_and(|last| last.number >= number) {
            return Err(Malformed::at(at, "segments that do not ascend"));
        }
        let adopted = if is_adopted { Some(Adopted::decode(reader, part)?) } else { None };
        segments.push(NeededSegment { number, length, checksum, entries, live, adopted });
    }
    Ok(segments)
}
