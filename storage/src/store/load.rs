//! How a restored store fills its tables: by taking files over, or with their records.

use std::rc::Rc;

use super::{Store, Waiting, files::DurablePart};
use crate::{
    key::Key,
    log::{
        adopt::Adopting,
        load::{LoadError, Loading},
        place::Form,
        pool::Expected,
        seal::BlockId,
        table::LogTable,
    },
    record::Record,
    snapshot::{
        adopt::{AdoptedExtent, Plan, Taken, is_worth_it, overlap, plan},
        format::segment::Contents,
        restore::{Found, Parts, Piece, TableReader},
    },
    state::{KeyedTable, Migration, Slice, StateError, StateName},
};

impl Store {
    /// Takes over the files of those parts of which it is worth it.
    pub(super) fn take_over(&mut self, parts: &Parts) -> Result<(), StateError> {
        let mut files = self.shared.files.borrow_mut();
        let wanted = |sources: &&[_]| is_worth_it(sources, &self.key_groups);
        let all: Vec<&[_]> = parts.sources().iter().map(Vec::as_slice).collect();
        let taken: Vec<&[_]> = all.iter().copied().filter(wanted).collect();
        if !files.exist() || taken.is_empty() {
            return Ok(());
        }
        let mut numbers = files.adopt(&taken)?.into_iter();
        self.adopted =
            all.iter().map(|sources| if wanted(sources) { numbers.next().flatten() } else { None }).collect();
        self.shared.begin_behind(parts.seal());
        Ok(())
    }

    /// Fills a table with what was restored for its slice.
    pub(super) fn load<K: Key, V: Record>(
        &self,
        table: &mut LogTable<K, V>,
        waiting: &Waiting,
        slice: Slice,
    ) -> Result<(), StateError> {
        let Some(parts) = &self.restored else { return Ok(()) };
        let name = &waiting.stored.name;
        let migration = waiting.migration.as_ref().and_then(|own| own.downcast_ref::<Migration<V>>());
        let mut loading = Loading {
            key_groups: self.key_groups.clone(),
            max_parallelism: self.max_parallelism,
            layout: waiting.stored.layout,
            migrate: migration.map(|migration| &*migration.migrate),
        };
        // No more than the files can hold, whatever a manifest declares: no record is shorter than its hash.
        let keys = parts.expected_keys(name, slice).min(parts.bytes(name, slice) / size_of::<u64>() as u64);
        table.reserve(usize::try_from(keys).unwrap_or(0));
        let _expected = self.expect(table, parts.bytes(name, slice));
        let mut reader = parts.reader(name, slice);
        let is_adopted =
            |part: usize| migration.is_none() && self.adopted.get(part).is_some_and(Option::is_some);
        let plan = plan(reader.extents(), Form::<K, V>::SHAPE, is_adopted);
        let mut adopting = table.begin_adopting(plan.blocks.len());
        for at in 0..plan.extents.len() {
            let found = reader.extents()[at].clone();
            loading.key_groups = overlap(&found.source.key_groups, &self.key_groups);
            let loaded = self.load_piece(table, &mut reader, &found, (&plan, at, &mut adopting), &loading)?;
            loaded.map_err(|error| no_records(name, error))?;
        }
        table.finish_adopting(adopting, &plan.blocks);
        Ok(())
    }

    /// Has memory fetched ahead for a table's index and so many bytes of records, as far as the budget lets them be there.
    fn expect<K: Key, V: Record>(&self, table: &LogTable<K, V>, records: u64) -> Expected {
        let pool = &self.shared.pool;
        let room = self.shared.memory_bytes_max.saturating_sub(pool.block_bytes());
        let records = usize::try_from(records).unwrap_or(usize::MAX).min(room);
        pool.expect(records.saturating_add(table.reserved_bytes()))
    }

    /// Takes in the next extent.
    fn load_piece<K: Key, V: Record>(
        &self,
        table: &mut LogTable<K, V>,
        reader: &mut TableReader,
        found: &Found,
        (plan, at, adopting): (&Plan, usize, &mut Adopting),
        loading: &Loading<'_, V>,
    ) -> Result<Result<(), LoadError>, StateError> {
        let entry = found.entry();
        let number = self.adopted_as(found);
        if !matches!(plan.extents[at], Taken::Block(_)) {
            table.index_waiting(adopting);
        }
        let file = match (number, plan.extents[at]) {
            // Without a budget nothing is ever read from the files.
            (Some(number), Taken::Block(_)) if self.shared.is_bounded() => {
                Some(self.shared.files.borrow_mut().adopted_file(number, &found.source.segment)?)
            }
            _ => None,
        };
        let durable = |block: BlockId, from: u32| {
            let (to, offset) = (from + entry.length, entry.offset);
            file.as_ref().map(|file| DurablePart { block, from, to, file: Rc::clone(file), offset })
        };
        let adopt = |table, block| {
            let Some(segment) = number else { return };
            let (entry, seal, written_as) = (found.at, entry.seal, entry.table);
            let extent = AdoptedExtent { table, block, segment, entry, seal, written_as };
            self.shared.adopted.borrow_mut().push(extent);
        };
        Ok(match (reader.next_piece()?, plan.extents[at], entry.contents) {
            (Some(Piece::Records(bytes)), Taken::Block(block), Contents::Records { from, .. }) => {
                let planned = (&*plan.blocks, block);
                let loaded =
                    table.load_block(adopting, planned, from, bytes, loading, |block| durable(block, from));
                loaded.map(|block| adopt(table.table(), Some(block)))
            }
            (Some(Piece::Records(bytes)), ..) => table.load_records(bytes, loading),
            (Some(Piece::Removed(keys)), Taken::Removed, _) => {
                adopt(table.table(), None);
                table.load_adopted_removed(adopting, keys, loading, false)
            }
            (Some(Piece::Removed(keys)), Taken::RemovedTogether, _) => {
                table.load_adopted_removed(adopting, keys, loading, true)
            }
            (Some(Piece::Removed(keys)), ..) => table.load_removed(keys, loading),
            (None, ..) => Ok(()),
        })
    }

    /// The number in this store of the segment that an extent is in, if it was taken over.
    fn adopted_as(&self, found: &Found) -> Option<u64> {
        self.adopted.get(found.source.part)?.as_ref()?.get(found.source.at).copied()
    }
}

fn no_records(name: &StateName, error: LoadError) -> StateError {
    match error {
        LoadError::Value(error) => error.into(),
        LoadError::Records((_, what)) => {
            StateError::NoRecords { operator: name.operator.clone(), state: name.state.clone(), what }
        }
    }
}
