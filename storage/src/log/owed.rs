//! What a seal is owed: copies of the blocks that were [reopened](super::reopened) before it, as they were when it came.
//!
//! Blocks are copied after the seal, page by page: a page when a record in it is about to change, or in passing by whoever makes
//! the snapshot, some of them at a time. What has been copied may change freely. So nobody waits for the copy of a table, however
//! large it is, and a page that changes a thousand times between two seals costs one copy. This is *copy on update*; see Cao, Vaz
//! Salles, Sowell, Yue, Demers, Gehrke and White, *Fast Checkpoint Recovery Algorithms for Frequently Consistent Applications*
//! (SIGMOD 2011).

use std::{rc::Rc, sync::Arc};

use super::{
    block::Block,
    blocks::Info,
    marks::{Marks, WORD_UNITS},
    place::Place,
    pool::CHUNK_BYTES,
    seal::{BlockId, Sealed, TableId},
    shared::Shared,
    tape::{LINE_BYTES, Tape},
};
use crate::prefetch::prefetch;

/// Records of a page: those whose marks are in one word.
const PAGE_UNITS: u32 = WORD_UNITS;
/// Bytes of the smallest record: its hash.
const STRIDE_MIN: usize = 8;
/// Words with a bit for each page of the block with most pages.
const WORDS: usize = CHUNK_BYTES / STRIDE_MIN / PAGE_UNITS as usize / u64::BITS as usize;

/// A block whose sealed records change freely, but for those that a seal is owed.
pub(super) struct Reopened {
    /// Its number.
    pub(super) block: usize,
    id: BlockId,
    memory: Arc<Block>,
    /// Which records count no more.
    pub(super) marks: Marks,
    used: u32,
    /// Whether files may hold it.
    is_in_files: bool,
    /// Pages that are owed.
    missing: [u64; WORDS],
}

impl Reopened {
    /// A block, of which nothing is owed.
    pub(super) fn new(
        block: usize,
        info: &Info,
        memory: Arc<Block>,
        marks: &Marks,
        is_in_files: bool,
    ) -> Self {
        let (id, used) = (info.id, info.used);
        Self { block, id, memory, marks: marks.clone(), used, is_in_files, missing: [0; WORDS] }
    }

    /// From now on all of it is owed.
    pub(super) fn owe(&mut self) {
        let mut rest = self.used.div_ceil(PAGE_UNITS);
        for word in &mut self.missing {
            let pages = rest.min(u64::BITS);
            *word = u64::MAX.checked_shr(u64::BITS - pages).unwrap_or(0);
            rest -= pages;
        }
    }

    /// Whether none of it is owed.
    fn is_paid(&self) -> bool {
        self.missing == [0; WORDS]
    }

    /// What no file has to hold any more, if files may, as none of it is owed.
    fn take_freed(&mut self) -> Option<BlockId> {
        std::mem::take(&mut self.is_in_files).then_some(self.id)
    }

    /// The first page that is owed.
    fn next(&self) -> Option<u32> {
        let (at, word) = self.missing.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some(at as u32 * u64::BITS + word.trailing_zeros())
    }

    /// Copies the live records of a page, if it is owed; how many bytes that were.
    fn copy(&mut self, page: u32, stride: usize, tape: &mut Tape) -> usize {
        let (word, bit) = (&mut self.missing[(page / u64::BITS) as usize], 1 << (page % u64::BITS));
        if *word & bit == 0 {
            return 0;
        }
        *word &= !bit;
        let (mut unit, mut copied) = (page * PAGE_UNITS, 0);
        let end = self.used.min(unit + PAGE_UNITS);
        while unit < end {
            let live = self.marks.live_run(unit, end, PAGE_UNITS as usize);
            if !live.is_empty() {
                let records = self.memory.start().as_ptr().wrapping_add(live.start as usize * stride);
                tape.append_all(Place(records), live.len(), stride);
                copied += live.len() * stride;
            }
            unit = live.end;
        }
        copied
    }
}

/// What the last seal of one table is owed. Shared by the table and whoever makes the snapshot, on one thread.
pub struct Owed {
    table: TableId,
    /// Bytes per record.
    stride: usize,
    /// The blocks; none where the table has it again, or it is gone.
    blocks: Vec<Option<Reopened>>,
    /// How many of them were copied in passing.
    passed: usize,
    /// What was copied.
    tape: Tape,
    /// Blocks that no file has to hold any more, as all that is live in them was copied.
    freed: Vec<(TableId, BlockId)>,
}

impl Owed {
    /// Nothing, for a table.
    pub(super) fn new(table: TableId, shared: Rc<Shared>, stride: usize) -> Self {
        let tape = Tape::new(table, shared);
        Self { table, stride, blocks: Vec::new(), passed: 0, tape, freed: Vec::new() }
    }

    /// Begins with these blocks, which are all owed; gives back the memory that the last ones lay in.
    pub(super) fn begin(&mut self, blocks: &mut Vec<Option<Reopened>>) {
        debug_assert!(self.blocks.is_empty(), "the last ones were taken");
        std::mem::swap(&mut self.blocks, blocks);
        self.passed = 0;
    }

    /// The nth block, if it is here still.
    pub(super) fn block(&mut self, at: usize) -> &mut Option<Reopened> {
        &mut self.blocks[at]
    }

    /// Whether there are no blocks, not even such as were copied.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Takes the blocks that are left and what was copied of all of them, when nothing is owed any more.
    pub(super) fn take(&mut self, tape: &mut Tape) -> impl Iterator<Item = Reopened> {
        tape.take_over(&mut self.tape);
        debug_assert!(
            self.blocks.iter().flatten().all(Reopened::is_paid),
            "a seal was not given what it is owed"
        );
        self.blocks.drain(..).flatten()
    }

    /// Copies the page that a unit of the nth block is in, if it is owed; the block, if none of it is owed any more.
    pub(super) fn copy_around(&mut self, at: usize, unit: u32) -> Option<Reopened> {
        let own = &mut self.blocks[at];
        let block = own.as_mut()?;
        block.copy(unit / PAGE_UNITS, self.stride, &mut self.tape);
        if block.is_paid() {
            self.freed.extend(block.take_freed().map(|id| (self.table, id)));
        }
        own.take_if(|block| block.is_paid())
    }

    /// Fetches the page that a unit of the nth block is in, if it is owed.
    pub(super) fn fetch_around(&self, at: usize, unit: u32) {
        let Some(block) = &self.blocks[at] else { return };
        let page = unit / PAGE_UNITS;
        if block.missing[(page / u64::BITS) as usize] >> (page % u64::BITS) & 1 == 1 {
            let bytes = PAGE_UNITS as usize * self.stride;
            let records = block.memory.start().as_ptr().wrapping_add(page as usize * bytes);
            (0..bytes).step_by(LINE_BYTES).for_each(|line| prefetch(records.wrapping_add(line)));
        }
    }

    /// Copies what is owed, and as soon as that is more than `bytes` no more of it; whether nothing is owed any more.
    pub fn copy_some(&mut self, bytes: &mut usize) -> bool {
        while let Some(own) = self.blocks.get_mut(self.passed) {
            let Some(block) = own else {
                self.passed += 1;
                continue;
            };
            let Some(page) = block.next() else {
                self.freed.extend(block.take_freed().map(|id| (self.table, id)));
                self.passed += 1;
                continue;
            };
            if *bytes == 0 {
                return false;
            }
            *bytes = bytes.saturating_sub(block.copy(page, self.stride, &mut self.tape));
        }
        true
    }

    /// Hands over what was copied, when nothing is owed any more.
    pub fn hand_over(&mut self, sealed: &mut Sealed) {
        self.tape.close_block();
        // Not older than the removed keys, as what was live at the seal was removed before, if ever.
        self.tape.seal(&mut sealed.ranges);
        sealed.freed.append(&mut self.freed);
    }
}
