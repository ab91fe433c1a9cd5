//! Blocks that are open again: their sealed records change where they lie, and nothing is written with a change.
//!
//! Where most keys change between two seals, and many of them several times, neither a copy of each record at its first change nor
//! a record in the [journal](super::journal) with each change is worth it: the next seal has to have nearly all of the table
//! anyway. So what the writer has let go of is opened again, and copied whole [behind that seal](super::owed). Whatever was in the
//! journal before is of no use then.
//!
//! ```text
//!            seal                       seal
//! ──▶ open ───┼──▶ owed ──▶ open ────────┼──▶ owed ──▶ ...
//!             │     │ page by page: copied before it changes, or in passing
//! ```

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::{
    blocks::{Blocks, Shape},
    in_place::IN_PLACE,
    interval::Mode,
    owed::{Owed, Reopened},
    place::Form,
    seal::Sealed,
    table::LogTable,
    tape::Tape,
};
use crate::{key::Key, record::Record};

/// In place of the seal after which a block was opened, says that the last seal is owed some of it.
pub(super) const OWED: u32 = IN_PLACE - 1;

/// What is known of the blocks of a table that were reopened.
#[derive(Default)]
pub(super) struct Reopening {
    /// Whether blocks are reopened.
    pub(super) is_on: bool,
    /// Those that are open, each with its place here in its [`Info`](super::blocks::Info).
    blocks: Vec<Option<Reopened>>,
    /// What the last seal is owed.
    owed: Option<Rc<RefCell<Owed>>>,
}

impl Reopening {
    /// Whether there are no blocks that are open again, or owed.
    pub(super) fn is_over(&self) -> bool {
        !self.is_on && self.owed.as_ref().is_none_or(|owed| owed.borrow().is_empty())
    }
}

impl Blocks {
    /// Whether the last seal is owed some of a block.
    #[inline(always)]
    pub(super) fn is_owed(&self, block: usize) -> bool {
        self.entries[block].opened == OWED
    }

    /// Whether a block is open although its records were sealed.
    #[inline(always)]
    pub(super) fn is_reopened(&self, block: usize) -> bool {
        self.entries[block].opened == self.seals && self.infos[block].reopened.is_some()
    }

    /// Opens a block again which nobody else has, or of which nothing is owed any more. If blocks are reopened no longer, its
    /// records change in place from now on.
    pub(super) fn reopen(&mut self, reopened: Reopened) {
        let block = reopened.block;
        // It cannot leave memory as files have it, and is not to keep them.
        self.infos[block].durable.clear();
        if self.reopening.is_on {
            (self.entries[block].opened, self.entries[block].closed) = (self.seals, 0);
            self.infos[block].reopened = Some(self.reopening.blocks.len());
            self.reopening.blocks.push(Some(reopened));
        } else {
            self.entries[block].opened = IN_PLACE;
            self.infos[block].reopened = None;
        }
    }

    /// Opens a block again that is the table's alone, and that files may hold.
    pub(super) fn reopen_own(&mut self, block: usize) {
        if let Some(own) = self.own(block, true) {
            self.reopen(own);
        }
    }

    /// What there is to know of a block of the table's, to be opened again or owed.
    fn own(&self, block: usize, is_in_files: bool) -> Option<Reopened> {
        let info = &self.infos[block];
        let memory = info.memory.clone()?;
        Some(Reopened::new(block, info, memory, &self.marks[block], is_in_files))
    }

    /// Keeps what was filled since the last seal from the next one, which would share it with the writer: it is owed all of it
    /// instead. For where records are to change freely behind that seal.
    pub(super) fn keep_filled(&mut self, shape: Shape) {
        let filled = std::mem::take(&mut self.filled);
        for (block, range) in filled.into_blocks() {
            drop(range);
            let is_ours =
                self.infos[block].memory.as_mut().is_some_and(|memory| Arc::get_mut(memory).is_some());
            let own = if is_ours { self.own(block, self.entries[block].closed > 0) } else { None };
            if let Some(own) = own {
                self.reopening.blocks.push(Some(own));
            } else if let Some(range) = self.range(block, self.infos[block].used, shape) {
                // The writer has what was sealed of it before.
                self.filled.push(block, range);
            }
        }
    }

    /// Opens all blocks again that are changed in place.
    fn reopen_all(&mut self) {
        for block in 0..self.len() {
            if self.is_changed_in_place(block) {
                self.reopen_own(block);
            }
        }
    }

    /// Copies what the last seal is owed of the page that a unit is in, whose block is [owed](Self::is_owed).
    #[inline(never)]
    pub(super) fn copy_around(&mut self, block: usize, unit: u32) {
        let owed = self.reopening.owed.as_ref().zip(self.infos[block].reopened);
        let paid = owed.and_then(|(owed, at)| owed.borrow_mut().copy_around(at, unit));
        if let Some(paid) = paid {
            self.reopen(paid);
        }
    }

    /// Fetches what [`copy_around`](Self::copy_around) is going to copy.
    #[inline(never)]
    pub(super) fn fetch_around(&self, block: usize, unit: u32) {
        if let Some((owed, at)) = self.reopening.owed.as_ref().zip(self.infos[block].reopened) {
            owed.borrow().fetch_around(at, unit);
        }
    }

    /// Changes what is known of a block among those that are open again or owed, if it is one.
    fn with_reopened(&mut self, block: usize, change: impl FnOnce(&mut Option<Reopened>)) {
        let Some(at) = self.infos[block].reopened else { return };
        if !self.is_owed(block) {
            change(&mut self.reopening.blocks[at]);
        } else if let Some(owed) = &self.reopening.owed {
            change(owed.borrow_mut().block(at));
        }
    }

    /// Lets a block go in which nothing is live any more.
    pub(super) fn forget_reopened(&mut self, block: usize) {
        self.with_reopened(block, |reopened| *reopened = None);
    }

    /// Notes that a block has other marks.
    pub(super) fn note_marks(&mut self, block: usize) {
        let marks = self.marks[block].clone();
        self.with_reopened(block, |reopened| {
            if let Some(reopened) = reopened {
                reopened.marks = marks;
            }
        });
    }

    /// Takes back what the last seal was owed and has been given; its copies are the journal's now.
    fn take_paid(&mut self, journal: &mut Tape) {
        let Some(owed) = self.reopening.owed.clone() else { return };
        let mut owed = owed.borrow_mut();
        for reopened in owed.take(journal) {
            self.reopen(reopened);
        }
    }

    /// From now on this seal is owed all blocks that are open again.
    fn owe(&mut self, shape: Shape) {
        let Self { reopening, shared, table, entries, infos, .. } = self;
        reopening.blocks.retain(Option::is_some);
        if reopening.blocks.is_empty() {
            return;
        }
        for (at, reopened) in reopening.blocks.iter_mut().flatten().enumerate() {
            reopened.owe();
            entries[reopened.block].opened = OWED;
            infos[reopened.block].reopened = Some(at);
        }
        let new = || Rc::new(RefCell::new(Owed::new(*table, Rc::clone(shared), shape.unit)));
        let owed = reopening.owed.get_or_insert_with(new);
        owed.borrow_mut().begin(&mut reopening.blocks);
        shared.owed.borrow_mut().push(Rc::clone(owed));
    }
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// Seals the blocks, behind which records will change in another way than before, or in the same.
    pub(super) fn seal_blocks(&mut self, sealed: &mut Sealed, before: Mode, next: Mode) {
        let shape = Form::<K, V>::SHAPE;
        let (was_on, is_on) = (before == Mode::Reopened, next == Mode::Reopened);
        if !is_on && self.blocks.reopening.is_over() {
            return self.blocks.seal(sealed, shape);
        }
        if is_on {
            self.blocks.keep_filled(shape);
        }
        self.blocks.seal(sealed, shape);
        // Those of which nothing has changed are copied again if any are: what was copied goes as a whole.
        self.blocks.take_paid(&mut self.journal.tape);
        if was_on {
            self.journal.tape.close_block();
            self.journal.tape.forget(self.journal.tape.blocks());
        }
        self.blocks.reopening.is_on = is_on;
        self.blocks.owe(shape);
        if is_on && !was_on {
            self.journal.sweep = None;
            self.blocks.reopen_all();
        }
    }
}

#[cfg(test)]
mod tests;
