//! The contract between the window operator and what it computes: how a *pane*, the records of one slice or of one window
//! put together from slices, is kept per key.
//!
//! [`Accumulated`](super::accumulator::Accumulated) keeps one value per key;
//! [`ApplyWindow`](super::apply::ApplyWindow) keeps all records.

use std::ops::Range;

use tidemill_engine::{
    model::{
        item::Owned,
        metrics::OperatorCounters,
        operator::{OperatorIndex, Push, StepContext},
        source::BoxError,
    },
    runtime::exchange::batch::Batch,
};
use tidemill_storage::{
    key::Key,
    log::seal::Sealed,
    record::Record,
    state::{KeyView, Slice, StateBackend, StateError, StateName},
};

use super::{assigner::TimeWindow, timeline::SkippedGroups};
use crate::keyed::key::restore_key;

/// What the window operator computes. A pane is used by one thread; no method waits.
pub trait WindowFunction<K: Key, T: Record>: Clone + Send + 'static {
    /// What a fired window hands on.
    type Output: 'static;
    /// The state that panes are kept in, opened.
    type States: Copy + 'static;
    /// The records of a slice or a window by key.
    type Pane<B: StateBackend>: 'static;

    /// Opens the state that panes are kept in.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    fn open<B: StateBackend>(&self, backend: &mut B, name: StateName) -> Result<Self::States, StateError>;
    /// The slices that were restored and not yet taken, ascending.
    fn restored<B: StateBackend>(&self, backend: &B, states: Self::States) -> Vec<Slice>;
    /// A pane of the state, with what was restored for this slice, else empty.
    fn pane<B: StateBackend>(&self, backend: &mut B, states: Self::States, slice: Slice) -> Self::Pane<B>;
    /// Adds the records `range` of a batch.
    fn add<B: StateBackend>(&self, pane: &mut Self::Pane<B>, batch: &Batch<T>, range: Range<usize>);
    /// Adds the keys of `slice` from `cursor` on (0 to begin) to `into`, a bounded number of them; returns the cursor to go
    /// on from, or `None` at the end.
    fn merge<B: StateBackend>(
        &self,
        into: &mut Self::Pane<B>,
        slice: &mut Self::Pane<B>,
        cursor: usize,
    ) -> Option<usize>;
    /// Hands on the results of the keys from `cursor` on (0 to begin) while the outlet has room; as [`merge`](Self::merge).
    fn emit<B: StateBackend, D: Push<Owned<Self::Output>>>(
        &self,
        pane: &mut Self::Pane<B>,
        cursor: usize,
        outlet: &mut Outlet<'_, D>,
    ) -> Option<usize>;
    /// Prepares an empty pane for about as many keys as another has.
    fn prepare<B: StateBackend>(&self, pane: &mut Self::Pane<B>, like: &Self::Pane<B>);
    /// Hands over what changed since the last seal, as [`KeyedTable::seal`](tidemill_storage::state::KeyedTable::seal).
    fn seal<B: StateBackend>(&self, pane: &mut Self::Pane<B>, sealed: &mut Sealed);
    /// Gives memory back if the budget is used up.
    fn relieve<B: StateBackend>(&self, pane: &mut Self::Pane<B>);
}

/// Where a window's results go, for one step.
pub struct Outlet<'a, D> {
    /// The window that is fired.
    pub window: TimeWindow,
    /// Keys for which it has fired already.
    pub(super) skipped: &'a SkippedGroups,
    pub(super) operator: OperatorIndex,
    /// Keys that may still be handled in this step.
    pub(super) keys_left: usize,
    pub(super) counters: &'a mut OperatorCounters,
    pub(super) down: &'a mut D,
    pub(super) context: &'a mut StepContext,
}

impl<D> Outlet<'_, D> {
    /// Hands on a result.
    #[inline(always)]
    pub fn push<O: 'static>(&mut self, output: O)
    where
        D: Push<Owned<O>>,
    {
        self.counters.records_out += 1;
        self.down.push(output, self.window.max_timestamp(), self.context);
    }

    /// Stops the job.
    #[cold]
    pub fn fail(&mut self, error: BoxError) {
        self.context.fail(self.operator, error);
    }

    /// Handles one key: `emit` hands on its results. Whether there is room for those of another.
    #[inline(always)]
    pub fn of_key<K: Key>(&mut self, key: KeyView<'_>, emit: impl FnOnce(&mut Self, K)) -> bool {
        if !self.skipped.contain(key.hash) {
            match restore_key(key) {
                Ok(key) => emit(self, key),
                Err(error) => self.fail(error),
            }
        }
        self.keys_left -= 1;
        self.keys_left > 0 && !self.context.is_blocked()
    }
}
