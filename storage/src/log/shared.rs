//! What all tables of one store share: memory, numbers, and what the next seal has to tell.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use super::{
    index::HashRange,
    pool::BlockPool,
    seal::{BlockId, TableDeclaration, TableId},
};
use crate::state::{Slice, StateId};

/// What all tables of one store share. Used by one thread.
pub struct Shared {
    /// Where blocks and index pages come from.
    pub pool: Arc<BlockPool>,
    /// The hashes of the keys that this store is for.
    pub range: HashRange,
    next_table: Cell<u64>,
    next_block: Cell<u64>,
    /// Tables that exist.
    pub(crate) tables: Cell<usize>,
    pub(crate) made: RefCell<Vec<TableDeclaration>>,
    pub(crate) freed: RefCell<Vec<(TableId, BlockId)>>,
    pub(crate) forgotten: RefCell<Vec<(TableId, u64)>>,
    pub(crate) gone: RefCell<Vec<TableId>>,
}

impl Shared {
    /// For tables of keys in `range`.
    pub fn new(range: HashRange, pool: Arc<BlockPool>) -> Self {
        Self {
            pool,
            range,
            next_table: Cell::new(0),
            next_block: Cell::new(0),
            tables: Cell::new(0),
            made: RefCell::default(),
            freed: RefCell::default(),
            forgotten: RefCell::default(),
            gone: RefCell::default(),
        }
    }

    /// The id of a new table.
    pub(crate) fn new_table(&self, state: StateId, slice: Slice) -> TableId {
        let table = TableId(self.next_table.replace(self.next_table.get() + 1));
        self.tables.set(self.tables.get() + 1);
        self.made.borrow_mut().push(TableDeclaration { table, state, slice });
        table
    }

    /// The id of a new block.
    pub(crate) fn next_block(&self) -> BlockId {
        BlockId(self.next_block.replace(self.next_block.get() + 1))
    }

    /// Notes that a table is gone; one that no seal has seen is forgotten altogether.
    pub(crate) fn dropped(&self, table: TableId) {
        self.tables.set(self.tables.get() - 1);
        let mut made = self.made.borrow_mut();
        // The tables made last are those that the list holds, in order.
        match made.binary_search_by_key(&table, |made| made.table) {
            Ok(at) => drop(made.remove(at)),
            Err(_) => self.gone.borrow_mut().push(table),
        }
    }
}
