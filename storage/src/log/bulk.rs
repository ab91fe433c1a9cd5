//! Staging for the index, while much is loaded: hashes and addresses wait until many of one part of it have come.
//!
//! Records come in no order, so each would miss the caches, and the page tables' cache too, for its bucket and for the hints beside it:
//! that was most of the time of a restore. Here they are dealt to *partitions*, ranges of index pages that fit the
//! core's second cache, and put into the index a partition at a time. A partition keeps the order in which its records came, so
//! the newest of a key is still the last.
//!
//! Each time all lines of the partition's pages come from memory and go back, so the more wait, the less that costs. The room is
//! bounded, whatever there is to load: at most a tenth of what records of 40 bytes take, and 384 MiB. A partition that is full is
//! put into the index, and begins anew. The first time they are full at different lengths: else, as hashes are evenly spread, all
//! would be at once, and no more could be read until all of them were empty, nor be put into the index until all were full again.

use memmap2::{Advice, MmapMut};

use super::index::Index;

/// Index pages per partition: with their hints 22 KiB each.
const PAGES_LOG2: u32 = 5;
/// No more partitions than lines that the nearest two caches hold beside all else.
const PARTITIONS_LOG2_MAX: u32 = 11;
/// Records that wait in a partition, at most.
const WAITING_MAX: usize = 16_384;

/// Bytes of a hash and the address to be put under it.
const WAITING_BYTES: usize = 12;

/// A hash, and the address to be put under it: bytes, so that they lie close together.
pub type Waiting = [u8; WAITING_BYTES];

/// The hash of what waits, and its address.
#[inline(always)]
pub fn parts_of(waiting: &Waiting) -> (u64, u32) {
    let (mut hash, mut address) = ([0; 8], [0; 4]);
    hash.copy_from_slice(&waiting[..8]);
    address.copy_from_slice(&waiting[8..]);
    (u64::from_ne_bytes(hash), u32::from_ne_bytes(address))
}

// Every partition has room for some.
const _: () = assert!(WAITING_MAX >> PARTITIONS_LOG2_MAX > 0);
const _: () = assert!((WAITING_MAX << PARTITIONS_LOG2_MAX) * WAITING_BYTES == 384 << 20);

/// Partitions, and what waits in them.
#[derive(Debug)]
pub struct Bulk {
    /// Number of partitions, as a power of two.
    log2: u32,
    /// [`WAITING_MAX`] for each, in huge pages, as they are written to all over.
    waiting: MmapMut,
    partitions: Vec<Partition>,
}

/// How much waits in a partition.
#[derive(Clone, Copy, Debug)]
struct Partition {
    length: u32,
    /// The length at which it is full.
    limit: u32,
}

impl Bulk {
    /// For an index that has room for what is to come; `None` if that is so small that nothing is gained.
    pub fn new(index: &Index) -> Option<Self> {
        let log2 = index.depth().checked_sub(PAGES_LOG2).filter(|log2| *log2 > 0)?.min(PARTITIONS_LOG2_MAX);
        // Without the room the index is filled record by record, and without huge pages with small ones.
        let waiting = MmapMut::map_anon((WAITING_MAX << log2) * WAITING_BYTES).ok()?;
        let _refused = waiting.advise(Advice::HugePage);
        // One after another is full, the first time too, so that more can be read meanwhile.
        let limit = |partition| ((partition * WAITING_MAX) >> log2) as u32;
        let partitions = (1..=1 << log2).map(|number| Partition { length: 0, limit: limit(number) });
        Some(Self { log2, waiting, partitions: partitions.collect() })
    }

    /// Lets an address wait under a hash, of which `position` is the place in the index, of 2^32; the partition, if it is full
    /// now and to be [taken](Self::take).
    #[inline(always)]
    pub fn push(&mut self, hash: u64, position: u32, address: u32) -> Option<usize> {
        let partition = (position >> (32 - self.log2)) as usize;
        let Partition { length, limit } = &mut self.partitions[partition];
        let at = (partition * WAITING_MAX + *length as usize) * WAITING_BYTES;
        let waiting = &mut self.waiting[at..at + WAITING_BYTES];
        waiting[..8].copy_from_slice(&hash.to_ne_bytes());
        waiting[8..].copy_from_slice(&address.to_ne_bytes());
        *length += 1;
        (length == limit).then_some(partition)
    }

    /// What waits in a partition, in the order in which it came; it is empty from now on.
    pub fn take(&mut self, partition: usize) -> &[Waiting] {
        let empty = Partition { length: 0, limit: WAITING_MAX as u32 };
        let length = std::mem::replace(&mut self.partitions[partition], empty).length as usize;
        let from = partition * WAITING_MAX * WAITING_BYTES;
        self.waiting[from..from + length * WAITING_BYTES].as_chunks().0
    }

    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::hash_bits,
        log::{index::HashRange, pool::BlockPool},
    };

    #[test]
    fn what_waits_comes_back_in_order_and_a_full_partition_says_so() {
        let mut index = Index::new(HashRange::ALL, BlockPool::new(false));
        assert!(Bulk::new(&index).is_none());
        index.reserve(1 << 20);
        let mut bulk = Bulk::new(&index).unwrap();
        let mut taken = vec![Vec::new(); bulk.partitions()];
        for address in 0..400_000 {
            let hash = hash_bits(u64::from(address));
            if let Some(full) = bulk.push(hash, index.position_of(hash), address) {
                let waiting = bulk.take(full);
                assert!(waiting.len() == WAITING_MAX || taken[full].is_empty());
                taken[full].extend(waiting.iter().map(parts_of));
            }
        }
        for (partition, taken) in taken.iter_mut().enumerate() {
            taken.extend(bulk.take(partition).iter().map(parts_of));
            assert!(taken.is_sorted_by_key(|(_, address)| *address));
            assert!(taken.iter().all(|(hash, address)| *hash == hash_bits(u64::from(*address))));
        }
        assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), 400_000);
    }
}
