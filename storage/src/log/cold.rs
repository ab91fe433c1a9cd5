//! Records that are not in memory: reading them from the files of their blocks.

use super::{
    blocks::{Blocks, Shape},
    index::Slot,
    place::Place,
    table::LogTable,
};
use crate::{
    key::Key,
    record::Record,
    state::{KeyColumn, KeyView},
};

/// Where the records of a block are that is not in memory.
pub struct ColdBlock {}

impl Blocks {
    pub(super) fn cold_hash(&self, _address: u32, _shape: Shape) -> u64 {
        unreachable!()
    }
}

impl<K: Key, V: Record> LogTable<K, V> {
    pub(super) fn find_cold(&mut self, _key: KeyView<'_>) -> Option<Slot> {
        unreachable!()
    }

    pub(super) fn warm<C: KeyColumn>(&mut self, _keys: &C, _range: std::ops::Range<usize>) {}

    /// The record at an address, read from its file if it must be.
    #[inline(always)]
    pub(super) fn resident(&mut self, address: u32) -> Place {
        self.place(address)
    }

    pub(super) fn forget_fetched(&mut self) {}
}
