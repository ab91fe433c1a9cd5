//! Blocks that are not in memory: when they leave it, and how their records are read.
//!
//! When the records in memory are over the budget, the oldest blocks whose bytes are all durable leave it. Where
//! too few are, the table seals what it has and asks the writer to make it durable (a *spill*); it waits for the
//! writer only when the budget is overdrawn by an eighth. A record that is updated moves to the tail, so what is
//! used often stays in memory.
//!
//! A batch reads the cold records that its keys may mean before it is applied, many at once. Every page that is
//! read is checked before a byte of it is believed.

use std::collections::HashMap;

use super::{
    block::Block,
    blocks::{Blocks, Shape},
    index::Slot,
    place::{Form, Place},
    sized::HEADER_BYTES,
    table::LogTable,
};
use crate::{
    key::Key,
    record::Record,
    snapshot::{
        buffer::PageBuffer,
        disk::reads::PageRead,
        format::{PAGE_BYTES, segment::DATA_AT},
        segment::check_pages,
    },
    state::{KeyColumn, KeyView, StateError, fault},
    store::files::DurablePart,
};

/// Bytes of a record of unknown size that are read at first.
const FIRST_READ_BYTES: usize = 512;
/// How far the budget may be overdrawn before a table waits for the writer: this part of it.
pub(super) const SLACK_PART: usize = 8;
/// At least so much is spilled at once.
const SPILL_BYTES_MIN: usize = 4 << 20;

/// Cold records that were read, until the end of the operation that needed them.
#[derive(Default)]
pub struct Fetched {
    pages: Vec<PageBuffer>,
    /// By address: which of `pages`, and where in it the record begins.
    records: HashMap<u32, (usize, usize)>,
}

impl Fetched {
    fn place(&self, address: u32) -> Option<Place> {
        let (pages, at) = *self.records.get(&address)?;
        Some(Place(self.pages[pages].bytes()[at..].as_ptr().cast_mut()))
    }
}

/// Bytes of a file that are wanted.
#[derive(Clone)]
struct Wanted {
    address: u32,
    part: DurablePart,
    /// Where in the file.
    from: u64,
    to: u64,
}

impl Wanted {
    /// The whole pages around it.
    fn pages(&self) -> std::ops::Range<u64> {
        let page = PAGE_BYTES as u64;
        self.from / page * page..self.to.next_multiple_of(page)
    }
}

impl Blocks {
    /// Whether there is a block at an address and it is not in memory.
    #[inline(always)]
    pub(super) fn is_cold(&self, address: u32, shape: Shape) -> bool {
        self.infos.get(shape.split(address).0).is_some_and(|info| info.cold)
    }

    /// The hash of a cold record: read alone, for the few page splits that need it.
    #[cold]
    pub(super) fn cold_hash(&self, address: u32, shape: Shape) -> u64 {
        let mut fetched = Fetched::default();
        self.fetch(&[address], shape, 8, &mut fetched);
        match fetched.place(address) {
            Some(place) => place.hash(),
            None => unreachable!("it was just read"),
        }
    }

    /// Where `bytes` bytes of a cold record are, or fewer if its part of the block ends before.
    fn wanted(&self, address: u32, shape: Shape, bytes: usize) -> Wanted {
        let (block, unit) = shape.split(address);
        let from = unit * shape.unit as u32;
        let part = self.infos[block].durable.iter().find(|part| part.from <= from && from < part.to);
        let Some(part) = part else { unreachable!("a block leaves memory when all of it is durable") };
        let at = part.offset + u64::from(from - part.from);
        let to = at + (bytes as u64).min(u64::from(part.to - from));
        Wanted { address, part: part.clone(), from: at, to }
    }

    /// Reads the first `bytes` of each record, many at once, and checks them.
    fn fetch(&self, addresses: &[u32], shape: Shape, bytes: usize, fetched: &mut Fetched) {
        let wanted: Vec<Wanted> =
            addresses.iter().map(|address| self.wanted(*address, shape, bytes)).collect();
        self.read(&wanted, fetched);
        if shape.strided || bytes <= 8 {
            return;
        }
        // Those that turn out longer are read whole.
        let longer: Vec<Wanted> = wanted
            .iter()
            .filter_map(|wanted| {
                let place = fetched.place(wanted.address)?;
                let len = u64::from(place.sized_units()) * shape.unit as u64;
                (wanted.from + len > wanted.to).then(|| Wanted { to: wanted.from + len, ..wanted.clone() })
            })
            .collect();
        self.read(&longer, fetched);
    }

    fn read(&self, wanted: &[Wanted], fetched: &mut Fetched) {
        let len = |wanted: &Wanted| (wanted.pages().end - wanted.pages().start) as usize;
        let mut buffer = PageBuffer::new(wanted.iter().map(len).sum());
        buffer.set_length(wanted.iter().map(len).sum());
        let mut rest = buffer.bytes_mut();
        let mut reads = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let (into, behind) = rest.split_at_mut(len(wanted));
            rest = behind;
            reads.push(PageRead { file: &*wanted.part.file.file, offset: wanted.pages().start, into });
        }
        if let Err((at, source)) = self.shared.files.borrow_mut().reader.read_all(&mut reads) {
            let file = wanted[at].part.file.path.clone();
            fault(StateError::Io { doing: "read", file, source });
        }
        let mut at = 0;
        for wanted in wanted {
            let pages = wanted.pages();
            let file = &wanted.part.file;
            let first = (pages.start - DATA_AT) as usize / PAGE_BYTES;
            if let Some(wrong) = check_pages(&file.checksums[first..], &buffer.bytes()[at..at + len(wanted)])
            {
                fault(StateError::Damaged {
                    file: file.path.clone(),
                    offset: pages.start + (wrong * PAGE_BYTES) as u64,
                    what: "the checksum of a page is wrong; the disk has changed it since it was written: replace \
                           the disk and restore the job from its last checkpoint"
                        .to_owned(),
                });
            }
            let own = at + (wanted.from - pages.start) as usize;
            fetched.records.insert(wanted.address, (fetched.pages.len(), own));
            at += len(wanted);
        }
        fetched.pages.push(buffer);
    }

    /// Reads a whole cold block.
    pub(super) fn load(&self, block: usize, shape: Shape) -> Block {
        let first = self.first(block, shape);
        let parts = self.infos[block].durable.iter();
        let wanted: Vec<Wanted> = parts
            .map(|part| Wanted {
                // Not an address but a name for the part.
                address: first + part.from / shape.unit as u32,
                part: part.clone(),
                from: part.offset,
                to: part.offset + u64::from(part.to - part.from),
            })
            .collect();
        let mut fetched = Fetched::default();
        self.read(&wanted, &mut fetched);
        let mut bytes = vec![0; self.used(block) as usize * shape.unit];
        for wanted in &wanted {
            let (pages, at) = fetched.records[&wanted.address];
            let (from, to) = (wanted.part.from as usize, (wanted.part.to as usize).min(bytes.len()));
            bytes[from..to].copy_from_slice(&fetched.pages[pages].bytes()[at..at + to - from]);
        }
        Block::holding(&bytes)
    }
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// As [`find`](Self::find) while some blocks are cold: reads those that the key may be in.
    #[cold]
    pub(super) fn find_cold(&mut self, key: KeyView<'_>) -> Option<Slot> {
        let shape = Form::<K, V>::SHAPE;
        loop {
            let Self { index, blocks, fetched, .. } = self;
            let mut missing = Vec::new();
            let slot = index.find(key.hash, |address| {
                let memory = blocks.at(address, shape);
                if !memory.is_null() {
                    return Place(memory).is::<K, V>(key);
                }
                match fetched.place(address) {
                    Some(place) => place.is::<K, V>(key),
                    None => {
                        missing.push(address);
                        false
                    }
                }
            });
            if slot.is_some() || missing.is_empty() {
                return slot;
            }
            blocks.fetch(&missing, shape, Self::first_read(), fetched);
        }
    }

    /// As [`find_cold`](Self::find_cold), while a table is loaded and most keys are new: looks at the hints too, so that
    /// hardly another record is read than the one that is looked for.
    pub(super) fn find_loaded(&mut self, key: KeyView<'_>) -> Option<Slot> {
        let shape = Form::<K, V>::SHAPE;
        loop {
            let Self { index, blocks, fetched, .. } = self;
            let mut missing = Vec::new();
            let slot = index.search(key.hash, |address| {
                let memory = blocks.at(address, shape);
                let place = if memory.is_null() { fetched.place(address) } else { Some(Place(memory)) };
                match place {
                    Some(place) => place.is::<K, V>(key),
                    None => {
                        missing.push(address);
                        false
                    }
                }
            });
            if slot.is_some() || missing.is_empty() {
                return slot;
            }
            blocks.fetch(&missing, shape, Self::first_read(), fetched);
        }
    }

    /// Bytes of a record that are read at first.
    const fn first_read() -> usize {
        if Form::<K, V>::STRIDED { Form::<K, V>::STRIDE } else { FIRST_READ_BYTES + HEADER_BYTES }
    }

    /// Reads the cold records that a batch's keys may mean.
    #[inline(always)]
    pub(super) fn warm<C: KeyColumn>(&mut self, keys: &C, range: std::ops::Range<usize>) {
        if self.blocks.cold > 0 {
            self.warm_cold(keys, range);
        }
    }

    #[cold]
    fn warm_cold<C: KeyColumn>(&mut self, keys: &C, range: std::ops::Range<usize>) {
        let shape = Form::<K, V>::SHAPE;
        let Self { index, blocks, fetched, .. } = self;
        let mut missing = Vec::new();
        for i in range {
            index.find(keys.key(i).hash, |address| {
                if blocks.is_cold(address, shape) {
                    missing.push(address);
                }
                false
            });
        }
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            blocks.fetch(&missing, shape, Self::first_read(), fetched);
        }
    }

    /// The record at an address, which is in memory or was fetched by the search that found it.
    #[inline(always)]
    pub(super) fn resident(&mut self, address: u32) -> Place {
        let memory = self.blocks.at(address, Form::<K, V>::SHAPE);
        if memory.is_null() { self.fetched_place(address) } else { Place(memory) }
    }

    #[cold]
    fn fetched_place(&mut self, address: u32) -> Place {
        if self.fetched.place(address).is_none() {
            self.blocks.fetch(&[address], Form::<K, V>::SHAPE, Self::first_read(), &mut self.fetched);
        }
        match self.fetched.place(address) {
            Some(place) => place,
            None => unreachable!("it was just read"),
        }
    }

    /// Lets what was read go.
    #[inline(always)]
    pub(super) fn forget_fetched(&mut self) {
        if !self.fetched.pages.is_empty() {
            self.fetched = Fetched::default();
        }
    }

    /// Keeps the records in memory within the budget, if there is one.
    #[inline(always)]
    pub(super) fn keep_budget(&mut self) {
        if self.blocks.shared.is_bounded() {
            self.make_space();
        }
    }

    #[cold]
    fn make_space(&mut self) {
        let shared = std::rc::Rc::clone(&self.blocks.shared);
        let mut wait = false;
        loop {
            let polled = shared.files.borrow_mut().poll(wait);
            if let Err(error) = polled {
                fault(error);
            }
            self.hear_of_files();
            while shared.excess_bytes() > 0 && self.blocks.cool_oldest(Form::<K, V>::SHAPE) {}
            let excess = shared.excess_bytes();
            self.over_budget = excess > 0;
            if excess == 0 {
                return;
            }
            if self.blocks.open_bytes() >= SPILL_BYTES_MIN.min(shared.memory_bytes_max / SLACK_PART) {
                self.spill();
            }
            wait = shared.files.borrow().spills > 0;
            if !wait || excess <= shared.memory_bytes_max / SLACK_PART {
                return;
            }
        }
    }

    /// Notes which bytes have become durable, or were moved, since it was done last.
    pub(super) fn hear_of_files(&mut self) {
        let mut files = self.blocks.shared.files.borrow_mut();
        let news = files.news();
        if news == self.news {
            return;
        }
        let durable = files.take_durable(self.table);
        drop(files);
        self.news = news;
        self.blocks.note_durable(durable);
    }

    /// Seals the table alone and asks for it to be made durable.
    fn spill(&mut self) {
        let shared = std::rc::Rc::clone(&self.blocks.shared);
        shared.finish_held();
        let (seal, mut sealed) = shared.begin_seal();
        self.seal(&mut sealed);
        shared.finish_seal(&mut sealed);
        shared.give_owed(usize::MAX, &mut sealed);
        let asked = shared.files.borrow_mut().spill(seal, sealed);
        if let Err(error) = asked {
            fault(error);
        }
    }
}

#[cfg(test)]
mod tests;
