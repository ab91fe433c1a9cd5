//! Partitioners: which subtasks of the next chain a record goes to.

use tidemill_storage::key::{key_group, subtask_of};

use super::{batch::RecordKey, key_of::KeyOf};

/// Which pairs of subtasks an edge connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every producer with every consumer.
    AllToAll,
    /// Producer i with consumer i; both sides have the same number.
    OneToOne,
    /// Neighbours only: with more consumers, each producer has its own few; with fewer, each has its own one.
    Rescale,
}

impl Pattern {
    /// The consumers that producer `from` reaches.
    pub fn targets(self, from: usize, producers: usize, consumers: usize) -> std::ops::Range<usize> {
        match self {
            Self::AllToAll => 0..consumers,
            Self::OneToOne => from..from + 1,
            Self::Rescale if consumers >= producers => {
                from * consumers / producers..(from + 1) * consumers / producers
            }
            Self::Rescale => {
                let to = from * consumers / producers;
                to..to + 1
            }
        }
    }
}

/// Where one record goes.
pub enum Route<'a> {
    /// To one target (an index among those the producer reaches).
    One {
        /// Index of the target.
        target: usize,
        /// The record's key.
        key: RecordKey<'a>,
    },
    /// To every target.
    All,
}

/// A partitioner of records seen as `V`. One instance per producing subtask.
pub trait Partition<V: ?Sized>: Clone + Send + 'static {
    /// Which subtasks the edge connects.
    const PATTERN: Pattern;
    /// Whether the edge carries key hashes.
    const HASHED: bool = false;
    /// Whether the edge carries the bytes of wide keys.
    const WIDE: bool = false;
    /// Whether every record goes to every target.
    const BROADCASTS: bool = false;

    /// Called once, before the first record: this is producer `subtask`, and it reaches `targets` consumers.
    fn open(&mut self, subtask: usize, targets: usize, max_parallelism: u32);

    /// Chooses the target of one record.
    fn route<'a>(&'a mut self, view: &'a V) -> Route<'a>;
}

/// By the hash of a key: all records with one key go to the subtask that owns the key's group.
#[derive(Clone)]
pub struct KeyBy<X> {
    keys: X,
    owners: KeyGroupOwners,
}

impl<X> KeyBy<X> {
    /// A partitioner by the key that `keys` finds in a record.
    pub fn new(keys: X) -> Self {
        Self { keys, owners: KeyGroupOwners::default() }
    }
}

impl<V: ?Sized, X: KeyOf<V>> Partition<V> for KeyBy<X> {
    const PATTERN: Pattern = Pattern::AllToAll;
    const HASHED: bool = true;
    const WIDE: bool = X::WIDE;

    fn open(&mut self, _subtask: usize, targets: usize, max_parallelism: u32) {
        self.owners = KeyGroupOwners::new(targets, max_parallelism);
    }

    #[inline(always)]
    fn route<'a>(&'a mut self, view: &'a V) -> Route<'a> {
        let key = self.keys.key_of(view);
        Route::One { target: self.owners.target(key.hash()), key }
    }
}

/// Which subtask owns each key group.
#[derive(Clone, Debug, Default)]
struct KeyGroupOwners {
    max_parallelism: u32,
    owner: Vec<u16>,
}

impl KeyGroupOwners {
    fn new(parallelism: usize, max_parallelism: u32) -> Self {
        let parallelism = u32::try_from(parallelism).unwrap_or(u32::MAX);
        let owner = (0..max_parallelism)
            .map(|group| subtask_of(group, max_parallelism, parallelism) as u16)
            .collect();
        Self { max_parallelism, owner }
    }

    #[inline(always)]
    fn target(&self, hash: u64) -> usize {
        usize::from(self.owner[key_group(hash, self.max_parallelism) as usize])
    }
}

/// To the consumer with the producer's own index, which lives on the same worker.
#[derive(Clone, Debug, Default)]
pub struct Forward;

impl<V: ?Sized> Partition<V> for Forward {
    const PATTERN: Pattern = Pattern::OneToOne;

    fn open(&mut self, _subtask: usize, _targets: usize, _max_parallelism: u32) {}

    #[inline(always)]
    fn route<'a>(&'a mut self, _view: &'a V) -> Route<'a> {
        Route::One { target: 0, key: RecordKey::None }
    }
}

/// To one target after the other. [`Rebalance`] goes round all consumers, [`Rescale`] round the producer's neighbours.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin<const ALL: bool> {
    next: usize,
    targets: usize,
}

/// Round robin over all consumers.
pub type Rebalance = RoundRobin<true>;
/// Round robin over the producer's neighbours.
pub type Rescale = RoundRobin<false>;

impl<V: ?Sized, const ALL: bool> Partition<V> for RoundRobin<ALL> {
    const PATTERN: Pattern = if ALL { Pattern::AllToAll } else { Pattern::Rescale };

    fn open(&mut self, subtask: usize, targets: usize, _max_parallelism: u32) {
        // Producers start at different targets, so that few records do not all go to the first.
        self.next = subtask % targets;
        self.targets = targets;
    }

    #[inline(always)]
    fn route<'a>(&'a mut self, _view: &'a V) -> Route<'a> {
        let target = self.next;
        self.next = if target + 1 == self.targets { 0 } else { target + 1 };
        Route::One { target, key: RecordKey::None }
    }
}

/// To every consumer.
#[derive(Clone, Debug, Default)]
pub struct Broadcast;

impl<V: ?Sized> Partition<V> for Broadcast {
    const PATTERN: Pattern = Pattern::AllToAll;
    const BROADCASTS: bool = true;

    fn open(&mut self, _subtask: usize, _targets: usize, _max_parallelism: u32) {}

    #[inline(always)]
    fn route<'a>(&'a mut self, _view: &'a V) -> Route<'a> {
        Route::All
    }
}

/// To the first consumer only. Behind it the chain has one subtask.
#[derive(Clone, Debug, Default)]
pub struct Global;

impl<V: ?Sized> Partition<V> for Global {
    const PATTERN: Pattern = Pattern::AllToAll;

    fn open(&mut self, _subtask: usize, _targets: usize, _max_parallelism: u32) {}

    #[inline(always)]
    fn route<'a>(&'a mut self, _view: &'a V) -> Route<'a> {
        Route::One { target: 0, key: RecordKey::None }
    }
}

/// To the consumer that a function of the user's names: `choose(record, number of consumers)`, taken modulo
/// the number of consumers.
#[derive(Clone, Debug)]
pub struct Custom<F> {
    choose: F,
    targets: usize,
}

impl<F> Custom<F> {
    /// A partitioner that asks `choose`.
    pub fn new(choose: F) -> Self {
        Self { choose, targets: 1 }
    }
}

impl<V: ?Sized, F: FnMut(&V, usize) -> usize + Clone + Send + 'static> Partition<V> for Custom<F> {
    const PATTERN: Pattern = Pattern::AllToAll;

    fn open(&mut self, _subtask: usize, targets: usize, _max_parallelism: u32) {
        self.targets = targets;
    }

    #[inline(always)]
    fn route<'a>(&'a mut self, view: &'a V) -> Route<'a> {
        Route::One { target: (self.choose)(view, self.targets) % self.targets, key: RecordKey::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescale_reaches_every_consumer_once_or_spreads_producers_evenly() {
        for (producers, consumers) in [(1, 8), (2, 3), (3, 8), (8, 3), (8, 8), (5, 1)] {
            let mut reached = vec![0; consumers];
            for from in 0..producers {
                for to in Pattern::Rescale.targets(from, producers, consumers) {
                    reached[to] += 1;
                }
            }
            let (least, most) = (reached.iter().min().copied(), reached.iter().max().copied());
            assert!(least >= Some(1), "{producers} to {consumers}: {reached:?}");
            assert!(most <= Some(producers.div_ceil(consumers)), "{producers} to {consumers}: {reached:?}");
        }
    }
}
