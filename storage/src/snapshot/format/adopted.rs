//! What a manifest says of a segment that another store wrote and this one has taken over: from version 2 on.

use std::ops::Range;

use super::{
    Malformed,
    bytes::{Reader, Writer},
    segment::SegmentId,
};
use crate::log::seal::TableId;

const TABLE_BYTES: usize = 16;

/// A segment of another store. Its file has a name of this store's, and says itself whose it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// What the file says of itself: the store that wrote it, and the number that it had there.
    pub segment: SegmentId,
    /// Key groups whose keys count; what is there of others is somebody else's, or nobody's.
    pub key_groups: Range<u32>,
    /// How many key groups the store had that wrote it: so one can tell which part of the file counts.
    pub written_for: u32,
    /// Which tables of the file are which of the manifest, ascending by the former. Others do not count.
    pub tables: Vec<(TableId, TableId)>,
}

impl Adopted {
    pub(super) fn encode(&self, out: &mut Writer) {
        out.u128(self.segment.store).u64(self.segment.number);
        out.u32(self.key_groups.start).u32(self.key_groups.end);
        out.u32(self.written_for).u32(self.tables.len() as u32);
        for (theirs, ours) in &self.tables {
            out.u64(theirs.0).u64(ours.0);
        }
    }

    /// Reads what [`encode`](Self::encode) has written, for a part of these key groups.
    pub(super) fn decode(reader: &mut Reader<'_>, part: &Range<u32>) -> Result<Self, Malformed> {
        let at = reader.offset();
        let segment = SegmentId { store: reader.u128()?, number: reader.u64()? };
        let (key_groups, written_for) = (reader.u32()?..reader.u32()?, reader.u32()?);
        let is_within = part.start <= key_groups.start && key_groups.end <= part.end;
        if key_groups.is_empty() || !is_within || (written_for as usize) < key_groups.len() {
            let what =
                format!("a segment written for {written_for} key groups, of which {key_groups:?} count");
            return Err(Malformed::at(at, what));
        }
        let count = reader.u32()?;
        let count = reader.count(count, TABLE_BYTES)?;
        let mut tables = Vec::<(TableId, TableId)>::with_capacity(count);
        for _ in 0..count {
            let at = reader.offset();
            let (theirs, ours) = (TableId(reader.u64()?), TableId(reader.u64()?));
            if tables.last().is_some_and(|(last, _)| *last >= theirs) {
                return Err(Malformed::at(at, "tables of a segment that do not ascend"));
            }
            tables.push((theirs, ours));
        }
        Ok(Self { segment, key_groups, written_for, tables })
    }
}
