//! What a restored store takes over of the files that it is restored from, so that its first snapshot writes what changed.
//!
//! A store gets a directory of its own. The segments it is restored from get a second name there, as hard links, under numbers of
//! its own, and its tables' blocks are made to hold what the stored blocks held, byte for byte: so an extent of such a file *is* a
//! part of a block, as one is that the store has written itself. Nothing else distinguishes them, but that the file says of itself
//! whose it was, that only some of its key groups may count, and that its tables have other numbers.
//!
//! What is taken over is a part, or nothing of it: so the records of a key are all in one order of seals, and what the store
//! writes later comes behind all of them. A part is taken over where at least half of its records are of key groups that the
//! store owns, which bounds what is read and kept in vain; where links can be made; and, of each table, where the blocks are
//! whole. Everything else is read, put at the tail, and written anew.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    clean::is_sparse,
    format::segment::{Contents, Entry},
    restore::{Found, Source},
};
use crate::log::{
    blocks::Shape,
    pool::CHUNK_BYTES,
    seal::{BlockId, TableId},
    sized::RECORD_BYTES_MAX,
};

/// Smaller segments are kept however little of them counts.
const SPARSE_FROM_BYTES: u64 = 1 << 20;

/// So many extents of removed keys of a table may stay as they are: each keeps a segment that may hold nothing else.
const REMOVED_MAX: usize = 16;

/// An extent of a segment that was taken over, in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptedExtent {
    /// The table that it is of now.
    pub table: TableId,
    /// The block whose part it is; `None` for removed keys.
    pub block: Option<BlockId>,
    /// Number of the segment in this store.
    pub segment: u64,
    /// Which extent of it.
    pub entry: usize,
    /// Number of its seal.
    pub seal: u64,
    /// The table that it was of when it was written.
    pub written_as: TableId,
}

/// Whether a store that owns these key groups is better off with the files of a part than with its records alone.
pub fn is_worth_it(part: &[Arc<Source>], wanted: &Range<u32>) -> bool {
    let (mut own, mut all) = (0.0, 0.0);
    for source in part {
        let bytes = source.live_bytes as f64;
        own += bytes * overlap(&source.key_groups, wanted).len() as f64 / f64::from(source.written_for);
        all += bytes;
    }
    own > 0.0 && own * 2.0 >= all
}

/// What two ranges of key groups share.
pub fn overlap(a: &Range<u32>, b: &Range<u32>) -> Range<u32> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// How an extent gets into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its records or removed keys are applied, and written anew if they count.
    Anew,
    /// It becomes a part of this block of the [`Plan`].
    Block(usize),
    /// Its removed keys are applied, and stay where they are.
    Removed,
    /// Its removed keys are applied, and written anew together with others, if they still matter.
    RemovedTogether,
}

/// A block that is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedBlock {
    /// Its length in bytes.
    pub bytes: u32,
    /// Whether its records had better be written anew later: too little else of a file counts.
    pub is_sparse: bool,
}

/// How the extents of a table are taken.
#[derive(Debug, Default)]
pub struct Plan {
    /// Of each extent, in order.
    pub extents: Vec<Taken>,
    /// The blocks that come of them.
    pub blocks: Vec<PlannedBlock>,
}

/// Plans how the extents of a table are taken. `is_adopted` says it of the parts.
pub(crate) fn plan(extents: &[Found], shape: Shape, is_adopted: impl Fn(usize) -> bool) -> Plan {
    let mut plan = Plan::default();
    for part in extents.chunk_by(|a, b| a.source.part == b.source.part) {
        let before = plan.blocks.len();
        let taken =
            is_adopted(part[0].source.part).then(|| plan_part(part, shape, &mut plan.blocks)).flatten();
        match taken {
            Some(taken) => plan.extents.extend(taken),
            None => {
                plan.blocks.truncate(before);
                plan.extents.extend(part.iter().map(|_| Taken::Anew));
            }
        }
    }
    if plan.extents.iter().filter(|taken| **taken == Taken::Removed).count() > REMOVED_MAX {
        let removed = plan.extents.iter_mut().filter(|taken| **taken == Taken::Removed);
        removed.for_each(|taken| *taken = Taken::RemovedTogether);
    }
    plan
}

/// Plans a part; `None` where its blocks are not whole, or none that a table could have.
fn plan_part(part: &[Found], shape: Shape, blocks: &mut Vec<PlannedBlock>) -> Option<Vec<Taken>> {
    // The same block may come twice, in a file that was taken over through two parts: for other key groups.
    let mut growing = HashMap::<(u128, BlockId, u32), usize>::new();
    let bytes_max = if shape.strided { CHUNK_BYTES } else { RECORD_BYTES_MAX + CHUNK_BYTES };
    part.iter()
        .map(|found| {
            let Entry { contents, length, .. } = *found.entry();
            let Contents::Records { block, from } = contents else { return Some(Taken::Removed) };
            let is_sparse = found.source.is_sparse();
            let key = (found.source.segment.footer.segment.store, block, found.source.key_groups.start);
            let at = if from == 0 {
                blocks.push(PlannedBlock { bytes: 0, is_sparse });
                growing.insert(key, blocks.len() - 1);
                blocks.len() - 1
            } else {
                *growing.get(&key)?
            };
            let planned = &mut blocks[at];
            let is_next = planned.bytes == from && (length as usize).is_multiple_of(shape.unit);
            planned.bytes = planned.bytes.checked_add(length)?;
            planned.is_sparse |= is_sparse;
            (is_next && planned.bytes as usize <= bytes_max).then_some(Taken::Block(at))
        })
        .collect()
}

impl Source {
    /// Whether so little of the segment counts that the file had better go.
    fn is_sparse(&self) -> bool {
        let length = self.segment.footer.length;
        length >= SPARSE_FROM_BYTES && is_sparse(self.live_bytes, length)
    }
}

/// The sources of each part, by the part's number.
pub type PartSources = Vec<Vec<Arc<Source>>>;
