//! The blocks of one table: where its records lie, which of them may be changed in place, and how much is dead.
//!
//! An *address* is a block's number and a unit within it. Records of one size have one unit each; others are made of
//! units of 16 bytes. New records go to the *tail* block. A seal closes all blocks: from then on their records
//! are copied to the tail when they change, or [changed in place](super::in_place) after all, or the blocks are [open
//! again](super::reopened). Numbers of blocks that are gone are given out again, so 32 bits last.
//!
//! A small table has one small block that doubles, by copying, until it is a whole chunk.
//!
//! Unsafe leaf: records are reached by address.
#![allow(unsafe_code)]

use std::{
    collections::{HashMap, VecDeque},
    ptr::null_mut,
    rc::Rc,
    sync::Arc,
};

use super::{
    block::Block,
    filled::Filled,
    marks::Marks,
    pool::CHUNK_BYTES,
    reopened::Reopening,
    seal::{BlockId, Sealed, SealedRange, TableId},
    shared::Shared,
};
use crate::{
    state::{StateError, fault},
    store::files::DurablePart,
};

/// Smallest block, in bytes.
const BLOCK_BYTES_MIN: usize = 128;

/// How addresses are made for a size of unit.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes per unit.
    pub unit: usize,
    /// Units that fit a whole block.
    pub per_block: u32,
    /// Bits of an address that say which unit.
    pub shift: u32,
    /// Whether every record is one unit; else each says how many it has, and can be marked as dead.
    pub strided: bool,
}

impl Shape {
    /// For units of this many bytes, at most a chunk.
    pub const fn of(unit: usize, strided: bool) -> Self {
        let per_block = CHUNK_BYTES / unit;
        assert!(per_block > 0);
        Self {
            unit,
            per_block: per_block as u32,
            shift: per_block.next_power_of_two().trailing_zeros(),
            strided,
        }
    }

    /// Block and unit of an address.
    #[inline(always)]
    pub const fn split(self, address: u32) -> (usize, u32) {
        ((address >> self.shift) as usize, address & ((1 << self.shift) - 1))
    }

    #[inline(always)]
    const fn join(self, block: usize, unit: u32) -> u32 {
        (block as u32) << self.shift | unit
    }
}

/// What a look-up needs of a block, in 16 bytes.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// Its memory; null when it is cold or gone.
    start: *mut u8,
    /// The seal after which it was opened, or was the tail; or [`IN_PLACE`](super::in_place::IN_PLACE), or
    /// [`OWED`](super::reopened::OWED).
    pub(super) opened: u32,
    /// Units that are closed although it was opened after the last seal.
    pub(super) closed: u32,
}

const GONE: Entry = Entry { start: null_mut(), opened: 0, closed: 0 };

/// The rest of a block.
pub(super) struct Info {
    pub(super) id: BlockId,
    pub(super) memory: Option<Arc<Block>>,
    /// Whether it is not in memory but in files alone.
    pub(super) cold: bool,
    /// Which bytes are durable, and where.
    pub(super) durable: Vec<DurablePart>,
    /// Units written.
    pub(super) used: u32,
    /// Units of records that count no more.
    pub(super) dead: u32,
    /// Whether it is among the victims of compaction.
    pub(super) listed: bool,
    /// Which of the blocks that are open again it is, or of those that the last seal is owed.
    pub(super) reopened: Option<usize>,
    /// How many numbers it takes.
    numbers: u32,
}

impl Info {
    const GONE: Self = Self {
        id: BlockId(u64::MAX),
        memory: None,
        cold: false,
        durable: Vec::new(),
        used: 0,
        dead: 0,
        listed: false,
        reopened: None,
        numbers: 1,
    };

    /// Whether every byte is in a file.
    fn is_durable(&self, shape: Shape) -> bool {
        let mut end = 0;
        // Parts come in the order of their seals, so upwards.
        for part in &self.durable {
            if part.from > end {
                return false;
            }
            end = end.max(part.to);
        }
        end as usize >= self.used as usize * shape.unit
    }
}

/// The blocks of one table.
pub struct Blocks {
    pub(super) entries: Vec<Entry>,
    pub(super) infos: Vec<Info>,
    /// Which records of each block count no more.
    pub(super) marks: Vec<Marks>,
    /// Numbers that may be used again.
    free: Vec<u32>,
    /// Number of seals so far.
    pub(super) seals: u32,
    tail: Tail,
    /// Whether a block was added since it was asked last.
    grown: bool,
    /// Ranges of blocks that were filled since the last seal.
    pub(super) filled: Filled,
    /// Full blocks that are more than half dead, and those that have to [settle](Self::settle). Those that came first have had the
    /// most time to die further.
    pub(super) victims: VecDeque<u32>,
    /// Whether all of them are to be compacted, however little of the table is dead.
    pub(super) is_settling: bool,
    /// Units in all blocks but the tail, and those that are dead in all blocks.
    units: u64,
    dead_units: u64,
    /// Full blocks, those filled first in front; kept if there is a budget. Some may be gone.
    ages: VecDeque<(BlockId, usize)>,
    /// Blocks by id, kept if there is a budget.
    numbers: HashMap<BlockId, usize>,
    /// Number of cold blocks.
    pub(super) cold: usize,
    /// Blocks that are open again.
    pub(super) reopening: Reopening,
    pub(super) table: TableId,
    pub(super) shared: Rc<Shared>,
}

#[derive(Clone, Copy)]
struct Tail {
    block: usize,
    used: u32,
    capacity: u32,
}

const NO_TAIL: Tail = Tail { block: usize::MAX, used: 0, capacity: 0 };

impl Blocks {
    /// No blocks, for a table.
    pub fn new(table: TableId, shared: Rc<Shared>) -> Self {
        Self {
            entries: Vec::new(),
            infos: Vec::new(),
            marks: Vec::new(),
            free: Vec::new(),
            seals: 0,
            tail: NO_TAIL,
            grown: false,
            filled: Filled::default(),
            victims: VecDeque::new(),
            is_settling: false,
            units: 0,
            dead_units: 0,
            ages: VecDeque::new(),
            numbers: HashMap::new(),
            cold: 0,
            reopening: Reopening::default(),
            table,
            shared,
        }
    }

    /// The memory at an address, or null if there is none: the block is cold, or there is no such block.
    #[inline(always)]
    pub fn at(&self, address: u32, shape: Shape) -> *mut u8 {
        let (block, unit) = shape.split(address);
        match self.entries.get(block) {
            Some(entry) if !entry.start.is_null() => entry.start.wrapping_add(unit as usize * shape.unit),
            _ => null_mut(),
        }
    }

    /// The hash of the record at an address.
    pub fn hash(&self, address: u32, shape: Shape) -> u64 {
        let memory = self.at(address, shape);
        if memory.is_null() { self.cold_hash(address, shape) } else { super::place::Place(memory).hash() }
    }

    /// Whether the record at an address, which is in memory, was written after the last seal.
    #[inline(always)]
    pub fn is_open(&self, address: u32, shape: Shape) -> bool {
        let (block, unit) = shape.split(address);
        let entry = self.entries[block];
        entry.opened == self.seals && unit >= entry.closed
    }

    /// Both in one: the memory, or null unless it may be changed in place.
    #[inline(always)]
    pub fn open_at(&self, address: u32, shape: Shape) -> *mut u8 {
        let (block, unit) = shape.split(address);
        match self.entries.get(block) {
            Some(entry) if entry.opened == self.seals && unit >= entry.closed => {
                entry.start.wrapping_add(unit as usize * shape.unit)
            }
            _ => null_mut(),
        }
    }

    /// The memory at an address as [`at`](Self::at) has it, and whether the record there may be changed in place.
    #[inline(always)]
    pub fn look(&self, address: u32, shape: Shape) -> (*mut u8, bool) {
        let (block, unit) = shape.split(address);
        match self.entries.get(block) {
            Some(entry) if !entry.start.is_null() => {
                let open = entry.opened == self.seals && unit >= entry.closed;
                (entry.start.wrapping_add(unit as usize * shape.unit), open)
            }
            _ => (null_mut(), false),
        }
    }

    /// Whether a record of one unit fits the tail as it is, so that [`append`](Self::append) moves nothing.
    #[inline(always)]
    pub fn has_room(&self) -> bool {
        self.tail.used < self.tail.capacity
    }

    /// Room of the tail in units, used or not. A block that moves, since it has grown, has another.
    #[inline(always)]
    pub(super) fn tail_capacity(&self) -> u32 {
        self.tail.capacity
    }

    /// As after a seal, of nothing: files know of the table that none of its seals was written to.
    pub(super) fn begin_sealed(&mut self) {
        debug_assert!(self.seals == 0 && self.tail.block == usize::MAX, "a new table");
        self.seals = 1;
    }

    /// Adds a block whose records are sealed, or will be when they are there; they are [filled](Self::fill) in.
    pub(super) fn add_sealed(&mut self, memory: Block, used: u32, shape: Shape) -> usize {
        debug_assert!(self.seals > 0, "nothing is sealed yet");
        self.grown = true;
        let blocks = memory.len().div_ceil(shape.per_block as usize * shape.unit).max(1);
        let number = self.number(blocks, shape);
        self.entries[number] = Entry { start: memory.start().as_ptr(), opened: self.seals - 1, closed: 0 };
        let id = self.shared.next_block();
        if self.shared.is_bounded() {
            self.numbers.insert(id, number);
        }
        self.units += u64::from(used);
        self.infos[number] =
            Info { id, memory: Some(Arc::new(memory)), used, numbers: blocks as u32, ..Info::GONE };
        number
    }

    /// Puts bytes into a block that was [added](Self::add_sealed) and is not [complete](Self::complete).
    pub(super) fn fill(&mut self, block: usize, from: u32, bytes: &[u8]) {
        let room = self.infos[block].memory.as_ref().map_or(0, |memory| memory.len());
        assert!(from as usize + bytes.len() <= room, "a part of a block that does not fit it");
        // SAFETY: the block is the table's alone and has the room, and the bytes are elsewhere.
        unsafe {
            self.entries[block].start.add(from as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
    }

    /// Notes that a block that was [added](Self::add_sealed) has all its bytes; if none of them counts, it is gone already.
    pub(super) fn complete(&mut self, block: usize, id: BlockId, shape: Shape) {
        if self.infos[block].id != id {
            return;
        }
        if self.shared.is_bounded() {
            self.ages.push_back((id, block));
        }
        self.weigh(block, shape);
    }

    /// Whether nothing was ever sealed: no file knows of the table.
    pub fn is_unsealed(&self) -> bool {
        self.seals == 0
    }

    /// Bytes of memory in blocks.
    pub fn bytes(&self) -> usize {
        self.infos.iter().filter_map(|info| info.memory.as_ref()).map(|memory| memory.len()).sum()
    }

    /// Room for a record of `units` at the tail. Its bytes are undefined.
    #[inline(always)]
    pub fn append(&mut self, units: u32, shape: Shape) -> (u32, *mut u8) {
        if units > self.tail.capacity - self.tail.used {
            self.make_room(units, shape);
        }
        let address = shape.join(self.tail.block, self.tail.used);
        self.tail.used += units;
        // SAFETY: the tail is a block, and the unit lies within it.
        let memory = unsafe {
            self.entries
                .get_unchecked(self.tail.block)
                .start
                .add((self.tail.used - units) as usize * shape.unit)
        };
        (address, memory)
    }

    /// Makes the tail larger, or begins a new one.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, units: u32, shape: Shape) {
        let needed = self.tail.used.saturating_add(units);
        if self.tail.capacity > 0 && self.tail.capacity < shape.per_block && needed <= shape.per_block {
            let capacity = (self.tail.capacity * 2).max(needed.next_power_of_two()).min(shape.per_block);
            let memory = self.new_block(capacity, shape);
            let (old, bytes) = (self.entries[self.tail.block].start, self.tail.used as usize * shape.unit);
            // SAFETY: both are blocks with at least that many bytes, and apart.
            unsafe { memory.start().as_ptr().copy_from_nonoverlapping(old, bytes) };
            self.entries[self.tail.block].start = memory.start().as_ptr();
            self.infos[self.tail.block].memory = Some(memory);
            self.tail.capacity = capacity;
            return;
        }
        self.grown = true;
        self.close_tail(shape);
        let first = self.infos.len() == self.free.len();
        let capacity = match units {
            _ if units > shape.per_block => units,
            _ if first => {
                units.next_power_of_two().max((BLOCK_BYTES_MIN / shape.unit) as u32).min(shape.per_block)
            }
            _ => shape.per_block,
        };
        let memory = self.new_block(capacity, shape);
        let blocks = (capacity as usize).div_ceil(shape.per_block as usize);
        let number = self.number(blocks, shape);
        self.entries[number] = Entry { start: memory.start().as_ptr(), opened: self.seals, closed: 0 };
        let id = self.shared.next_block();
        if self.shared.is_bounded() {
            self.numbers.insert(id, number);
        }
        self.infos[number] = Info { id, memory: Some(memory), numbers: blocks as u32, ..Info::GONE };
        self.tail = Tail { block: number, used: 0, capacity };
    }

    /// A block of `capacity` units: a whole chunk if that is what fits.
    fn new_block(&self, capacity: u32, shape: Shape) -> Arc<Block> {
        let bytes = if capacity == shape.per_block { CHUNK_BYTES } else { capacity as usize * shape.unit };
        Arc::new(Block::new(bytes, &self.shared.pool))
    }

    /// A number for a block, followed by as many numbers as a larger one takes.
    fn number(&mut self, blocks: usize, shape: Shape) -> usize {
        if blocks == 1
            && let Some(number) = self.free.pop()
        {
            return number as usize;
        }
        let number = self.entries.len();
        let numbers_max = 1_usize << (32 - shape.shift);
        if number + blocks > numbers_max {
            fault(StateError::TooLong {
                what: "table",
                bytes: (number + blocks) as u64 * CHUNK_BYTES as u64,
                bytes_max: (numbers_max * CHUNK_BYTES) as u64,
            });
        }
        self.entries.resize(number + blocks, GONE);
        self.infos.extend((0..blocks).map(|_| Info::GONE));
        self.marks.extend((0..blocks).map(|_| Marks::default()));
        number
    }

    /// Notes what the tail holds, before another block is it.
    fn close_tail(&mut self, shape: Shape) {
        let Tail { block, used, .. } = self.tail;
        if block == usize::MAX {
            return;
        }
        self.tail = NO_TAIL;
        if used == 0 {
            return self.let_go(block);
        }
        self.infos[block].used = used;
        self.units += u64::from(used);
        if let Some(range) = self.range(block, used, shape) {
            self.filled.push(block, range);
        }
        if self.shared.is_bounded() {
            self.ages.push_back((self.infos[block].id, block));
        }
        self.weigh(block, shape);
    }

    /// What was written to the tail since the last seal.
    pub(super) fn range(&self, block: usize, used: u32, shape: Shape) -> Option<SealedRange> {
        let (entry, info) = (self.entries[block], &self.infos[block]);
        let from = if entry.opened == self.seals { entry.closed } else { used };
        let memory = info.memory.as_ref().filter(|_| from < used)?;
        Some(SealedRange {
            table: self.table,
            block: info.id,
            memory: Arc::clone(memory),
            from: from * shape.unit as u32,
            to: used * shape.unit as u32,
        })
    }

    /// Takes the last record of one unit away, which must be open; returns its address.
    pub fn pop(&mut self, shape: Shape) -> u32 {
        while self.tail.used == 0 {
            // The tail is empty again: the block before it was filled after the last seal, too.
            let empty = self.tail.block;
            let Some(block) = self.filled.pop() else {
                unreachable!(
                    "an open record is at the tail or in a block that was filled since the last seal"
                )
            };
            self.let_go(empty);
            let used = std::mem::take(&mut self.infos[block].used);
            self.units -= u64::from(used);
            self.infos[block].listed = false;
            self.tail = Tail { block, used, capacity: shape.per_block };
        }
        self.tail.used -= 1;
        shape.join(self.tail.block, self.tail.used)
    }

    /// Notes that a sealed record, or an open one marked as dead, counts no more.
    #[inline(always)]
    pub fn died(&mut self, address: u32, units: u32, shape: Shape) {
        let (block, unit) = shape.split(address);
        if self.is_owed(block) {
            self.copy_around(block, unit);
        }
        let info = &mut self.infos[block];
        info.dead += units;
        if !self.marks[block].mark(unit) {
            self.mark_first(block, unit, shape);
        }
        self.dead_units += u64::from(units);
        let info = &self.infos[block];
        // One that is listed already is of interest again when nothing in it is live.
        if info.dead * 2 > info.used && (!info.listed || info.dead >= info.used) {
            self.weigh(block, shape);
        }
    }

    /// Marks a record in a block that has no room for its mark yet.
    #[cold]
    #[inline(never)]
    fn mark_first(&mut self, block: usize, unit: u32, shape: Shape) {
        let bytes = self.infos[block].memory.as_ref().map_or(CHUNK_BYTES, |memory| memory.len());
        let marks = self.marks[block].with_room(bytes / shape.unit);
        marks.mark(unit);
        self.marks[block] = marks;
        self.note_marks(block);
    }

    /// Whether the record that begins at a unit counts no more.
    #[inline(always)]
    pub(super) fn is_dead(&self, block: usize, unit: u32) -> bool {
        self.marks[block].has(unit)
    }

    /// Whether some record counts no more: else there are no marks to be fetched.
    #[inline(always)]
    pub(super) fn has_dead(&self) -> bool {
        self.dead_units > 0
    }

    /// Fetches what [`died`](Self::died) changes, where there is something to fetch.
    #[inline(always)]
    pub(super) fn prefetch_mark(&self, address: u32, shape: Shape) {
        let (block, unit) = shape.split(address);
        if let Some(marks) = self.marks.get(block) {
            marks.prefetch(unit);
        }
    }

    /// Lets a block go that has nothing live any more, or puts it forward for compaction.
    fn weigh(&mut self, block: usize, shape: Shape) {
        let info = &mut self.infos[block];
        if block == self.tail.block || info.used == 0 {
            return;
        }
        if info.dead >= info.used {
            self.give_up(block);
            return;
        }
        // An open record of one size cannot be marked as dead, so a block with open ones waits for its seal.
        let waits = shape.strided && self.entries[block].opened == self.seals && info.reopened.is_none();
        if !info.listed && !waits && info.dead * 2 > info.used && info.used >= shape.per_block / 2 {
            info.listed = true;
            self.victims.push_back(block as u32);
        }
    }

    /// A block that nothing live is in is gone, for the files too.
    pub(super) fn give_up(&mut self, block: usize) {
        let (entry, id) = (self.entries[block], self.infos[block].id);
        let open = entry.opened == self.seals && self.infos[block].reopened.is_none();
        if open {
            self.filled.remove(block);
        }
        self.let_go(block);
        if !open || entry.closed > 0 {
            self.shared.freed.borrow_mut().push((self.table, id));
        }
    }

    fn let_go(&mut self, block: usize) {
        self.forget_reopened(block);
        let info = std::mem::replace(&mut self.infos[block], Info::GONE);
        self.units -= u64::from(info.used);
        self.dead_units -= u64::from(info.dead);
        self.cold -= usize::from(info.cold);
        self.numbers.remove(&info.id);
        self.entries[block] = GONE;
        self.marks[block] = Marks::default();
        self.free.extend((0..info.numbers).map(|more| block as u32 + more));
    }

    /// The block to compact next: full and more than half dead.
    pub fn victim(&mut self) -> Option<usize> {
        while let Some(block) = self.victims.pop_front() {
            // If it is no longer listed it was given up meanwhile, and the number may be another block's.
            if std::mem::take(&mut self.infos[block as usize].listed) {
                return Some(block as usize);
            }
        }
        self.is_settling = false;
        None
    }

    /// Whether the table holds more dead records than live ones, or some have to settle, and some block is worth compacting. A
    /// block that is half dead while the table is not may soon be wholly dead, and then costs nothing.
    #[inline(always)]
    pub fn is_wasteful(&self) -> bool {
        (self.dead_units * 2 > self.units || self.is_settling) && !self.victims.is_empty()
    }

    /// Closes everything written so far and hands over what is new.
    pub fn seal(&mut self, sealed: &mut Sealed, shape: Shape) {
        let Tail { block, used, .. } = self.tail;
        let last = if block == usize::MAX { None } else { self.range(block, used, shape) };
        self.filled.hand_over(last, &mut sealed.ranges);
        self.seals += 1;
        if block != usize::MAX {
            let entry = &mut self.entries[block];
            (entry.opened, entry.closed) = (self.seals, used);
        }
    }

    /// Whether something was written since the last seal.
    pub fn has_open(&self) -> bool {
        let Tail { block, used, .. } = self.tail;
        !self.filled.is_empty()
            || (block != usize::MAX && {
                let entry = self.entries[block];
                entry.opened == self.seals && entry.closed < used
            })
    }

    /// Units written to a block.
    pub fn used(&self, block: usize) -> u32 {
        if block == self.tail.block { self.tail.used } else { self.infos[block].used }
    }

    /// Number of blocks, those that are gone included.
    pub fn len(&self) -> usize {
        self.infos.len()
    }

    /// Whether a block was added since this was asked last.
    #[inline(always)]
    pub(super) fn take_grown(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    /// Bytes written since the last seal.
    pub(super) fn open_bytes(&self) -> usize {
        self.filled.bytes()
    }

    /// Notes which bytes of which blocks are durable.
    pub(super) fn note_durable(&mut self, parts: Vec<DurablePart>) {
        for part in parts {
            // A block that is gone needs no file.
            let Some(block) = self.numbers.get(&part.block) else { continue };
            let durable = &mut self.infos[*block].durable;
            // What was moved to another file is of no use where it was.
            match durable.binary_search_by_key(&part.from, |own| own.from) {
                Ok(at) => durable[at] = part,
                Err(at) => durable.insert(at, part),
            }
        }
    }

    /// Lets the block go out of memory that was filled first among those that can; whether there was one.
    pub(super) fn cool_oldest(&mut self, shape: Shape) -> bool {
        while let Some((id, block)) = self.ages.pop_front() {
            let info = &self.infos[block];
            if info.id != id || info.cold {
                continue;
            }
            if self.is_changed_in_place(block) || info.reopened.is_some() {
                self.settle(block);
                continue;
            }
            if self.entries[block].opened == self.seals || !info.is_durable(shape) {
                self.ages.push_front((id, block));
                return false;
            }
            self.entries[block].start = null_mut();
            let info = &mut self.infos[block];
            info.memory = None;
            info.cold = true;
            self.cold += 1;
            return true;
        }
        false
    }

    /// Brings a cold block back to memory, to be compacted.
    pub(super) fn thaw(&mut self, block: usize, shape: Shape) {
        let memory = Arc::new(self.load(block, shape));
        self.entries[block].start = memory.start().as_ptr();
        let info = &mut self.infos[block];
        info.memory = Some(memory);
        info.cold = false;
        self.ages.push_front((info.id, block));
        self.cold -= 1;
    }

    /// The lower half of a block's id; 0 if there is none.
    pub(super) fn id_bits(&self, block: usize) -> usize {
        self.infos.get(block).map_or(0, |info| info.id.0 as u32 as usize)
    }

    /// First address of a block.
    pub fn first(&self, block: usize, shape: Shape) -> u32 {
        shape.join(block, 0)
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.shared.dropped(self.table);
    }
}
