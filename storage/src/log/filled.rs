//! What was filled since the last seal, gathered as it is filled, so that a seal has nothing to gather.

use super::seal::SealedRange;

/// Ranges of blocks that were filled since the last seal, with the number of each block.
#[derive(Default)]
pub struct Filled {
    blocks: Vec<usize>,
    ranges: Vec<SealedRange>,
}

impl Filled {
    /// Adds a block's range.
    pub fn push(&mut self, block: usize, range: SealedRange) {
        self.blocks.push(block);
        // With room for the one that the seal adds.
        self.ranges.reserve(2);
        self.ranges.push(range);
    }

    /// Takes the last one back; its block.
    pub fn pop(&mut self) -> Option<usize> {
        self.ranges.pop();
        self.blocks.pop()
    }

    /// Takes a block's range out, if it has one. The order of ranges of one seal does not matter.
    pub fn remove(&mut self, block: usize) {
        if let Some(at) = self.blocks.iter().rposition(|filled| *filled == block) {
            self.blocks.swap_remove(at);
            self.ranges.swap_remove(at);
        }
    }

    /// All blocks, with their ranges.
    pub fn into_blocks(self) -> impl Iterator<Item = (usize, SealedRange)> {
        self.blocks.into_iter().zip(self.ranges)
    }

    /// Hands all of them over, and `last` behind them. As a rule that is the memory they lie in: memory that a seal asks
    /// for may be new, and then it waits for the kernel, or for the host.
    pub fn hand_over(&mut self, last: Option<SealedRange>, sealed: &mut Vec<SealedRange>) {
        self.blocks.clear();
        self.ranges.extend(last);
        if sealed.is_empty() {
            std::mem::swap(sealed, &mut self.ranges);
        } else {
            sealed.append(&mut self.ranges);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Their length in all.
    pub fn bytes(&self) -> usize {
        self.ranges.iter().map(|range| (range.to - range.from) as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::{
        block::Block,
        seal::{BlockId, TableId},
    };

    fn range(block: u64) -> SealedRange {
        let memory = Arc::new(Block::holding(&[0; 64]));
        SealedRange { table: TableId(1), block: BlockId(block), memory, from: 8, to: 24 }
    }

    fn blocks(sealed: &[SealedRange]) -> Vec<u64> {
        sealed.iter().map(|range| range.block.0).collect()
    }

    #[test]
    fn a_seal_gets_the_memory_that_the_ranges_lie_in() {
        let mut filled = Filled::default();
        (0..9).for_each(|block| filled.push(block, range(block as u64)));
        let (lies_at, room) = (filled.ranges.as_ptr(), filled.ranges.capacity());
        let mut sealed = Vec::new();
        filled.hand_over(Some(range(9)), &mut sealed);
        assert_eq!((sealed.as_ptr(), sealed.capacity()), (lies_at, room));
        assert_eq!(blocks(&sealed), Vec::from_iter(0..10));
        assert!(filled.is_empty() && filled.pop().is_none());
        // Another table's come behind them.
        filled.push(20, range(20));
        filled.hand_over(None, &mut sealed);
        assert_eq!(blocks(&sealed)[9..], [9, 20]);
    }

    #[test]
    fn ranges_are_taken_back_with_their_blocks() {
        let mut filled = Filled::default();
        (0..4).for_each(|block| filled.push(block, range(block as u64)));
        filled.remove(1);
        filled.remove(7);
        assert_eq!((filled.bytes(), filled.pop()), (3 * 16, Some(2)));
        let mut sealed = Vec::new();
        filled.hand_over(None, &mut sealed);
        assert_eq!(blocks(&sealed), [0, 3]);
    }
}
