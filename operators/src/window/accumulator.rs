//! Panes of one accumulator per key: what [`aggregate`](super::function::AggregateWindow) and
//! [`reduce`](super::function::ReduceWindow) have in common.

use std::{cell::Cell, ops::Range};

use rkyv::Archived;
use tidemill_engine::{
    model::{item::Owned, operator::Push},
    runtime::exchange::batch::Batch,
};
use tidemill_storage::{
    key::Key,
    log::seal::Sealed,
    record::{Record, with_value},
    state::{KeyColumn, KeyView, KeyedTable, Slice, StateBackend, StateError, StateId, StateName},
};

use super::{
    assigner::TimeWindow,
    pane::{Outlet, WindowFunction},
};

/// Keys of a slice that are put into a window together: enough for a backend to fetch what they need at once.
const TOGETHER_MAX: usize = 64;
/// Keys of a slice that are put into a window in one step at most.
const MERGED_PER_STEP_MAX: usize = 4096;

/// What a window keeps one value per key for.
pub trait WindowAccumulator<K: Key, T: Record>: Clone + Send + 'static {
    /// What is kept per key and slice.
    type Accumulator: Record + Clone;
    /// What a fired window hands on.
    type Output: 'static;

    /// The accumulator of a key's first record.
    fn first(&self, record: &Archived<T>) -> Self::Accumulator;
    /// Adds a later record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: &Archived<T>);
    /// Adds a later slice's accumulator.
    fn merge(&self, into: &mut Self::Accumulator, other: &Self::Accumulator);
    /// What the window has come to.
    fn result(&self, key: K, window: TimeWindow, accumulator: &Self::Accumulator) -> Self::Output;
}

/// Panes of accumulators.
#[derive(Clone)]
pub struct Accumulated<A>(pub A);

impl<K: Key, T: Record, A: WindowAccumulator<K, T>> WindowFunction<K, T> for Accumulated<A> {
    type Output = A::Output;
    type States = StateId;
    type Pane<B: StateBackend> = B::Table<K, A::Accumulator>;

    fn open<B: StateBackend>(&self, backend: &mut B, name: StateName) -> Result<StateId, StateError> {
        backend.open::<K, A::Accumulator>(name, Vec::new())
    }

    fn restored<B: StateBackend>(&self, backend: &B, state: StateId) -> Vec<Slice> {
        backend.restored(state)
    }

    fn pane<B: StateBackend>(&self, backend: &mut B, state: StateId, slice: Slice) -> Self::Pane<B> {
        backend.table::<K, A::Accumulator>(state, slice)
    }

    #[inline(always)]
    fn add<B: StateBackend>(&self, pane: &mut Self::Pane<B>, batch: &Batch<T>, range: Range<usize>) {
        let (records, first) = (batch.records(), Cell::new(usize::MAX));
        pane.update_batch(
            batch,
            range,
            |i| {
                first.set(i);
                self.0.first(&records[i])
            },
            |i, accumulator| {
                if first.get() != i {
                    self.0.add(accumulator, &records[i]);
                }
            },
        );
    }

    fn merge<B: StateBackend>(
        &self,
        into: &mut Self::Pane<B>,
        slice: &mut Self::Pane<B>,
        cursor: usize,
    ) -> Option<usize> {
        if into.is_empty() {
            // The union of overlapping slices has more keys than one of them, and fewer than all.
            into.reserve(2 * slice.len());
        }
        let mut cursor = Some(cursor);
        let mut gathered = Gathered::default();
        for _ in 0..MERGED_PER_STEP_MAX / TOGETHER_MAX {
            cursor = slice.scan(cursor?, |key, accumulator| {
                gathered.put(key, with_value::<A::Accumulator, _>(accumulator, Clone::clone));
                gathered.values.len() < TOGETHER_MAX
            });
            let (values, first) = (&gathered.values, Cell::new(usize::MAX));
            into.update_batch(
                &gathered,
                0..values.len(),
                |i| {
                    first.set(i);
                    values[i].clone()
                },
                |i, accumulator| {
                    if first.get() != i {
                        self.0.merge(accumulator, &values[i]);
                    }
                },
            );
            gathered.clear();
        }
        cursor
    }

    fn emit<B: StateBackend, D: Push<Owned<A::Output>>>(
        &self,
        pane: &mut Self::Pane<B>,
        cursor: usize,
        outlet: &mut Outlet<'_, D>,
    ) -> Option<usize> {
        pane.scan(cursor, |key, accumulator| {
            outlet.of_key(key, |outlet, key| {
                let window = outlet.window;
                let result = with_value::<A::Accumulator, _>(accumulator, |accumulator| {
                    self.0.result(key, window, accumulator)
                });
                outlet.push(result);
            })
        })
    }

    fn prepare<B: StateBackend>(&self, pane: &mut Self::Pane<B>, like: &Self::Pane<B>) {
        pane.reserve(like.len());
    }

    fn seal<B: StateBackend>(&self, pane: &mut Self::Pane<B>, sealed: &mut Sealed) {
        pane.seal(sealed);
    }

    fn relieve<B: StateBackend>(&self, pane: &mut Self::Pane<B>) {
        pane.relieve();
    }
}

/// Some keys and values of a table, as a column.
struct Gathered<V> {
    keys: Vec<(u64, Range<usize>)>,
    bytes: Vec<u8>,
    values: Vec<V>,
}

impl<V> Default for Gathered<V> {
    fn default() -> Self {
        Self {
            keys: Vec::with_capacity(TOGETHER_MAX),
            bytes: Vec::new(),
            values: Vec::with_capacity(TOGETHER_MAX),
        }
    }
}

impl<V> Gathered<V> {
    fn put(&mut self, key: KeyView<'_>, value: V) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key.bytes);
        self.keys.push((key.hash, start..self.bytes.len()));
        self.values.push(value);
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.bytes.clear();
        self.values.clear();
    }
}

impl<V> KeyColumn for Gathered<V> {
    #[inline(always)]
    fn key(&self, i: usize) -> KeyView<'_> {
        let (hash, bytes) = &self.keys[i];
        KeyView { hash: *hash, bytes: &self.bytes[bytes.clone()] }
    }

    #[inline(always)]
    fn hash(&self, i: usize) -> u64 {
        self.keys[i].0
    }
}
