//! What a seal hands over: everything that changed since the one before, as data that no one changes any more.
//!
//! A table's records lie in *blocks* of memory that only grow. A seal notes how far each block is filled; what
//! lies below never changes again, so the writer reads it from its own thread while the table goes on above. A
//! change of a sealed record writes a new one into an unsealed block; the last one counts. So a table is
//! restored by reading the ranges that were sealed in the order of their seals, the newest record of a key
//! wins, after applying each seal's removed keys before its ranges. Some of the ranges may be copied behind the
//! seal: what it is *owed*.

use super::block::Block;
use crate::{
    snapshot::adopt::AdoptedExtent,
    state::{Slice, StateId, StateName},
};
use std::sync::Arc;

/// A table, unique within a store for its whole life; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u64);

/// A block of a table, unique within a store for its whole life; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u64);

/// How the records of a state lie in its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Narrow keys and values of one size: records of `stride` bytes, one after another: the key's hash (8 bytes,
    /// little-endian), then the archived value at `value_at`.
    Stride {
        /// Bytes per record, a multiple of 8.
        stride: u32,
        /// Where in it the value begins: 8 or 16.
        value_at: u32,
        /// Length of the archived value.
        value_len: u32,
    },
    /// Everything else: each record begins at a multiple of 16 bytes with a header that gives its size; see
    /// [`sized`](super::sized).
    Sized {
        /// Whether the hash is the key, so that no key bytes are stored.
        narrow: bool,
        /// Alignment of the value within its record: 8 or 16.
        align: u32,
    },
}

/// A state and the types that it was opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDeclaration {
    /// By which number tables refer to it, within this store.
    pub id: StateId,
    /// Its stable name.
    pub name: StateName,
    /// Name of the key type, for errors and the tools.
    pub keys: String,
    /// Schema of the values, as [`Record::schema`](crate::record::Record::schema) gives it.
    pub values: String,
    /// How records lie.
    pub layout: Layout,
}

/// A table that was made since the last seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDeclaration {
    /// The table.
    pub table: TableId,
    /// The state that it is a slice of.
    pub state: StateId,
    /// Which slice.
    pub slice: Slice,
}

/// Bytes of a block that were filled since the last seal: whole records, in `from..to` of the block.
#[derive(Clone, Debug)]
pub struct SealedRange {
    /// The table.
    pub table: TableId,
    /// The block.
    pub block: BlockId,
    /// The memory.
    pub memory: Arc<Block>,
    /// Where in the block the range begins, in bytes; a multiple of 8.
    pub from: u32,
    /// Where it ends.
    pub to: u32,
}

impl SealedRange {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory.sealed(self.from as usize..self.to as usize)
    }
}

/// Keys that were removed from a table since the last seal and may have older records below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedKeys {
    /// The table.
    pub table: TableId,
    /// One after another: hash (8 bytes, little-endian), length of the key's bytes (4 bytes, little-endian; 0 for a
    /// narrow key), the key's bytes.
    pub keys: Vec<u8>,
}

/// Everything that changed since the last seal.
#[derive(Clone, Debug, Default)]
pub struct Sealed {
    /// States opened.
    pub states: Vec<StateDeclaration>,
    /// Tables made.
    pub tables: Vec<TableDeclaration>,
    /// What was taken over of files, of these tables and of those that a seal has told of.
    pub adopted: Vec<AdoptedExtent>,
    /// Keys removed.
    pub removed: Vec<RemovedKeys>,
    /// Records as they were after each change that was made in place, in the order of the changes: older than all else here.
    pub journal: Vec<SealedRange>,
    /// Records written.
    pub ranges: Vec<SealedRange>,
    /// Blocks of sealed records that hold nothing live any more and are gone from their tables.
    pub freed: Vec<(TableId, BlockId)>,
    /// Tables dropped; their blocks are not among `freed`.
    pub dropped: Vec<TableId>,
    /// Number of live keys of each table that changed.
    pub live: Vec<(TableId, u64)>,
}
