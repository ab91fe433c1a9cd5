//! What all tables of one store share: memory and its budget, numbers, files, and what the next seal has to tell.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use super::{
    index::HashRange,
    owed::Owed,
    pool::BlockPool,
    seal::{BlockId, Sealed, StateDeclaration, TableDeclaration, TableId},
};
use crate::{
    snapshot::adopt::AdoptedExtent,
    state::{Slice, StateId, StateName},
    store::{StoreOptions, files::Files, held::Held},
};

/// What all tables of one store share. Used by one thread.
pub struct Shared {
    /// Where blocks and index pages come from.
    pub pool: Arc<BlockPool>,
    /// The hashes of the keys that this store is for.
    pub range: HashRange,
    /// Bytes of records that may be in memory, of all stores that share the pool.
    pub memory_bytes_max: usize,
    /// Bytes of a table up to which nothing is fetched ahead.
    pub near_bytes_max: usize,
    /// Bytes of a record up to which it may be changed in place.
    pub journaled_bytes_max: usize,
    /// Bytes of a record up to which it may be changed in place where its table is copied as a whole.
    pub reopened_bytes_max: usize,
    /// The files.
    pub files: RefCell<Files>,
    /// States, by id.
    pub(crate) states: RefCell<Vec<StateDeclaration>>,
    /// Names of the states that the store was restored with.
    pub(crate) restored: RefCell<Vec<StateName>>,
    /// States that a seal has declared already.
    declared: Cell<usize>,
    next_table: Cell<u64>,
    next_block: Cell<u64>,
    next_seal: Cell<u64>,
    /// Tables that exist.
    tables: Cell<usize>,
    made: RefCell<Vec<TableDeclaration>>,
    /// Taken over of files, and not told of by a seal.
    pub(crate) adopted: RefCell<Vec<AdoptedExtent>>,
    pub(crate) freed: RefCell<Vec<(TableId, BlockId)>>,
    /// What the last seal is owed.
    pub(super) owed: RefCell<Vec<Rc<RefCell<Owed>>>>,
    /// The snapshot that waits for it.
    pub(crate) held: RefCell<Option<Held>>,
    gone: RefCell<Vec<TableId>>,
}

impl Shared {
    /// For the tables of a store that is made with these options.
    pub fn new(options: &StoreOptions) -> Self {
        let StoreOptions { key_groups, max_parallelism, files, waste_bytes_max, .. } = options;
        let files = Files::new(files.clone(), key_groups.clone(), *max_parallelism, *waste_bytes_max);
        Self {
            pool: Arc::clone(&options.pool),
            range: HashRange::of_key_groups(key_groups.clone(), *max_parallelism),
            memory_bytes_max: options.memory_bytes_max,
            near_bytes_max: options.near_bytes_max,
            journaled_bytes_max: options.journaled_bytes_max,
            reopened_bytes_max: options.reopened_bytes_max,
            files: RefCell::new(files),
            states: RefCell::default(),
            restored: RefCell::default(),
            declared: Cell::new(0),
            next_table: Cell::new(0),
            next_block: Cell::new(0),
            next_seal: Cell::new(0),
            tables: Cell::new(0),
            made: RefCell::default(),
            adopted: RefCell::default(),
            freed: RefCell::default(),
            owed: RefCell::default(),
            held: RefCell::default(),
            gone: RefCell::default(),
        }
    }

    /// Whether there is a bound on the memory for records.
    #[inline(always)]
    pub fn is_bounded(&self) -> bool {
        self.memory_bytes_max != usize::MAX
    }

    /// Bytes of records in memory over the budget.
    pub fn excess_bytes(&self) -> usize {
        if self.is_bounded() { self.pool.block_bytes().saturating_sub(self.memory_bytes_max) } else { 0 }
    }

    /// Number of tables.
    pub fn tables(&self) -> usize {
        self.tables.get()
    }

    /// The id of a new table.
    pub(super) fn new_table(&self, state: StateId, slice: Slice) -> TableId {
        let table = TableId(self.next_table.replace(self.next_table.get() + 1));
        self.tables.set(self.tables.get() + 1);
        self.made.borrow_mut().push(TableDeclaration { table, state, slice });
        if self.is_bounded() {
            self.files.borrow_mut().watch(table);
        }
        table
    }

    /// The id of a new block.
    pub(super) fn next_block(&self) -> BlockId {
        BlockId(self.next_block.replace(self.next_block.get() + 1))
    }

    /// Notes that a table is gone; one that no seal has seen is forgotten altogether.
    pub(super) fn dropped(&self, table: TableId) {
        self.tables.set(self.tables.get() - 1);
        if self.is_bounded() {
            self.files.borrow_mut().forget(table);
        }
        let mut made = self.made.borrow_mut();
        match made.binary_search_by_key(&table, |made| made.table) {
            Ok(at) => drop(made.remove(at)),
            Err(_) => self.gone.borrow_mut().push(table),
        }
    }

    /// Goes on behind the seals of what was taken over.
    pub(crate) fn begin_behind(&self, seal: u64) {
        self.next_seal.set(self.next_seal.get().max(seal + 1));
    }

    /// Begins a seal with its number and the states and tables that no seal has told of. The number before is for its journal.
    pub(crate) fn begin_seal(&self) -> (u64, Sealed) {
        let seal = self.next_seal.replace(self.next_seal.get() + 2) + 1;
        let states = self.states.borrow();
        let states = states[self.declared.replace(states.len())..].to_vec();
        let (tables, adopted) = (self.made.take(), self.adopted.take());
        (seal, Sealed { states, tables, adopted, ..Sealed::default() })
    }

    /// Completes a seal with what is no longer there.
    pub(crate) fn finish_seal(&self, sealed: &mut Sealed) {
        sealed.freed = self.freed.take();
        sealed.dropped = self.gone.take();
    }

    /// Whether the last seal is owed something.
    pub(crate) fn is_owing(&self) -> bool {
        !self.owed.borrow().is_empty()
    }

    /// Gives the last seal what it is owed, and as soon as that is more than `bytes` no more of it; whether that was all.
    pub(crate) fn give_owed(&self, mut bytes: usize, sealed: &mut Sealed) -> bool {
        let mut owed = self.owed.borrow_mut();
        let is_all = owed.iter().all(|owed| owed.borrow_mut().copy_some(&mut bytes));
        if is_all {
            owed.drain(..).for_each(|owed| owed.borrow_mut().hand_over(sealed));
        }
        is_all
    }
}
