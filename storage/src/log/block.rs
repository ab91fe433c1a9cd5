//! Blocks: the pieces of memory that a table's records lie in, shared with the writer below their sealed length.
//!
//! One thread, the owner's, writes to a block, and as long as the writer has a share of it only above what was sealed. The
//! writer's thread reads, and only below. They never touch the same byte, and a seal reaches the writer through a channel, which
//! orders them; that the writer has let go is seen in the count of shares, which orders them too. The last of both to let go
//! gives the memory back. (What a seal is *owed* is read by the owner's thread, which has the only shares then.)
//!
//! Unsafe leaf: it hands out memory by address.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ops::Range,
    ptr::NonNull,
    sync::Arc,
};

use super::pool::{BlockPool, CHUNK_BYTES};

/// Alignment of every block.
const ALIGN: usize = 64;

/// A piece of memory. Its bytes are undefined until they are written.
#[derive(Debug)]
pub struct Block {
    memory: NonNull<u8>,
    bytes: usize,
    /// Where whole chunks come from and go back to; smaller and larger pieces are the allocator's.
    pool: Option<Arc<BlockPool>>,
}

// SAFETY: the memory is owned; who may touch which bytes is said above and kept by `sealed` and `start`.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// A block of this many bytes: a chunk of the pool if that is its size.
    pub fn new(bytes: usize, pool: &Arc<BlockPool>) -> Self {
        if bytes == CHUNK_BYTES {
            return Self { memory: pool.take(), bytes, pool: Some(Arc::clone(pool)) };
        }
        let layout = Self::layout(bytes);
        // SAFETY: the layout has a size above zero.
        let Some(memory) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        Self { memory, bytes, pool: None }
    }

    /// A block that holds a copy of `bytes`, all of it sealed.
    pub fn holding(bytes: &[u8]) -> Self {
        let layout = Self::layout(bytes.len());
        // SAFETY: the layout has a size above zero.
        let Some(memory) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: the memory was just made, with at least that length.
        unsafe { memory.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Self { memory, bytes: bytes.len(), pool: None }
    }

    fn layout(bytes: usize) -> Layout {
        match Layout::from_size_align(bytes.max(1), ALIGN) {
            Ok(layout) => layout,
            Err(_) => panic!("a block of {bytes} bytes"),
        }
    }

    /// Its first byte, aligned to a cache line. Only the owning table writes, and below what it sealed only if it has the only share.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        self.memory
    }

    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has no room at all.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that were written and sealed.
    ///
    /// # Panics
    /// When the range is outside the block.
    pub fn sealed(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.bytes, "a range outside its block");
        // SAFETY: within the block; only ranges that were sealed are asked for, which were written and do not change while
        // somebody who may ask has a share.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(range.start), range.len()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match &self.pool {
            Some(pool) => pool.give_back(self.memory),
            // SAFETY: made by the allocator with this layout.
            None => unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.bytes)) },
        }
    }
}
