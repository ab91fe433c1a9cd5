//! Buffers that begin at a page, as direct input and output wants them.

use super::format::PAGE_BYTES;

/// Memory whose first byte is aligned to a page.
#[derive(Debug, Default)]
pub struct PageBuffer {
    memory: Vec<u8>,
    start: usize,
    capacity: usize,
    length: usize,
}

impl PageBuffer {
    /// With room for this many bytes, rounded up to whole pages; empty.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(PAGE_BYTES);
        // A page more than needed has an aligned page in it: alignment without unsafe code. It never grows, so the
        // place stays.
        let memory = vec![0; capacity + PAGE_BYTES];
        let start = memory.as_ptr().align_offset(PAGE_BYTES);
        Self { memory, start, capacity, length: 0 }
    }

    /// The bytes in it.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    /// The bytes in it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }

    /// Room for more, in bytes.
    pub fn room(&self) -> usize {
        self.capacity - self.length
    }

    /// Adds bytes. Needs the room.
    pub fn extend(&mut self, bytes: &[u8]) {
        let at = self.start + self.length;
        assert!(bytes.len() <= self.room(), "a buffer without room");
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Adds zeros. Needs the room.
    pub fn extend_zeros(&mut self, count: usize) {
        let at = self.start + self.length;
        assert!(count <= self.room(), "a buffer without room");
        self.memory[at..at + count].fill(0);
        self.length += count;
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Makes it this long, with whatever bytes were in it; makes a larger one if it has to.
    pub fn set_length(&mut self, length: usize) {
        if length > self.capacity {
            *self = Self::new(length.next_power_of_two());
        }
        self.length = length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_a_page_and_holds_what_was_added() {
        let mut buffer = PageBuffer::new(5000);
        assert_eq!(buffer.room(), 8192);
        buffer.extend(b"abc");
        buffer.extend_zeros(2);
        assert_eq!(buffer.bytes(), b"abc\0\0");
        assert_eq!(buffer.bytes().as_ptr().addr() % PAGE_BYTES, 0);
        buffer.set_length(10_000);
        assert_eq!((buffer.bytes().len(), buffer.bytes().as_ptr().addr() % PAGE_BYTES), (10_000, 0));
    }
}
