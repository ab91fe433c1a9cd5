//! The store: the states of one subtask in the hybrid log, sealed together, kept in files by a writer.

use std::{ops::Range, rc::Rc, sync::Arc};

use crate::{
    key::Key,
    log::{
        index::HashRange,
        place::Form,
        pool::BlockPool,
        seal::{Sealed, StateDeclaration},
        shared::Shared,
        table::LogTable,
    },
    record::Record,
    state::{Migration, Slice, StateBackend, StateError, StateId, StateName},
};

/// What a store is made with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The key groups whose keys it holds.
    pub key_groups: Range<u32>,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// Where its memory comes from; the stores of one worker share it.
    pub pool: Arc<BlockPool>,
}

impl StoreOptions {
    /// For all keys, with memory of its own.
    pub fn new() -> Self {
        Self { key_groups: 0..128, max_parallelism: 128, pool: BlockPool::new(true) }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The states of one subtask in the hybrid log.
pub struct Store {
    shared: Rc<Shared>,
    states: Vec<StateDeclaration>,
    /// States that a seal has declared already.
    declared: usize,
}

impl Store {
    /// An empty store.
    pub fn new(options: StoreOptions) -> Self {
        let range = HashRange::of_key_groups(options.key_groups, options.max_parallelism);
        Self { shared: Rc::new(Shared::new(range, options.pool)), states: Vec::new(), declared: 0 }
    }

    /// Begins a seal: every table of the store is to be [sealed](LogTable::seal) into the result before anything else
    /// is done with any of them, then [`finish_seal`](Self::finish_seal) completes it.
    pub fn begin_seal(&mut self) -> Sealed {
        let states = self.states[self.declared..].to_vec();
        self.declared = self.states.len();
        let made = &mut *self.shared.made.borrow_mut();
        Sealed { states, tables: std::mem::take(made), ..Sealed::default() }
    }

    /// Completes a seal with what is no longer there.
    pub fn finish_seal(&mut self, sealed: &mut Sealed) {
        sealed.freed = self.shared.freed.take();
        sealed.forgotten = self.shared.forgotten.take();
        sealed.dropped = self.shared.gone.take();
    }
}

impl StateBackend for Store {
    type Table<K: Key, V: Record> = LogTable<K, V>;

    fn open<K: Key, V: Record>(
        &mut self,
        name: StateName,
        _migrations: Vec<Migration<V>>,
    ) -> Result<StateId, StateError> {
        if self.states.iter().any(|state| state.name == name) {
            return Err(StateError::OpenTwice { operator: name.operator, state: name.state });
        }
        let id = StateId(self.states.len() as u32);
        let keys = std::any::type_name::<K>().to_owned();
        let values = V::schema().into_owned();
        self.states.push(StateDeclaration { id, name, keys, values, layout: Form::<K, V>::LAYOUT });
        Ok(id)
    }

    fn restored(&self, _state: StateId) -> Vec<Slice> {
        Vec::new()
    }

    fn table<K: Key, V: Record>(&mut self, state: StateId, slice: Slice) -> LogTable<K, V> {
        LogTable::new(state, slice, &self.shared)
    }
}
