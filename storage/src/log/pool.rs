//! The pool: memory for blocks, index pages and their hints, in huge pages that were faulted in before they are needed.
//!
//! A new page costs its first toucher a fault: 0.1 to 0.4 ms for a huge page, 65 ns spread over each 40-byte record,
//! more than the record's whole update. So the pool maps *regions* of 2 to 64 MiB, a helper thread touches them ahead of
//! need, and memory that tables let go is used again while its pages are warm. Who is about to need much [says so](BlockPool::expect),
//! and the helper runs that much further ahead. Writable memory is always anonymous: a writable file mapping stalls its
//! writers behind the kernel's writeback.
//!
//! Taking and giving back is behind a lock; it happens once per 256 KiB of records, not per record. Under it nothing is
//! done that takes longer the more memory there is, and giving back wakes nobody: the helper looks for itself, ten
//! times a second, whether there is too much.
//!
//! Unsafe leaf: it hands out memory by address.
#![allow(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    ptr::NonNull,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use memmap2::{Advice, MmapMut};

use crate::background::stand_back;

/// Size of a chunk: what a table's log grows by.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Size of a full index page.
pub const PAGE_BYTES: usize = 16 << 10;
/// Size of the hints of a full index page.
pub const HINTS_BYTES: usize = 6 << 10;

/// A region is never larger.
const REGION_BYTES_MAX: usize = 64 << 20;
/// The first region, and the size that huge pages have.
const REGION_BYTES_MIN: usize = 2 << 20;
/// From this size on a thread fetches regions ahead.
const AHEAD_FROM_BYTES: usize = 8 << 20;
/// No more than so much of what is expected is fetched before it is taken.
const EXPECTED_BYTES_MAX: usize = 1 << 30;
/// Free memory that is kept for later without asking how much is in use.
const KEEP_BYTES: usize = 64 << 20;
/// How often the helper looks whether there is too much memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Distance between touched addresses.
const SMALL_PAGE_BYTES: usize = 4096;

const _: () = assert!(REGION_BYTES_MIN.is_multiple_of(CHUNK_BYTES) && CHUNK_BYTES.is_multiple_of(PAGE_BYTES));

/// Memory for the blocks of a worker's tables.
#[derive(Debug)]
pub struct BlockPool {
    state: Mutex<State>,
    /// Wakes the helper thread.
    ask: Condvar,
    /// Whether a thread may fetch regions ahead.
    ahead: bool,
}

#[derive(Debug, Default)]
struct State {
    pages: Pieces<PAGE_BYTES>,
    hints: Pieces<HINTS_BYTES>,
    /// Regions by address.
    regions: BTreeMap<usize, Region>,
    /// Addresses of those with free chunks.
    open: BTreeSet<usize>,
    /// Free chunks, of all regions.
    free: usize,
    mapped_bytes: usize,
    /// Chunks taken, those cut into pieces included.
    taken: usize,
    /// Chunks that will be taken soon, as was announced.
    expected: usize,
    helper: Helper,
}

#[derive(Debug)]
struct Region {
    memory: MmapMut,
    /// Free chunks; the last one is taken first.
    chunks: Vec<NonNull<u8>>,
    /// So many of them at the front were never taken: all zeros.
    fresh: usize,
}

/// A piece of memory that was free, and whether it is all zeros because nobody has had it before.
struct Free {
    memory: NonNull<u8>,
    is_fresh: bool,
}

/// Takes the last of several, of which so many at the front are fresh.
fn take_last(free: &mut Vec<NonNull<u8>>, fresh: &mut usize) -> Option<Free> {
    let memory = free.pop()?;
    let is_fresh = free.len() < *fresh;
    *fresh = (*fresh).min(free.len());
    Some(Free { memory, is_fresh })
}

/// Pieces of one size, cut from chunks; they stay pieces.
#[derive(Debug, Default)]
struct Pieces<const BYTES: usize> {
    /// The last one is taken first.
    free: Vec<NonNull<u8>>,
    /// So many of them at the front were never taken: all zeros.
    fresh: usize,
    /// Chunks that were cut.
    chunks: usize,
}

impl<const BYTES: usize> Pieces<BYTES> {
    const PER_CHUNK: usize = CHUNK_BYTES / BYTES;

    fn used_bytes(&self) -> usize {
        (self.chunks * Self::PER_CHUNK - self.free.len()) * BYTES
    }

    /// Cuts a chunk, when no piece is free; the first one is the taker's.
    fn cut(&mut self, chunk: Free) -> Free {
        debug_assert!(self.free.is_empty(), "pieces are cut when there are none");
        self.chunks += 1;
        // SAFETY: within the chunk.
        self.free.extend((1..Self::PER_CHUNK).rev().map(|piece| unsafe { chunk.memory.add(piece * BYTES) }));
        self.fresh = if chunk.is_fresh { self.free.len() } else { 0 };
        chunk
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Helper {
    #[default]
    None,
    Waiting,
    Asked,
}

// SAFETY: the addresses are those of memory that the pool owns; whoever takes one owns it until it gives it back.
unsafe impl Send for State {}

impl BlockPool {
    /// An empty pool; with `ahead`, a thread of its own fetches memory before it is needed once there is much of it.
    pub fn new(ahead: bool) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), ask: Condvar::new(), ahead })
    }

    /// Bytes in blocks and index pages.
    pub fn used_bytes(&self) -> usize {
        let state = self.lock();
        state.block_bytes() + state.pages.used_bytes() + state.hints.used_bytes()
    }

    /// Bytes in blocks alone.
    pub fn block_bytes(&self) -> usize {
        self.lock().block_bytes()
    }

    /// Bytes mapped, the free ones included.
    pub fn mapped_bytes(&self) -> usize {
        self.lock().mapped_bytes
    }

    /// Announces that so many bytes more will be taken soon, in place of what was announced before: the helper fetches them
    /// ahead, a bounded part of them at a time. What was not taken when the announcement is dropped is expected no more.
    pub fn expect(self: &Arc<Self>, bytes: usize) -> Expected {
        let mut state = self.lock();
        state.expected = bytes.div_ceil(CHUNK_BYTES);
        self.look_ahead(&mut state);
        Expected(Arc::clone(self))
    }

    /// Takes a chunk: [`CHUNK_BYTES`], aligned to as much as a page at least. Its contents are undefined.
    pub fn take(self: &Arc<Self>) -> NonNull<u8> {
        let mut state = self.lock();
        let chunk = self.chunk(&mut state);
        self.look_ahead(&mut state);
        chunk.memory
    }

    /// Takes an index page: [`PAGE_BYTES`], aligned to a page, all zeros.
    pub fn take_page(self: &Arc<Self>) -> NonNull<u8> {
        let page = self.piece(|state| &mut state.pages);
        if !page.is_fresh {
            // SAFETY: a page has so many bytes and is the taker's alone.
            unsafe { page.memory.write_bytes(0, PAGE_BYTES) };
        }
        page.memory
    }

    /// Takes room for the hints of an index page: [`HINTS_BYTES`], aligned to 2 KiB. Its contents are undefined.
    pub fn take_hints(self: &Arc<Self>) -> NonNull<u8> {
        self.piece(|state| &mut state.hints).memory
    }

    fn piece<const BYTES: usize>(
        self: &Arc<Self>,
        pieces: impl Fn(&mut State) -> &mut Pieces<BYTES>,
    ) -> Free {
        let mut state = self.lock();
        let Pieces { free, fresh, .. } = pieces(&mut state);
        if let Some(piece) = take_last(free, fresh) {
            return piece;
        }
        let chunk = self.chunk(&mut state);
        let piece = pieces(&mut state).cut(chunk);
        self.look_ahead(&mut state);
        piece
    }

    /// Gives a chunk back.
    pub fn give_back(&self, chunk: NonNull<u8>) {
        let mut state = self.lock();
        state.taken -= 1;
        state.put(chunk);
    }

    /// Gives an index page and its hints back; they stay what they are.
    pub fn give_back_page(&self, page: NonNull<u8>, hints: NonNull<u8>) {
        let mut state = self.lock();
        state.pages.free.push(page);
        state.hints.free.push(hints);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chunk(&self, state: &mut State) -> Free {
        state.taken += 1;
        state.expected = state.expected.saturating_sub(1);
        if let Some(chunk) = state.pop() {
            return chunk;
        }
        let region = map(next_region(state.mapped_bytes));
        add(state, region);
        match state.pop() {
            Some(chunk) => chunk,
            None => unreachable!("a region holds chunks"),
        }
    }

    fn look_ahead(self: &Arc<Self>, state: &mut State) {
        let total = state.mapped_bytes.max(state.expected_bytes());
        if !self.ahead || total < AHEAD_FROM_BYTES || !runs_low(state) {
            return;
        }
        if state.helper == Helper::None {
            let pool = Arc::downgrade(self);
            let helper = thread::Builder::new().name("state-memory".into());
            // Without the thread the worker faults pages in by itself.
            if helper.spawn(move || help(&pool)).is_err() {
                return;
            }
            state.helper = Helper::Waiting;
        }
        if state.helper == Helper::Waiting {
            state.helper = Helper::Asked;
            self.ask.notify_one();
        }
    }
}

impl State {
    fn block_bytes(&self) -> usize {
        (self.taken - self.pages.chunks - self.hints.chunks) * CHUNK_BYTES
    }

    fn expected_bytes(&self) -> usize {
        self.expected.saturating_mul(CHUNK_BYTES)
    }

    /// A free chunk of the region that was mapped first, as a rule: so those mapped last are soonest free as a whole.
    fn pop(&mut self) -> Option<Free> {
        let at = *self.open.last()?;
        let Region { chunks, fresh, .. } = self.regions.get_mut(&at)?;
        let chunk = take_last(chunks, fresh);
        if chunks.is_empty() {
            self.open.remove(&at);
        }
        self.free -= 1;
        chunk
    }

    /// A chunk that is free from now on.
    fn put(&mut self, chunk: NonNull<u8>) {
        let region = self.regions.range_mut(..=chunk.as_ptr() as usize).next_back();
        let Some((at, region)) = region else { unreachable!("a chunk is of a region") };
        region.chunks.push(chunk);
        self.open.insert(*at);
        self.free += 1;
    }

    fn has_too_much(&self) -> bool {
        let free = self.free.saturating_sub(self.expected) * CHUNK_BYTES;
        free > KEEP_BYTES + REGION_BYTES_MAX && free > self.taken * CHUNK_BYTES
    }
}

/// That much memory will be taken soon, see [`BlockPool::expect`].
#[derive(Debug)]
#[must_use = "what is announced is expected until this is dropped"]
pub struct Expected(Arc<BlockPool>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.lock().expected = 0;
    }
}

impl Drop for BlockPool {
    fn drop(&mut self) {
        self.ask.notify_all();
    }
}

/// How large the next region is: as much as there is, within bounds.
fn next_region(mapped_bytes: usize) -> usize {
    mapped_bytes.next_power_of_two().clamp(REGION_BYTES_MIN, REGION_BYTES_MAX)
}

fn runs_low(state: &State) -> bool {
    let expected = state.expected_bytes().min(EXPECTED_BYTES_MAX);
    state.free * CHUNK_BYTES < expected.max(next_region(state.mapped_bytes) / 2)
}

/// Maps a region; ends the process as the allocator does when there is no memory.
fn map(bytes: usize) -> MmapMut {
    // Twice the alignment, so that the part that is used can begin at a huge page.
    match MmapMut::map_anon(bytes + REGION_BYTES_MIN) {
        Ok(region) => {
            // A kernel without huge pages gives small ones.
            let _refused = region.advise(Advice::HugePage);
            region
        }
        Err(_) => std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; REGION_BYTES_MAX]>()),
    }
}

/// Where the used part of a region begins, and its length.
fn used_part(region: &MmapMut) -> (usize, usize) {
    let address = region.as_ptr() as usize;
    let padding = address.next_multiple_of(REGION_BYTES_MIN) - address;
    (padding, region.len() - REGION_BYTES_MIN)
}

fn touch(region: &mut MmapMut) {
    let (from, bytes) = used_part(region);
    for at in (from..from + bytes).step_by(SMALL_PAGE_BYTES) {
        region[at] = 0;
    }
}

fn add(state: &mut State, mut memory: MmapMut) {
    let (from, bytes) = used_part(&memory);
    let chunks = (0..bytes).step_by(CHUNK_BYTES).rev().filter_map(|at| {
        // SAFETY: within the region, which stays mapped as long as any of its chunks is in use.
        NonNull::new(unsafe { memory.as_mut_ptr().add(from + at) })
    });
    let chunks: Vec<_> = chunks.collect();
    state.mapped_bytes += bytes;
    state.free += chunks.len();
    let at = memory.as_ptr() as usize;
    state.open.insert(at);
    let fresh = chunks.len();
    state.regions.insert(at, Region { memory, chunks, fresh });
}

/// The helper thread: fetches regions when memory runs low, unmaps free ones when there is too much.
fn help(pool: &Weak<BlockPool>) {
    stand_back();
    while let Some(pool) = pool.upgrade() {
        let mut state = pool.lock();
        if runs_low(&state) {
            let bytes = next_region(state.mapped_bytes);
            drop(state);
            let mut region = map(bytes);
            touch(&mut region);
            add(&mut pool.lock(), region);
            continue;
        }
        if state.has_too_much() {
            // One at a time, and unmapped outside the lock.
            while let Some(unused) = take_unused(&mut state) {
                drop(state);
                drop(unused);
                state = pool.lock();
            }
        }
        state.helper = Helper::Waiting;
        // Bounded, so that a pool that is let go meanwhile is noticed.
        let waited = pool.ask.wait_timeout(state, LOOK_EVERY);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Takes out a region none of whose chunks is in use, unless that is more than there is to spare.
fn take_unused(state: &mut State) -> Option<MmapMut> {
    let spare = (state.free * CHUNK_BYTES).saturating_sub(KEEP_BYTES.max(state.taken * CHUNK_BYTES / 2));
    let whole = state.regions.iter().find_map(|(at, region)| {
        let bytes = used_part(&region.memory).1;
        (region.chunks.len() * CHUNK_BYTES == bytes && bytes <= spare).then_some((*at, bytes))
    });
    let (at, bytes) = whole?;
    state.mapped_bytes -= bytes;
    state.free -= bytes / CHUNK_BYTES;
    state.open.remove(&at);
    state.regions.remove(&at).map(|region| region.memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_pages_are_apart_and_come_back() {
        let pool = BlockPool::new(false);
        let chunks: Vec<_> = (0..40).map(|_| pool.take()).collect();
        let pages: Vec<_> = (0..20).map(|_| (pool.take_page(), pool.take_hints())).collect();
        let mut all: Vec<_> = chunks.iter().map(|at| (at.as_ptr() as usize, CHUNK_BYTES)).collect();
        all.extend(pages.iter().map(|(at, _)| (at.as_ptr() as usize, PAGE_BYTES)));
        all.extend(pages.iter().map(|(_, at)| (at.as_ptr() as usize, HINTS_BYTES)));
        all.sort_unstable();
        assert!(all.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0));
        let used = pool.used_bytes();
        assert_eq!(used, 40 * CHUNK_BYTES + 20 * (PAGE_BYTES + HINTS_BYTES));
        chunks.iter().for_each(|chunk| pool.give_back(*chunk));
        pages.iter().for_each(|(page, hints)| pool.give_back_page(*page, *hints));
        assert_eq!(pool.used_bytes(), 0);
        let again = pool.take();
        assert!(chunks.contains(&again));
        pool.give_back(again);
    }

    #[test]
    fn a_page_is_all_zeros_whoever_had_it_before() {
        let pool = BlockPool::new(false);
        let chunk = pool.take();
        // SAFETY: the chunk was just taken.
        unsafe { chunk.write_bytes(7, CHUNK_BYTES) };
        pool.give_back(chunk);
        for _ in 0..3 {
            let pages: Vec<_> = (0..40).map(|_| (pool.take_page(), pool.take_hints())).collect();
            for (page, hints) in pages {
                // SAFETY: the page was just taken.
                let bytes = unsafe { std::slice::from_raw_parts_mut(page.as_ptr(), PAGE_BYTES) };
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(7);
                pool.give_back_page(page, hints);
            }
        }
    }

    #[test]
    fn what_is_expected_is_fetched_and_no_more() {
        let pool = BlockPool::new(false);
        let fetch = || {
            let mut state = pool.lock();
            while runs_low(&state) {
                let region = map(next_region(state.mapped_bytes));
                add(&mut state, region);
            }
        };
        let announced = 300 << 20;
        let expected = pool.expect(announced);
        fetch();
        let mapped = pool.mapped_bytes();
        assert!((announced..announced + REGION_BYTES_MAX).contains(&mapped), "{mapped}");
        assert!(!pool.lock().has_too_much());
        let chunks: Vec<_> = (0..announced / CHUNK_BYTES / 2).map(|_| pool.take()).collect();
        fetch();
        assert_eq!(pool.mapped_bytes(), mapped);
        drop(expected);
        chunks.iter().for_each(|chunk| pool.give_back(*chunk));
        assert!(pool.lock().has_too_much());
    }

    #[test]
    fn regions_without_used_chunks_are_unmapped() {
        let pool = BlockPool::new(false);
        let chunks: Vec<_> = (0..1200).map(|_| pool.take()).collect();
        let mapped = pool.mapped_bytes();
        chunks[1..].iter().for_each(|chunk| pool.give_back(*chunk));
        let mut gone = Vec::new();
        while let Some(region) = take_unused(&mut pool.lock()) {
            gone.push(region);
        }
        assert!(!gone.is_empty());
        assert!(pool.mapped_bytes() < mapped);
        pool.give_back(chunks[0]);
    }
}
