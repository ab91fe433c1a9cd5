//! Blocks whose sealed records are changed where they lie: which they are, and what that means for their files.
//!
//! The writer has the memory of a block from the seal until its bytes are durable. When it has let go, the block's table is
//! alone with it, and may take it back. From then on files do not hold what the block is, but what it was: what has changed is
//! in the [journal](super::journal), or will be when the block, which is [open again](super::reopened), is copied. And the block
//! cannot leave memory as it is.

use std::sync::Arc;

use super::{
    blocks::{Blocks, Shape},
    cold::SLACK_PART,
};

/// In place of the seal after which a block was opened, says that its sealed records are changed in place.
pub(super) const IN_PLACE: u32 = u32::MAX;

/// Blocks of a table up to which they are reopened: a seal takes some 80 nanoseconds for each, and is not to take a hundred
/// microseconds.
const REOPENED_MAX: usize = 1024;

/// How a sealed record is changed where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// What it becomes has to go to the journal.
    Journaled,
    /// Its block will be copied.
    Freely,
}

impl Blocks {
    /// How a sealed record at an address, which is in memory, may be changed where it lies, if it may be.
    #[inline(always)]
    pub(super) fn way_to_change(&mut self, address: u32, shape: Shape, is_journaled: bool) -> Option<Way> {
        let (block, unit) = shape.split(address);
        if self.is_owed(block) {
            self.copy_around(block, unit);
        } else if !self.is_changed_in_place(block)
            && !((is_journaled || self.reopening.is_on) && self.take_back(block))
        {
            return None;
        }
        if self.reopening.is_on {
            return Some(Way::Freely);
        }
        is_journaled.then_some(Way::Journaled)
    }

    /// Whether sealed records of a block are changed in place.
    #[inline(always)]
    pub(super) fn is_changed_in_place(&self, block: usize) -> bool {
        self.entries[block].opened == IN_PLACE
    }

    /// Takes a block back from the writer, if all of it was sealed and the writer has let go.
    #[inline(never)]
    fn take_back(&mut self, block: usize) -> bool {
        if self.entries[block].opened == self.seals {
            return false;
        }
        // As long as it has not, the first question is the cheaper one.
        let is_alone = |memory: &mut Arc<_>| Arc::strong_count(memory) == 1 && Arc::get_mut(memory).is_some();
        let is_ours = self.infos[block].memory.as_mut().is_some_and(is_alone);
        if is_ours {
            self.reopen_own(block);
        }
        is_ours
    }

    /// Whether there is no need to fear for the budget: blocks that are changed in place cannot leave memory.
    pub(super) fn may_stay(&self) -> bool {
        let shared = &self.shared;
        !shared.is_bounded() || (self.cold == 0 && shared.pool.block_bytes() <= shared.memory_bytes_max / 2)
    }

    /// Whether copies of all blocks would overdraw the budget by no more than it may be, and a seal may look at each.
    pub(super) fn may_be_copied(&self) -> bool {
        let shared = &self.shared;
        let has_room = !shared.is_bounded()
            || (self.cold == 0 && shared.pool.block_bytes() <= shared.memory_bytes_max / SLACK_PART);
        has_room && self.len() <= REOPENED_MAX
    }

    /// Puts a block that was changed in place forward for compaction, as it cannot leave memory as it is.
    pub(super) fn settle(&mut self, block: usize) {
        self.is_settling = true;
        if !std::mem::replace(&mut self.infos[block].listed, true) {
            self.victims.push_back(block as u32);
        }
    }

    /// Notes that no file has to hold a block any more: all of it is in the journal.
    pub(super) fn forget_files(&mut self, block: usize) {
        let info = &mut self.infos[block];
        info.durable.clear();
        self.shared.freed.borrow_mut().push((self.table, info.id));
    }
}
