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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::seal::{Layout, StateDeclaration, TableDeclaration},
        snapshot::format::{
            checksum,
            manifest::{Manifest, NeededSegment, NeededTable},
        },
        state::{StateId, StateName},
    };

    fn manifest(adopted: Option<Adopted>) -> Manifest {
        let declaration = TableDeclaration { table: TableId(2), state: StateId(0), slice: -1 };
        Manifest {
            store: 7,
            snapshot: 3,
            seal: 12,
            key_groups: 3..9,
            max_parallelism: 128,
            states: vec![StateDeclaration {
                id: StateId(0),
                name: StateName::new("operator", "state"),
                keys: "u64".into(),
                values: "u64".into(),
                layout: Layout::Stride { stride: 16, value_at: 8, value_len: 8 },
            }],
            tables: vec![NeededTable { declaration, live_keys: 9 }],
            segments: vec![NeededSegment {
                number: 1,
                length: 1 << 14,
                checksum: 5,
                entries: 9,
                live: vec![0xff, 1],
                adopted,
            }],
        }
    }

    fn adopted() -> Adopted {
        Adopted {
            segment: SegmentId { store: 5, number: 8 },
            key_groups: 4..9,
            written_for: 6,
            tables: vec![(TableId(3), TableId(2))],
        }
    }

    #[test]
    fn both_versions_are_frozen_and_read_back() {
        for (adopted, version, sum) in [(None, 1, FIRST_SUM), (Some(adopted()), 2, SECOND_SUM)] {
            let manifest = manifest(adopted);
            let bytes = manifest.encode();
            assert_eq!(bytes[8], version);
            assert_eq!(checksum(&bytes[..bytes.len() - 4]), sum, "version {version}");
            assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        }
    }

    const FIRST_SUM: u32 = 2_952_895_622;
    const SECOND_SUM: u32 = 4_233_893_870;

    #[test]
    fn what_contradicts_itself_is_refused() {
        let broken = [
            Adopted { key_groups: 2..9, ..adopted() },
            Adopted { key_groups: 4..10, ..adopted() },
            Adopted { key_groups: 5..5, ..adopted() },
            Adopted { written_for: 4, ..adopted() },
            Adopted { tables: vec![(TableId(3), TableId(2)); 2], ..adopted() },
        ];
        for adopted in broken {
            let bytes = manifest(Some(adopted.clone())).encode();
            assert!(Manifest::decode(&bytes).is_err(), "{adopted:?}");
        }
        let mut bytes = manifest(None).encode();
        bytes[8] = 2;
        let end = bytes.len() - 4;
        let sum = checksum(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&sum);
        assert!(Manifest::decode(&bytes).is_err(), "version 2 without need");
    }
}
