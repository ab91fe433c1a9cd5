//! Staging for the index, while much is loaded: hashes and addresses wait until many of one part of it have come.
//!
//! Records come in no order, so each would miss the caches, and the page tables' cache too, for its bucket and for the hints beside it:
//! that was most of the time of a restore. Here they are dealt to *partitions*, ranges of index pages that fit the
//! core's second cache, and put into the index a partition at a time. A partition keeps the order in which its records came, so
//! the newest of a key is still the last.
//!
//! Each time all lines of the partition's pages come from memory and go back, so the more wait, the less that costs. The room is
//! bounded, whatever there is to load: at most a tenth of what records of 40 bytes take, and 384 MiB. A partition that is full is
//! put into the index, and begins anew.

use super::index::Index;

/// Index pages per partition: with their hints 22 KiB each.
const PAGES_LOG2: u32 = 5;
/// No more partitions than lines that the nearest two caches hold beside all else.
const PARTITIONS_LOG2_MAX: u32 = 11;
/// Records that wait in a partition, at most.
const WAITING_MAX: usize = 16_384;

/// A hash, and the address to be put under it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// In halves, so that a record takes 12 bytes here.
    hash: [u32; 2],
    /// The address.
    pub address: u32,
}

impl Waiting {
    /// The hash.
    #[inline(always)]
    pub fn hash(self) -> u64 {
        u64::from(self.hash[1]) << 32 | u64::from(self.hash[0])
    }
}

const _: () = assert!((WAITING_MAX << PARTITIONS_LOG2_MAX) * size_of::<Waiting>() == 384 << 20);

/// Partitions, and what waits in them.
#[derive(Debug)]
pub struct Bulk {
    /// Number of partitions, as a power of two.
    log2: u32,
    waiting: Vec<Waiting>,
    lengths: Vec<usize>,
}

impl Bulk {
    /// For an index that has room for what is to come; `None` if that is so small that nothing is gained.
    pub fn new(index: &Index) -> Option<Self> {
        let log2 = index.depth().checked_sub(PAGES_LOG2).filter(|log2| *log2 > 0)?.min(PARTITIONS_LOG2_MAX);
        Some(Self {
            log2,
            waiting: vec![Waiting::default(); WAITING_MAX << log2],
            lengths: vec![0; 1 << log2],
        })
    }

    /// Lets an address wait under a hash, of which `position` is the place in the index, of 2^32; the partition, if it is full
    /// now and to be [taken](Self::take).
    #[inline(always)]
    pub fn push(&mut self, hash: u64, position: u32, address: u32) -> Option<usize> {
        let partition = (position >> (32 - self.log2)) as usize;
        let length = &mut self.lengths[partition];
        self.waiting[partition * WAITING_MAX + *length] =
            Waiting { hash: [hash as u32, (hash >> 32) as u32], address };
        *length += 1;
        (*length == WAITING_MAX).then_some(partition)
    }

    /// What waits in a partition, in the order in which it came; it is empty from now on.
    pub fn take(&mut self, partition: usize) -> &[Waiting] {
        let length = std::mem::take(&mut self.lengths[partition]);
        &self.waiting[partition * WAITING_MAX..][..length]
    }

    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        self.lengths.len()
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
                assert_eq!(waiting.len(), WAITING_MAX);
                taken[full].extend(waiting.iter().map(|waiting| (waiting.hash(), waiting.address)));
            }
        }
        for (partition, taken) in taken.iter_mut().enumerate() {
            taken.extend(bulk.take(partition).iter().map(|waiting| (waiting.hash(), waiting.address)));
            assert!(taken.is_sorted_by_key(|(_, address)| *address));
            assert!(taken.iter().all(|(hash, address)| *hash == hash_bits(u64::from(*address))));
        }
        assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), 400_000);
    }
}
