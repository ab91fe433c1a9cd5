//! Tapes: copies of records, one behind another, for the files alone. No index points to them.

use std::{collections::VecDeque, ptr::null_mut, rc::Rc, sync::Arc};

use super::{
    block::Block,
    filled::Filled,
    place::{Form, Place},
    pool::CHUNK_BYTES,
    seal::{BlockId, SealedRange, TableId},
    shared::Shared,
};
use crate::{key::Key, prefetch::prefetch, record::Record};

/// Records by which the memory is fetched ahead of those that are written to it.
const AHEAD: usize = 16;
/// Bytes by which records that are taken one after another are fetched ahead.
const TAKEN_AHEAD: usize = 1024;
/// What is fetched at once.
pub(super) const LINE_BYTES: usize = 64;

/// Copies of records of one size, in blocks that are filled one behind another.
pub(super) struct Tape {
    table: TableId,
    shared: Rc<Shared>,
    /// Where the block lies that is being filled, and in bytes: how far it is filled and was sealed, and its length.
    start: *mut u8,
    used: usize,
    sealed: usize,
    capacity: usize,
    /// Its memory.
    memory: Option<Arc<Block>>,
    /// All blocks that files need, the one that is being filled behind the others.
    blocks: VecDeque<BlockId>,
    /// Ranges that were filled since the last seal, but for those of that one.
    filled: Filled,
}

impl Tape {
    /// An empty one, of a table.
    pub(super) fn new(table: TableId, shared: Rc<Shared>) -> Self {
        Self {
            table,
            shared,
            start: null_mut(),
            used: 0,
            sealed: 0,
            capacity: 0,
            memory: None,
            blocks: VecDeque::new(),
            filled: Filled::default(),
        }
    }

    /// Writes a record behind the others.
    #[inline(always)]
    pub(super) fn append<K: Key, V: Record>(&mut self, record: Place) {
        if self.used == self.capacity {
            self.begin_block(Form::<K, V>::STRIDE);
        }
        let memory = self.start.wrapping_add(self.used);
        self.used += Form::<K, V>::STRIDE;
        prefetch(memory.wrapping_add(AHEAD * Form::<K, V>::STRIDE));
        Place(memory).copy::<K, V>(record.0, 1);
    }

    /// Writes records of `stride` bytes that lie one behind another behind the others.
    pub(super) fn append_all(&mut self, first: Place, records: usize, stride: usize) {
        let mut from = first.0.cast_const();
        let mut left = records;
        while left > 0 {
            if self.used == self.capacity {
                self.begin_block(stride);
            }
            let now = left.min((self.capacity - self.used) / stride);
            let bytes = now * stride;
            for line in (0..bytes).step_by(LINE_BYTES) {
                prefetch(from.wrapping_add(TAKEN_AHEAD + line));
            }
            Place(self.start.wrapping_add(self.used)).copy_bytes(from, bytes);
            from = from.wrapping_add(bytes);
            self.used += bytes;
            left -= now;
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_block(&mut self, stride: usize) {
        self.close_block();
        let memory = Arc::new(Block::new(CHUNK_BYTES, &self.shared.pool));
        self.start = memory.start().as_ptr();
        self.capacity = CHUNK_BYTES / stride * stride;
        self.memory = Some(memory);
        self.blocks.push_back(self.shared.next_block());
    }

    /// Fills no more of the block.
    pub(super) fn close_block(&mut self) {
        if let Some(range) = self.range() {
            self.filled.push(0, range);
        }
        self.memory = None;
        (self.start, self.used, self.sealed, self.capacity) = (null_mut(), 0, 0, 0);
    }

    /// What was filled of the block since the last seal.
    fn range(&self) -> Option<SealedRange> {
        let (memory, block) = self.memory.as_ref().zip(self.blocks.back())?;
        (self.sealed < self.used).then(|| SealedRange {
            table: self.table,
            block: *block,
            memory: Arc::clone(memory),
            from: self.sealed as u32,
            to: self.used as u32,
        })
    }

    /// Hands over what was written since the last seal.
    pub(super) fn seal(&mut self, sealed: &mut Vec<SealedRange>) {
        let last = self.range();
        self.sealed = self.used;
        self.filled.hand_over(last, sealed);
    }

    /// Whether something was written since the last seal.
    pub(super) fn has_open(&self) -> bool {
        self.sealed < self.used || !self.filled.is_empty()
    }

    /// Bytes of memory that it takes, but for what was sealed.
    pub(super) fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.len())
    }

    /// Number of blocks that files need.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Lets the oldest blocks go: what is in them is elsewhere.
    pub(super) fn forget(&mut self, blocks: usize) {
        let table = self.table;
        self.shared.freed.borrow_mut().extend(self.blocks.drain(..blocks).map(|block| (table, block)));
    }

    /// Takes over the blocks of another tape of the table, all of which was sealed.
    pub(super) fn take_over(&mut self, other: &mut Self) {
        debug_assert!(!other.has_open(), "what is not sealed would be lost");
        other.close_block();
        // The block that is being filled stays behind the others.
        self.close_block();
        self.blocks.append(&mut other.blocks);
    }
}
