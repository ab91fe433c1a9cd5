//! Partitioners: which subtasks of the next chain a record goes to.

use std::marker::PhantomData;

use tidemill_storage::key::{Key, KeyRef, key_group, subtask_of};

use super::batch::RecordKey;

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
    fn route(&mut self, view: &V) -> Route<'_>;
}

/// By the hash of a key: all records with one key go to the subtask that owns the key's group.
pub struct KeyBy<K, F> {
    extract: F,
    owners: KeyGroupOwners,
    scratch: Vec<u8>,
    key: PhantomData<fn() -> K>,
}

impl<K, F> KeyBy<K, F> {
    /// A partitioner by the key that `extract` gives.
    pub fn new(extract: F) -> Self {
        Self { extract, owners: KeyGroupOwners::default(), scratch: Vec::new(), key: PhantomData }
    }
}

impl<K, F: Clone> Clone for KeyBy<K, F> {
    fn clone(&self) -> Self {
        Self::new(self.extract.clone())
    }
}

impl<V: ?Sized, K: Key, F: FnMut(&V) -> K + Clone + Send + 'static> Partition<V> for KeyBy<K, F> {
    const PATTERN: Pattern = Pattern::AllToAll;
    const HASHED: bool = true;
    const WIDE: bool = !K::WIDTH.is_narrow();

    fn open(&mut self, _subtask: usize, targets: usize, max_parallelism: u32) {
        self.owners = KeyGroupOwners::new(targets, max_parallelism);
    }

    #[inline(always)]
    fn route(&mut self, view: &V) -> Route<'_> {
        let key = (self.extract)(view);
        if K::WIDTH.is_narrow() {
            let hash = key.key_hash(&mut self.scratch);
            return Route::One { target: self.owners.target(hash), key: RecordKey::Narrow(hash) };
        }
        self.scratch.clear();
        key.encode(&mut self.scratch);
        let hash = tidemill_storage::key::hash_bytes(&self.scratch);
        Route::One { target: self.owners.target(hash), key: RecordKey::Wide(hash, &self.scratch) }
    }
}

/// As [`KeyBy`], with a key that is borrowed from the record: no allocation per record.
pub struct KeyByRef<Q: ?Sized, F> {
    extract: F,
    owners: KeyGroupOwners,
    scratch: Vec<u8>,
    key: PhantomData<fn(&Q)>,
}

impl<Q: ?Sized, F> KeyByRef<Q, F> {
    /// A partitioner by the key that `extract` borrows from the record.
    pub fn new(extract: F) -> Self {
        Self { extract, owners: KeyGroupOwners::default(), scratch: Vec::new(), key: PhantomData }
    }
}

impl<Q: ?Sized, F: Clone> Clone for KeyByRef<Q, F> {
    fn clone(&self) -> Self {
        Self::new(self.extract.clone())
    }
}

impl<V, Q, F> Partition<V> for KeyByRef<Q, F>
where
    V: ?Sized,
    Q: KeyRef + ?Sized + 'static,
    F: FnMut(&V) -> &Q + Clone + Send + 'static,
{
    const PATTERN: Pattern = Pattern::AllToAll;
    const HASHED: bool = true;
    const WIDE: bool = !<Q::Owned as Key>::WIDTH.is_narrow();

    fn open(&mut self, _subtask: usize, targets: usize, max_parallelism: u32) {
        self.owners = KeyGroupOwners::new(targets, max_parallelism);
    }

    #[inline(always)]
    fn route(&mut self, view: &V) -> Route<'_> {
        let key = (self.extract)(view);
        if <Q::Owned as Key>::WIDTH.is_narrow() {
            let hash = key.key_hash_ref(&mut self.scratch);
            return Route::One { target: self.owners.target(hash), key: RecordKey::Narrow(hash) };
        }
        self.scratch.clear();
        key.encode_ref(&mut self.scratch);
        let hash = tidemill_storage::key::hash_bytes(&self.scratch);
        Route::One { target: self.owners.target(hash), key: RecordKey::Wide(hash, &self.scratch) }
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
    fn route(&mut self, _view: &V) -> Route<'_> {
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
    fn route(&mut self, _view: &V) -> Route<'_> {
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
    fn route(&mut self, _view: &V) -> Route<'_> {
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
    fn route(&mut self, _view: &V) -> Route<'_> {
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
    fn route(&mut self, view: &V) -> Route<'_> {
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
