//! The index: from the hash of a key to the address of its record, one cache line per look-up.
//!
//! A *bucket* is a cache line of twelve slots: a byte of the hash (the *tag*) and a 32-bit address each, laid out as in
//! Facebook's F14 (`F14VectorMap`): one vector comparison finds the slots that may be meant, and a count of
//! *overflows* says whether a key that is not here may be in the next bucket.
//!
//! Buckets lie in *pages* of up to 256. A page holds the keys of one range of hashes; when it is full it is split
//! in two (extendible hashing, Fagin et al. 1979), which touches only its own 2,304 keys: growing never stalls the
//! core, whatever the size. A *directory* of pages is indexed by the upper bits of the hash, so key groups, which are
//! ranges of the upper bits too, are ranges of pages. Bucket and tag come from the lower bits, which vary within a
//! key group.
//!
//! ```text
//!  hash  [ upper 32: directory → page ][ 16: – ][ 8: tag ][ 8: bucket ]
//!
//!  directory  ┌──────┬──────┬──────┬──────┐      bucket   12 tags │ overflows │ 12 addresses
//!             │ page │ page │ page │ page │  →   (64 B)   ▪▪▪▪▪▪▪▪▫▫▫▫ 0 │ a a a a a a a a – – – –
//!             └──────┴──────┴──────┴──────┘
//! ```
//!
//! The index does not know keys: whoever looks one up says which of the possible addresses is the one. To split a page
//! without reading its records, which may be on disk, a page keeps a *hint* of two bytes per slot beside its
//! buckets, where look-ups do not pass: how far the slot is from the bucket in which its search begins, and the
//! bits of the hash by which pages are split from the 64th on.
//!
//! Unsafe leaf: buckets are reached by address.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
    sync::Arc,
};

use super::pool::{BlockPool, HINTS_BYTES, PAGE_BYTES};
use crate::prefetch::prefetch;

const SLOTS: usize = 12;
/// Keys per bucket, on average, at which a page is full. With ten, updates of ten million keys took a tenth longer.
const FILL_MAX: u32 = 9;
/// Buckets in a page that is split when it is full, as a power of two.
const PAGE_LOG2_MAX: u32 = 8;
/// A count of overflows that is no longer kept: it stays.
const OVERFLOWS_MAX: u8 = u8::MAX;

/// In place of the number of a page, where no key has come yet.
const NO_PAGE: u32 = u32::MAX;

/// First bit of the position, from above, that hints hold, and their number.
const HINT_FROM: u32 = 6;
const HINT_BITS: u32 = 13;
/// Bits of a hint that say how far a slot is from home; the highest value says that it is further.
const FAR_BITS: u32 = 3;
const FAR: u16 = (1 << FAR_BITS) - 1;

const _: () = assert!(HINT_BITS + FAR_BITS == 16);
const _: () = assert!(size_of::<Bucket>() == 64 && size_of::<Bucket>() << PAGE_LOG2_MAX == PAGE_BYTES);
const _: () = assert!((2 * SLOTS) << PAGE_LOG2_MAX == HINTS_BYTES);
// A page of two buckets or more always has room somewhere when it is not full, and one bucket alone never overflows.
const _: () = assert!((FILL_MAX as usize) < SLOTS);

/// One cache line of the index.
#[repr(C, align(64))]
pub struct Bucket {
    /// 0 for an empty slot.
    tags: [u8; SLOTS],
    /// How many keys that begin their search here or before are found behind it.
    overflows: u8,
    unused: [u8; 3],
    addresses: [u32; SLOTS],
}

/// Where all searches in an index without keys end. Never written to: the first key makes a page.
static EMPTY: Bucket = Bucket { tags: [0; SLOTS], overflows: 0, unused: [0; 3], addresses: [0; SLOTS] };

impl Bucket {
    /// The slots whose tag is `tag`, as bits.
    #[inline(always)]
    fn matching(&self, tag: u8) -> u32 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE2 is part of x86-64, and a bucket is aligned and begins with 16 bytes of tags, count and padding.
        unsafe {
            use std::arch::x86_64::{
                __m128i, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi8,
            };
            let line = _mm_load_si128(std::ptr::from_ref(self).cast::<__m128i>());
            let equal = _mm_cmpeq_epi8(line, _mm_set1_epi8(tag as i8));
            _mm_movemask_epi8(equal) as u32 & ((1 << SLOTS) - 1)
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let mut bits = 0;
            for (slot, own) in self.tags.iter().enumerate() {
                bits |= u32::from(*own == tag) << slot;
            }
            bits
        }
    }
}

#[inline(always)]
fn tag_of(hash: u64) -> u8 {
    ((hash >> 8) as u8).max(1)
}

/// What a page needs to know of a hash in order to place its address.
#[derive(Clone, Copy)]
struct Placing {
    /// Lower bits of the hash, which say where the search begins.
    home: u32,
    tag: u8,
    /// The hint without its distance.
    hint: u16,
}

impl Placing {
    #[inline(always)]
    fn of(hash: u64, position: u32) -> Self {
        let hint = (position << HINT_FROM >> (32 - HINT_BITS)) as u16;
        Self { home: hash as u32, tag: tag_of(hash), hint: hint << FAR_BITS }
    }
}

/// A slot of an index, good until a page [moves](Index::moves).
#[derive(Clone, Copy)]
pub struct Slot(NonNull<u32>);

impl Slot {
    /// The address that it holds.
    #[inline(always)]
    pub fn address(self) -> u32 {
        // SAFETY: no page of the index that the slot was found in has moved since, as its finder keeps.
        unsafe { self.0.read() }
    }

    /// Sets the address.
    #[inline(always)]
    pub fn set(self, address: u32) {
        // SAFETY: as above; the index is used by one thread.
        unsafe { self.0.write(address) }
    }
}

/// Slots of one bucket that a hash may be in.
#[derive(Clone, Copy)]
pub struct Candidates {
    bucket: *mut Bucket,
    found: u32,
}

impl Iterator for Candidates {
    type Item = Slot;

    #[inline(always)]
    fn next(&mut self) -> Option<Slot> {
        if self.found == 0 {
            return None;
        }
        let slot = self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        // SAFETY: `Index::candidates` was given a bucket of the index; only bits of slots are set.
        unsafe {
            let first = (&raw mut (*self.bucket).addresses).cast::<u32>();
            Some(Slot(NonNull::new_unchecked(first.add(slot))))
        }
    }
}

/// Which hashes an index holds: a range of their upper halves, spread over the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRange {
    first: u32,
    /// Directory positions (of 2^32) per hash, times 2^32.
    scale: u64,
}

impl HashRange {
    /// All hashes.
    pub const ALL: Self = Self { first: 0, scale: 1 << 32 };

    /// Upper halves from `first` to `last`, both included.
    pub fn new(first: u32, last: u32) -> Self {
        let len = u64::from(last) - u64::from(first) + 1;
        // At most 2^32 + len/len positions; the last position stays below 2^32 because the division rounds down.
        Self { first, scale: ((1_u128 << 64) / u128::from(len)) as u64 }
    }

    /// The hashes of these key groups.
    pub fn of_key_groups(groups: std::ops::Range<u32>, max_parallelism: u32) -> Self {
        let bound = |group: u32| (u64::from(group) << 32).div_ceil(u64::from(max_parallelism));
        Self::new(bound(groups.start) as u32, (bound(groups.end) - 1) as u32)
    }

    /// Where a hash is in the range, of 2^32 positions; with more bits below.
    #[inline(always)]
    fn place(self, hash: u64) -> u64 {
        let offset = ((hash >> 32) as u32).wrapping_sub(self.first);
        // Below 2^64 for every hash of the range.
        u64::from(offset).wrapping_mul(self.scale)
    }

    /// Where a hash is in the range, of 2^32 positions.
    #[inline(always)]
    fn position(self, hash: u64) -> u32 {
        (self.place(hash) >> 32) as u32
    }
}

/// Finds addresses by hashes.
pub struct Index {
    /// Per directory position: the page's first bucket, and in the low six bits its number of buckets as a power
    /// of two.
    directory: Vec<u64>,
    /// Per directory position, the number of its page, or [`NO_PAGE`]. Apart, because a look-up does not need it.
    numbers: Vec<u32>,
    pages: Vec<Page>,
    depth: u32,
    range: HashRange,
    len: usize,
    moves: u64,
    /// Buckets of a page when its first key comes, as a power of two.
    first_log2: u32,
    pool: Arc<BlockPool>,
}

/// A page, besides its buckets.
struct Page {
    buckets: NonNull<Bucket>,
    /// Per slot; of a page that is not full-sized, behind the buckets. Of a slot without a key they mean nothing.
    hints: NonNull<u16>,
    /// Number of buckets, as a power of two.
    log2: u32,
    /// Bits of the position that all its keys share.
    depth: u32,
    len: u32,
}

impl Index {
    /// An empty index of hashes in `range`.
    pub fn new(range: HashRange, pool: Arc<BlockPool>) -> Self {
        let nothing = std::ptr::from_ref(&EMPTY) as u64;
        Self {
            directory: vec![nothing],
            numbers: vec![NO_PAGE],
            pages: Vec::new(),
            depth: 0,
            range,
            len: 0,
            moves: 0,
            first_log2: 0,
            pool,
        }
    }

    /// Number of keys.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that the index takes.
    pub fn bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(|page| (size_of::<Bucket>() + 2 * SLOTS) << page.log2).sum();
        pages
            + self.pages.capacity() * size_of::<Page>()
            + self.directory.capacity() * 8
            + self.numbers.capacity() * 4
    }

    /// Bits of a position that the directory tells apart.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Where a hash is in the range of the index, of 2^32 positions, whatever the depth.
    #[inline(always)]
    pub fn position_of(&self, hash: u64) -> u32 {
        self.range.position(hash)
    }

    #[inline(always)]
    fn position(&self, hash: u64) -> usize {
        // The upper `depth` bits, of which there may be none.
        (self.range.place(hash) >> 1 >> (63 - self.depth)) as usize
    }

    /// First bucket and mask of the page of a hash.
    #[inline(always)]
    fn page(&self, hash: u64) -> (*mut Bucket, u32) {
        // SAFETY: a position is below 2^depth, the directory's length.
        let entry = unsafe { *self.directory.get_unchecked(self.position(hash)) };
        ((entry & !63) as *mut Bucket, (1 << (entry & 63)) - 1)
    }

    /// The bucket in which the search for a hash begins.
    #[inline(always)]
    pub fn home(&self, hash: u64) -> *mut Bucket {
        let (buckets, mask) = self.page(hash);
        buckets.wrapping_add((hash as u32 & mask) as usize)
    }

    /// Fetches the bucket in which the search for a hash begins into the cache.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) -> *mut Bucket {
        let bucket = self.home(hash);
        prefetch(bucket.cast());
        bucket
    }

    /// The first of three steps of an insertion, of which each is done for many hashes before the next: fetches the
    /// description of the page.
    #[inline(always)]
    pub fn prefetch_page(&self, hash: u64) {
        if let Some(page) = self.pages.get(self.numbers[self.position(hash)] as usize) {
            prefetch(std::ptr::from_ref(page).cast());
        }
    }

    /// The second: the bucket in which the search begins, and its hints. Then comes
    /// [`insert_unless`](Self::insert_unless).
    #[inline(always)]
    pub fn prefetch_place(&self, hash: u64) {
        if let Some(page) = self.pages.get(self.numbers[self.position(hash)] as usize) {
            let home = hash as usize & ((1 << page.log2) - 1);
            prefetch(page.buckets.as_ptr().wrapping_add(home).cast());
            prefetch(page.hints.as_ptr().wrapping_add(home * SLOTS).cast());
        }
    }

    /// The slots that a hash may be in, given a bucket that [`home`](Self::home), [`prefetch`](Self::prefetch) or
    /// [`prefetch_next`](Self::prefetch_next) returned and no page has [moved](Self::moves) since. What they hold may
    /// be the address of another key.
    #[inline(always)]
    pub fn candidates(&self, bucket: *mut Bucket, hash: u64) -> Candidates {
        // SAFETY: a bucket of this index, as the caller promises.
        let found = unsafe { (*bucket).matching(tag_of(hash)) };
        Candidates { bucket, found }
    }

    /// Fetches the bucket in which the search for a hash goes on after this one; `None` where it ends.
    #[inline(always)]
    pub fn prefetch_next(&self, bucket: *mut Bucket, hash: u64) -> Option<NonNull<Bucket>> {
        // SAFETY: a bucket of this index, as for `candidates`.
        if unsafe { (*bucket).overflows } == 0 {
            return None;
        }
        let (buckets, mask) = self.page(hash);
        let at = (bucket as usize - buckets as usize) / size_of::<Bucket>() + 1;
        let next = buckets.wrapping_add(at & mask as usize);
        prefetch(next.cast());
        NonNull::new(next)
    }

    /// How often buckets were moved: as long as this is the same, buckets and slots stay where they are.
    #[inline(always)]
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// The slot of a hash whose address `is` the one.
    #[inline(always)]
    pub fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<Slot> {
        let (buckets, mask) = self.page(hash);
        let home = hash as u32 & mask;
        let mut at = home;
        loop {
            // SAFETY: `at` is below the page's number of buckets.
            let bucket = unsafe { &mut *buckets.add(at as usize) };
            let mut found = bucket.matching(tag_of(hash));
            while found != 0 {
                let slot = found.trailing_zeros() as usize;
                if is(bucket.addresses[slot % SLOTS]) {
                    return Some(Slot(NonNull::from(&mut bucket.addresses[slot % SLOTS])));
                }
                found &= found - 1;
            }
            if bucket.overflows == 0 {
                return None;
            }
            at = (at + 1) & mask;
            // Keys come and go: every bucket may have some that are found behind it, though none is full any more.
            if at == home {
                return None;
            }
        }
    }

    /// Adds an address under a hash. `hash_of` gives the hash of an address that was added before.
    #[inline(never)]
    pub fn insert(&mut self, hash: u64, address: u32, hash_of: impl Fn(u32) -> u64) {
        let number = self.page_for(hash);
        self.place(number, hash, address, &hash_of);
    }

    /// Adds an address under a hash, unless one is there that `is` the same key's: then that one's slot. `is` is asked of
    /// few others, one in a hundred calls or fewer: the hints tell most keys apart that bucket and tag do not.
    #[inline(always)]
    pub fn insert_unless(
        &mut self,
        hash: u64,
        address: u32,
        mut is: impl FnMut(u32) -> bool,
        hash_of: impl Fn(u32) -> u64,
    ) -> Option<Slot> {
        let number = self.page_for(hash);
        let placing = Placing::of(hash, self.range.position(hash));
        let slot = self.pages[number].search(placing, &mut is);
        if slot.is_none() {
            self.place(number, hash, address, &hash_of);
        }
        slot
    }

    /// As [`find`](Self::find), but looks at the hints before it asks for an address: slower, but for those that are costly.
    pub fn search(&mut self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<Slot> {
        let number = self.numbers[self.position(hash)] as usize;
        self.pages.get_mut(number)?.search(Placing::of(hash, self.range.position(hash)), &mut is)
    }

    /// Number of the page that a hash belongs to; makes it if it is its first key.
    #[inline(always)]
    fn page_for(&mut self, hash: u64) -> usize {
        match self.numbers[self.position(hash)] {
            NO_PAGE => self.first_page(hash),
            number => number as usize,
        }
    }

    /// Puts an address into its page, which grows or is split first if it is full.
    #[inline(always)]
    fn place(&mut self, mut number: usize, hash: u64, address: u32, hash_of: &impl Fn(u32) -> u64) {
        while self.pages[number].len >= FILL_MAX << self.pages[number].log2 {
            self.grow(number, hash, hash_of);
            number = self.numbers[self.position(hash)] as usize;
        }
        self.pages[number].place(Placing::of(hash, self.range.position(hash)), address);
        self.len += 1;
    }

    /// Removes an address that `find` would find, and returns it.
    pub fn remove(&mut self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let number = self.numbers[self.position(hash)] as usize;
        let address = self.pages.get_mut(number)?.take(hash, &mut is)?;
        self.len -= 1;
        Some(address)
    }

    /// Makes a directory for `keys` keys, evenly spread: saves all splits when many are to come. Only while empty. Each page is
    /// made when its first key comes, so that memory for the others may be fetched meanwhile.
    pub fn reserve(&mut self, keys: usize) {
        if self.len > 0 || keys <= FILL_MAX as usize {
            return;
        }
        *self = Self::new(self.range, Arc::clone(&self.pool));
        // A tenth more than the average, so that hardly a page is full before the others.
        let buckets = (keys + keys / 10).div_ceil(FILL_MAX as usize).next_power_of_two().trailing_zeros();
        self.first_log2 = buckets.min(PAGE_LOG2_MAX);
        self.depth = buckets - self.first_log2;
        self.directory = vec![self.directory[0]; 1 << self.depth];
        self.numbers = vec![NO_PAGE; 1 << self.depth];
    }

    /// Bytes of the pages that are still to be made, if nothing is split.
    pub fn reserved_bytes(&self) -> usize {
        let missing = (1 << self.depth) - self.pages.len().min(1 << self.depth);
        missing * ((size_of::<Bucket>() + 2 * SLOTS) << self.first_log2)
    }

    #[cold]
    fn first_page(&mut self, hash: u64) -> usize {
        self.moves += 1;
        let number = self.pages.len();
        let page = Page::new(self.first_log2, self.depth, &self.pool);
        self.put(number, page, self.position(hash));
        number
    }

    /// How deep a page may be split. Even hashes stay far below it; of keys with one hash, which someone may choose in
    /// order to do harm, no split would ever make two pages: theirs grows instead.
    fn depth_max(&self) -> u32 {
        (self.len >> PAGE_LOG2_MAX).checked_ilog2().unwrap_or(0) + 4
    }

    /// Doubles a small page, splits a large one.
    fn grow(&mut self, number: usize, hash: u64, hash_of: &impl Fn(u32) -> u64) {
        self.moves += 1;
        let old = &self.pages[number];
        let (old_log2, old_depth) = (old.log2, old.depth);
        let splits = old_log2 >= PAGE_LOG2_MAX && old_depth < self.depth_max();
        let hinted = splits && (HINT_FROM..HINT_FROM + HINT_BITS).contains(&old_depth);
        if splits && old_depth == self.depth {
            self.directory = self.directory.iter().flat_map(|entry| [*entry; 2]).collect();
            self.numbers = self.numbers.iter().flat_map(|number| [*number; 2]).collect();
            self.depth += 1;
        }
        let (log2, depth) = if splits { (old_log2, old_depth + 1) } else { (old_log2 + 1, old_depth) };
        let mut lower = Page::new(log2, depth, &self.pool);
        let mut upper = splits.then(|| Page::new(log2, depth, &self.pool));
        for (at, slot, address) in self.pages[number].full() {
            let page = &self.pages[number];
            let (tag, hint) = (page.buckets()[at].tags[slot], page.hints()[at * SLOTS + slot]);
            let far = hint & FAR;
            let (placing, goes_up) = if hinted && far != FAR {
                let home = (at as u32).wrapping_sub(u32::from(far)) & ((1 << log2) - 1);
                let bit = 15 - (old_depth - HINT_FROM);
                (Placing { home, tag, hint: hint & !FAR }, hint >> bit & 1 == 1)
            } else {
                let hash = hash_of(address);
                let position = self.range.position(hash);
                (Placing::of(hash, position), u64::from(position) << depth >> 32 & 1 == 1)
            };
            match &mut upper {
                Some(upper) if goes_up => upper.place(placing, address),
                _ => lower.place(placing, address),
            }
        }
        let span = 1 << (self.depth - self.pages[number].depth);
        let first = self.position(hash) & !(span - 1);
        let next = self.put(number, lower, first);
        if let Some(upper) = upper {
            self.put(self.pages.len(), upper, next);
        }
    }

    /// Sets a page and its part of the directory, which begins at `from`; returns where that ends.
    fn put(&mut self, number: usize, page: Page, from: usize) -> usize {
        let to = from + (1 << (self.depth - page.depth));
        self.directory[from..to].fill(page.entry());
        self.numbers[from..to].fill(number as u32);
        if let Some(old) = self.pages.get_mut(number) {
            std::mem::replace(old, page).free(&self.pool);
        } else {
            self.pages.push(page);
        }
        to
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        for page in self.pages.drain(..) {
            page.free(&self.pool);
        }
    }
}

impl Page {
    fn new(log2: u32, depth: u32, pool: &Arc<BlockPool>) -> Self {
        let (buckets, hints) = if log2 == PAGE_LOG2_MAX {
            // A bucket of zeros is an empty bucket.
            (pool.take_page().cast(), pool.take_hints().cast())
        } else {
            let layout = Self::layout(log2);
            // SAFETY: the layout has a size above zero; a bucket of zeros is an empty bucket.
            let memory = unsafe { alloc_zeroed(layout) };
            let Some(memory) = NonNull::new(memory.cast::<Bucket>()) else { handle_alloc_error(layout) };
            // SAFETY: the layout has room for the hints behind the buckets.
            (memory, unsafe { memory.add(1 << log2) }.cast())
        };
        Self { buckets, hints, log2, depth, len: 0 }
    }

    fn free(self, pool: &Arc<BlockPool>) {
        if self.log2 == PAGE_LOG2_MAX {
            pool.give_back_page(self.buckets.cast(), self.hints.cast());
        } else {
            // SAFETY: `new` made it with this layout.
            unsafe { dealloc(self.buckets.as_ptr().cast(), Self::layout(self.log2)) };
        }
    }

    /// Of a page from the allocator: buckets, and hints behind them.
    fn layout(log2: u32) -> Layout {
        match Layout::from_size_align((size_of::<Bucket>() + 2 * SLOTS) << log2, align_of::<Bucket>()) {
            Ok(layout) => layout,
            Err(_) => unreachable!("a page is small"),
        }
    }

    fn entry(&self) -> u64 {
        self.buckets.as_ptr() as u64 | u64::from(self.log2)
    }

    fn buckets(&self) -> &[Bucket] {
        // SAFETY: the page has this many buckets, all initialised.
        unsafe { std::slice::from_raw_parts(self.buckets.as_ptr(), 1 << self.log2) }
    }

    fn hints(&self) -> &[u16] {
        // SAFETY: there are so many, in memory that the kernel or `new` has filled with zeros.
        unsafe { std::slice::from_raw_parts(self.hints.as_ptr(), SLOTS << self.log2) }
    }

    fn hints_mut(&mut self) -> &mut [u16] {
        // SAFETY: as above, and the page is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.hints.as_ptr(), SLOTS << self.log2) }
    }

    /// Bucket, slot and address of each key.
    fn full(&self) -> impl Iterator<Item = (usize, usize, u32)> {
        let slots = self.buckets().iter().enumerate().flat_map(|(at, bucket)| {
            (0..SLOTS).map(move |slot| (at, slot, bucket.tags[slot], bucket.addresses[slot]))
        });
        slots.filter(|(_, _, tag, _)| *tag != 0).map(|(at, slot, _, address)| (at, slot, address))
    }

    fn buckets_mut(&mut self) -> &mut [Bucket] {
        // SAFETY: as above, and the page is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.buckets.as_ptr(), 1 << self.log2) }
    }

    /// The slot of a key, found by all that the page knows of it before an address is looked at.
    #[inline(always)]
    fn search(&mut self, placing: Placing, is: &mut impl FnMut(u32) -> bool) -> Option<Slot> {
        let mask = (1 << self.log2) - 1;
        let home = placing.home as usize & mask;
        let (mut at, mut far) = (home, 0);
        loop {
            let bucket = &self.buckets()[at];
            let mut found = bucket.matching(placing.tag);
            while found != 0 {
                let slot = found.trailing_zeros() as usize % SLOTS;
                if self.hints()[at * SLOTS + slot] == placing.hint | far && is(bucket.addresses[slot]) {
                    return Some(Slot(NonNull::from(&mut self.buckets_mut()[at].addresses[slot])));
                }
                found &= found - 1;
            }
            if bucket.overflows == 0 {
                return None;
            }
            (at, far) = ((at + 1) & mask, (far + 1).min(FAR));
            if at == home {
                return None;
            }
        }
    }

    /// Puts an address into the first free slot of its search.
    #[inline(always)]
    fn place(&mut self, placing: Placing, address: u32) {
        self.len += 1;
        let mask = (1 << self.log2) - 1;
        let mut at = placing.home as usize & mask;
        let mut far = 0;
        loop {
            let bucket = &mut self.buckets_mut()[at];
            let free = bucket.matching(0);
            if free != 0 {
                let slot = free.trailing_zeros() as usize % SLOTS;
                bucket.tags[slot] = placing.tag;
                bucket.addresses[slot] = address;
                self.hints_mut()[at * SLOTS + slot] = placing.hint | far;
                return;
            }
            bucket.overflows = bucket.overflows.saturating_add(1);
            at = (at + 1) & mask;
            far = (far + 1).min(FAR);
        }
    }

    fn take(&mut self, hash: u64, is: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = (1 << self.log2) - 1;
        let buckets = self.buckets_mut();
        let home = hash as usize & mask;
        let mut at = home;
        let (end, slot) = 'search: loop {
            let bucket = &buckets[at];
            let mut found = bucket.matching(tag_of(hash));
            while found != 0 {
                let slot = found.trailing_zeros() as usize % SLOTS;
                if is(bucket.addresses[slot]) {
                    break 'search (at, slot);
                }
                found &= found - 1;
            }
            if bucket.overflows == 0 {
                return None;
            }
            at = (at + 1) & mask;
            if at == home {
                return None;
            }
        };
        buckets[end].tags[slot] = 0;
        let address = buckets[end].addresses[slot];
        let mut passed = home;
        while passed != end {
            let overflows = &mut buckets[passed].overflows;
            if *overflows != OVERFLOWS_MAX {
                *overflows -= 1;
            }
            passed = (passed + 1) & mask;
        }
        self.len -= 1;
        Some(address)
    }
}

#[cfg(test)]
mod tests;
