//! The state backend that a job's settings choose: decided once per task, where [`open`] is called.
//!
//! [`JobBackend`] is one of the backends and hands every call on to it. Operators give tables whole columns of keys, so
//! the choice is made again once per batch and not per record; where a process function looks up single keys it is a branch
//! that always goes the same way. The chain behind an operator is compiled once for all backends.

use std::{
    fmt::Write,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use rkyv::Archived;
use tidemill_engine::{
    model::{
        checkpoint::{Barrier, Part},
        config::StateBackendKind,
        graph::{BuildContext, RegisteredStore, Share},
        operator::{OpenError, OperatorIndex, StepContext},
    },
    runtime::blame::Blame,
};
use tidemill_storage::{
    key::{Key, hash_bits, hash_bytes, key_group_range},
    log::seal::Sealed,
    record::Record,
    snapshot::clean::WASTE_BYTES_MAX,
    state::{
        Expired, KeyColumn, KeyView, KeyedTable, Migration, Slice, StateBackend, StateError, StateId,
        StateName, memory::MemoryBackend,
    },
    store::{
        JOURNALED_BYTES_MAX, NEAR_BYTES_MAX, REOPENED_BYTES_MAX, Store, StoreOptions,
        files::{FileOptions, Notify, WriterKind},
    },
};

/// The backend for the state of one operator in one subtask, with what the checkpoint that the job goes on from holds of
/// its key groups. Its worker hears what becomes of its snapshots.
///
/// # Errors
/// Whatever keeps it from opening, in the name of the operator.
pub fn open(operator: OperatorIndex, context: &BuildContext) -> Result<JobBackend, OpenError> {
    let manifests = context.take(operator, Share::State).map(|state| state.manifests()).unwrap_or_default();
    if context.config.state_backend == StateBackendKind::Memory {
        if !manifests.is_empty() {
            return Err(refused(operator)(StateError::NoSnapshots));
        }
        return Ok(JobBackend::Memory(MemoryBackend::default()));
    }
    let options = store_options(operator, context);
    let mut store = if manifests.is_empty() {
        Store::new(options)
    } else {
        Store::restore(options, Arc::clone(&context.disk), &manifests).map_err(refused(operator))?
    };
    // There will be barriers, and none of them is to wait for a thread to be made.
    if context.checkpoints.state_dir.is_some() {
        store.start_writer().map_err(refused(operator))?;
    }
    let (subtask, snapshots) = (context.subtask.subtask, store.snapshots());
    context.stores.borrow_mut().push(RegisteredStore { operator, subtask, snapshots });
    Ok(JobBackend::Log(store))
}

/// A store for the key groups of this subtask. Without a directory all of it stays in memory.
fn store_options(operator: OperatorIndex, context: &BuildContext) -> StoreOptions {
    let BuildContext { subtask, config, state_pool, .. } = context;
    let max_parallelism = config.key_groups();
    // Neither is over the number of key groups.
    let (index, parallelism) = (subtask.subtask as u32, subtask.parallelism as u32);
    let files = directory(operator, context).map(|directory| FileOptions {
        directory,
        store: store_number(operator, context),
        disk: Arc::clone(&context.disk),
        notify: Some(Notify(Arc::new({
            let waker = Arc::clone(&subtask.waker);
            move || waker.wake()
        }))),
        writer: match context.state_writer {
            WriterKind::Late { seed } => {
                WriterKind::Late { seed: hash_bits(seed ^ place(operator, context)) }
            }
            other => other,
        },
    });
    // Under simulation every other store takes its few small tables for large ones of small records, and every other one cleans its
    // few small files.
    let bits = if let WriterKind::Late { seed } = context.state_writer { seed } else { 0 };
    let (is_large, is_tidy) = (bits & 1 > 0, bits & 2 > 0);
    let bound = config.state_memory_bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
    StoreOptions {
        key_groups: key_group_range(index, max_parallelism, parallelism),
        max_parallelism,
        pool: Arc::clone(state_pool),
        memory_bytes_max: bound.filter(|_| files.is_some()).unwrap_or(usize::MAX),
        near_bytes_max: if is_large { 0 } else { NEAR_BYTES_MAX },
        journaled_bytes_max: if is_large { usize::MAX } else { JOURNALED_BYTES_MAX },
        reopened_bytes_max: if is_large { usize::MAX } else { REOPENED_BYTES_MAX },
        waste_bytes_max: if is_tidy { 0 } else { WASTE_BYTES_MAX },
        files,
    }
}

/// The directory of one store: that of the attempt, if checkpoints are kept; else the one for state that leaves memory,
/// if there is one.
fn directory(operator: OperatorIndex, context: &BuildContext) -> Option<PathBuf> {
    let subtask = context.subtask.subtask;
    if let Some(attempt) = &context.checkpoints.state_dir {
        return Some(attempt.join(file_name(context.operator_id(operator))).join(subtask.to_string()));
    }
    let own = context.config.state_dir.as_deref();
    own.map(|directory: &Path| directory.join(format!("{operator}-{subtask}")))
}

/// Longest name of a directory that is made of an operator's id, in bytes; systems take 255.
const FILE_NAME_BYTES_MAX: usize = 200;

/// A name for a directory, made of an operator's id: letters, digits, `-` and `_` stay, all else is written as in a URL. Ids
/// that differ have names that differ; a long one is cut off, and its hash says what was.
fn file_name(id: &str) -> String {
    if id.is_empty() {
        return "%".to_owned();
    }
    let mut name = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            name.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(name, "%{byte:02X}");
        }
    }
    if name.len() > FILE_NAME_BYTES_MAX {
        name.truncate(FILE_NAME_BYTES_MAX);
        let _ = write!(name, "~{:016x}", hash_bytes(id.as_bytes()));
    }
    name
}

/// A number that no other store of the job has.
fn place(operator: OperatorIndex, context: &BuildContext) -> u64 {
    (u64::from(operator) << 32) | context.subtask.subtask as u64
}

/// A number that no other store has: made of both clocks and the store's place, so that a simulation repeats it.
fn store_number(operator: OperatorIndex, context: &BuildContext) -> u128 {
    let (subtask, place) = (&context.subtask, place(operator, context));
    let (wall, now) = (subtask.clock.wall_millis() as u64, subtask.clock.now());
    (u128::from(hash_bits(wall)) << 64) | u128::from(hash_bits(now ^ hash_bits(place)))
}

/// What keeps the state of `operator` from opening.
pub(crate) fn refused(operator: OperatorIndex) -> impl Fn(StateError) -> OpenError {
    move |error| OpenError { operator, cause: error.into() }
}

/// One of the backends.
pub enum JobBackend {
    /// In a log.
    Log(Store),
    /// All in memory.
    Memory(MemoryBackend),
}

impl JobBackend {
    /// Adds the keyed state of an operator to a checkpoint: `seal` seals all tables of this backend. What is sealed becomes
    /// durable while the tables are used on. What fails stops the job.
    pub fn snapshot(
        &mut self,
        operator: OperatorIndex,
        barrier: Barrier,
        context: &mut StepContext,
        seal: impl FnOnce(&mut Sealed),
    ) {
        // Without a place for files the checkpoint is only there for sinks to commit by; nothing goes on from it.
        let Self::Log(store) = self else { return };
        if !store.has_files() {
            return;
        }
        let begun = Blame::on(operator, || {
            let mut sealing = store.begin_seal();
            seal(sealing.sealed());
            store.snapshot(barrier.checkpoint, sealing)
        });
        match begun {
            Ok(()) => context.add_part(operator, Part::State),
            Err(error) => context.fail(operator, error.into()),
        }
    }
}

/// A table of one of the backends. A log's is larger: of the memory's there are hundreds only in tests.
#[expect(clippy::large_enum_variant, reason = "a box would cost every look-up in a log a step more")]
pub enum JobTable<K: Key, V: Record> {
    /// In a log.
    Log(TableOf<Store, K, V>),
    /// All in memory.
    Memory(TableOf<MemoryBackend, K, V>),
}

type TableOf<B, K, V> = <B as StateBackend>::Table<K, V>;

/// Hands a call on to the one that it is.
macro_rules! hand_on {
    ($self:expr, $one:ident => $call:expr) => {
        match $self {
            Self::Log($one) => $call,
            Self::Memory($one) => $call,
        }
    };
}

impl StateBackend for JobBackend {
    type Table<K: Key, V: Record> = JobTable<K, V>;

    fn open<K: Key, V: Record>(
        &mut self,
        name: StateName,
        migrations: Vec<Migration<V>>,
    ) -> Result<StateId, StateError> {
        hand_on!(self, backend => backend.open::<K, V>(name, migrations))
    }

    fn restored(&self, state: StateId) -> Vec<Slice> {
        hand_on!(self, backend => backend.restored(state))
    }

    fn table<K: Key, V: Record>(&mut self, state: StateId, slice: Slice) -> JobTable<K, V> {
        match self {
            Self::Log(backend) => JobTable::Log(backend.table::<K, V>(state, slice)),
            Self::Memory(backend) => JobTable::Memory(backend.table::<K, V>(state, slice)),
        }
    }
}

impl<K: Key, V: Record> KeyedTable<K, V> for JobTable<K, V> {
    fn len(&self) -> usize {
        hand_on!(self, table => KeyedTable::<K, V>::len(table))
    }

    #[inline(always)]
    fn read<R>(&mut self, key: KeyView<'_>, lend: impl FnOnce(&Archived<V>) -> R) -> Option<R> {
        hand_on!(self, table => KeyedTable::<K, V>::read(table, key, lend))
    }

    #[inline(always)]
    fn get(&mut self, key: KeyView<'_>) -> Option<V> {
        hand_on!(self, table => KeyedTable::<K, V>::get(table, key))
    }

    #[inline(always)]
    fn contains(&mut self, key: KeyView<'_>) -> bool {
        hand_on!(self, table => KeyedTable::<K, V>::contains(table, key))
    }

    #[inline(always)]
    fn update<R>(
        &mut self,
        key: KeyView<'_>,
        create: impl FnOnce() -> V,
        update: impl FnOnce(&mut V) -> R,
    ) -> R {
        hand_on!(self, table => KeyedTable::<K, V>::update(table, key, create, update))
    }

    #[inline(always)]
    fn update_batch<C: KeyColumn>(
        &mut self,
        keys: &C,
        range: Range<usize>,
        create: impl FnMut(usize) -> V,
        update: impl FnMut(usize, &mut V),
    ) {
        hand_on!(self, table => KeyedTable::<K, V>::update_batch(table, keys, range, create, update));
    }

    fn put(&mut self, key: KeyView<'_>, value: &V) {
        hand_on!(self, table => KeyedTable::<K, V>::put(table, key, value));
    }

    fn remove(&mut self, key: KeyView<'_>) -> bool {
        hand_on!(self, table => KeyedTable::<K, V>::remove(table, key))
    }

    fn scan(&mut self, cursor: usize, visit: impl FnMut(KeyView<'_>, &Archived<V>) -> bool) -> Option<usize> {
        hand_on!(self, table => KeyedTable::<K, V>::scan(table, cursor, visit))
    }

    fn reserve(&mut self, keys: usize) {
        hand_on!(self, table => KeyedTable::<K, V>::reserve(table, keys));
    }

    fn relieve(&mut self) {
        hand_on!(self, table => KeyedTable::<K, V>::relieve(table));
    }

    fn expire_with(&mut self, expired: Expired<V>) {
        hand_on!(self, table => KeyedTable::<K, V>::expire_with(table, expired));
    }

    fn seal(&mut self, sealed: &mut Sealed) {
        hand_on!(self, table => KeyedTable::<K, V>::seal(table, sealed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_directories_differ_where_ids_do_and_lead_nowhere_else() {
        let ids = ["a", "A", "a/b", "a_b", "a%2Fb", "..", ".", "", "ü", "a b", "../../etc"];
        let names: std::collections::BTreeSet<String> = ids.map(file_name).into_iter().collect();
        assert_eq!(names.len(), ids.len());
        assert!(names.iter().all(|name| !name.is_empty() && !name.contains(['/', '.', '\\'])), "{names:?}");
        let long = |end: &str| file_name(&("long ".repeat(100) + end));
        assert!(long("a") != long("b") && long("a").len() < 255);
    }
}
