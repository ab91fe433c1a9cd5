//! `apply`: a function of all records of a window, kept in lists until it fires.
//!
//! Adding a record takes no longer when there are many: a list is cut into pages.

use std::{marker::PhantomData, ops::Range};

use tidemill_engine::{
    model::{item::Owned, operator::Push},
    runtime::exchange::batch::Batch,
};
use tidemill_storage::{
    key::Key,
    kinds::list::{ListState, ListStates},
    log::seal::Sealed,
    record::{Record, restore},
    state::{KeyView, Slice, StateBackend, StateError, StateName},
};

use super::{
    assigner::TimeWindow,
    pane::{Outlet, WindowFunction},
};

/// Keys of a slice that are put into a window in one step at most.
const MERGED_PER_STEP_MAX: usize = 256;

/// A function of all records of a window, kept until it fires.
pub struct ApplyWindow<T, F, O> {
    function: F,
    types: PhantomData<fn() -> (T, O)>,
}

impl<T, F, O> ApplyWindow<T, F, O> {
    /// With this function of the key, the window and its records, in the order of slices and within one of arrival.
    pub fn new(function: F) -> Self {
        Self { function, types: PhantomData }
    }
}

impl<T, F: Clone, O> Clone for ApplyWindow<T, F, O> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<K, T, F, O> WindowFunction<K, T> for ApplyWindow<T, F, O>
where
    K: Key,
    T: Record + Clone,
    F: Fn(K, TimeWindow, &[T]) -> O + Clone + Send + 'static,
    O: IntoIterator<Item: 'static> + 'static,
{
    type Output = O::Item;
    type States = ListStates;
    type Pane<B: StateBackend> = ListState<K, T, B>;

    fn open<B: StateBackend>(&self, backend: &mut B, name: StateName) -> Result<ListStates, StateError> {
        ListStates::open::<K, T, B>(backend, name, Vec::new())
    }

    fn restored<B: StateBackend>(&self, backend: &B, states: ListStates) -> Vec<Slice> {
        states.restored(backend)
    }

    fn pane<B: StateBackend>(&self, backend: &mut B, states: ListStates, slice: Slice) -> Self::Pane<B> {
        states.lists(backend, slice)
    }

    fn add<B: StateBackend>(&self, pane: &mut Self::Pane<B>, batch: &Batch<T>, range: Range<usize>) {
        pane.add_batch(batch, range, |i| restore(&batch.records()[i]));
    }

    fn merge<B: StateBackend>(
        &self,
        into: &mut Self::Pane<B>,
        slice: &mut Self::Pane<B>,
        cursor: usize,
    ) -> Option<usize> {
        let (mut cursor, mut keys) = (Some(cursor), OneKey::default());
        for _ in 0..MERGED_PER_STEP_MAX {
            cursor = keys.next(slice, cursor?);
            if let Some(key) = keys.view() {
                slice.for_each(key, |record| into.add(key, &restore::<T>(record)));
            }
        }
        cursor
    }

    fn emit<B: StateBackend, D: Push<Owned<O::Item>>>(
        &self,
        pane: &mut Self::Pane<B>,
        cursor: usize,
        outlet: &mut Outlet<'_, D>,
    ) -> Option<usize> {
        let (mut cursor, mut keys) = (cursor, OneKey::default());
        loop {
            let next = keys.next(pane, cursor);
            let has_room = keys.view().is_none_or(|view| {
                outlet.of_key(view, |outlet, key| {
                    let results = (self.function)(key, outlet.window, &pane.get(view));
                    results.into_iter().for_each(|result| outlet.push(result));
                })
            });
            cursor = next?;
            if !has_room {
                return Some(cursor);
            }
        }
    }

    fn prepare<B: StateBackend>(&self, _pane: &mut Self::Pane<B>, _like: &Self::Pane<B>) {
        // Lists grow page by page.
    }

    fn seal<B: StateBackend>(&self, pane: &mut Self::Pane<B>, sealed: &mut Sealed) {
        pane.seal(sealed);
    }

    fn relieve<B: StateBackend>(&self, pane: &mut Self::Pane<B>) {
        pane.relieve();
    }
}

/// Goes through the keys of lists one by one: while a table is scanned it cannot be read otherwise.
#[derive(Default)]
struct OneKey {
    hash: u64,
    bytes: Vec<u8>,
    found: bool,
}

impl OneKey {
    /// Looks for the next key from `cursor` on, and returns the cursor to go on from.
    fn next<K: Key, T: Record, B: StateBackend>(
        &mut self,
        lists: &mut ListState<K, T, B>,
        cursor: usize,
    ) -> Option<usize> {
        self.found = false;
        self.bytes.clear();
        lists.scan_keys(cursor, |key, _len| {
            self.found = true;
            self.hash = key.hash;
            self.bytes.extend_from_slice(key.bytes);
            false
        })
    }

    /// The key, if there was one.
    fn view(&self) -> Option<KeyView<'_>> {
        self.found.then_some(KeyView { hash: self.hash, bytes: &self.bytes })
    }
}
