//! The store: the states of one subtask in the hybrid log, sealed together, kept in files by a writer.
//!
//! ```text
//! operator ── tables ──▶ hybrid log (memory) ── seal ──▶ writer ──▶ segment files, part manifest
//!                            ▲                                              │
//!                            └────────── restore, cold reads ◀──────────────┘
//! ```
//!
//! A snapshot is a seal of all tables, which takes microseconds, and a command to the writer, which makes it durable
//! while the tables are used:
//!
//! ```
//! use std::sync::Arc;
//! use tidemill_storage::{
//!     key::hash_bits,
//!     snapshot::disk::os::OsDisk,
//!     state::{KeyView, KeyedTable, StateBackend, StateName, WHOLE},
//!     store::{Store, StoreOptions, files::{FileOptions, SnapshotEvent, WriterKind}},
//! };
//!
//! # fn main() -> Result<(), tidemill_storage::state::StateError> {
//! # let directory = std::env::temp_dir().join(format!("tidemill-doc-{}", std::process::id()));
//! let files = FileOptions { directory: directory.clone(), store: 1, disk: Arc::new(OsDisk::default()), notify: None, writer: WriterKind::Thread };
//! let mut store = Store::new(StoreOptions { files: Some(files), ..StoreOptions::new() });
//! let state = store.open::<u64, u64>(StateName::new("counter", "counts"), Vec::new())?;
//! let mut counts = store.table::<u64, u64>(state, WHOLE);
//! let key = KeyView { hash: hash_bits(7), bytes: &[] };
//! counts.update(key, || 0, |count| *count += 1);
//!
//! let mut sealing = store.begin_seal();
//! counts.seal(sealing.sealed());
//! store.snapshot(1, sealing)?;
//! let event = store.wait_for_snapshot()?;
//! assert!(matches!(event, SnapshotEvent::Done { snapshot: 1, .. }));
//! # drop((counts, store));
//! # std::fs::remove_dir_all(directory).ok();
//! # Ok(())
//! # }
//! ```
//!
//! # Copies behind a seal
//!
//! Where most keys of a large table change between two seals, its records change where they lie, and the table is copied behind each
//! seal: what is about to change before that, the rest in [small steps](Snapshots::go_on) by whoever follows the snapshot. See
//! `docs/design/006-copies-behind-the-seal.md`.

pub mod files;
pub(crate) mod held;
mod load;

use std::{any::Any, collections::BTreeMap, ops::Range, path::PathBuf, rc::Rc, sync::Arc};

use files::{FileOptions, SnapshotEvent};
use held::Held;

use crate::{
    key::Key,
    log::{
        place::Form,
        pool::BlockPool,
        seal::{Sealed, StateDeclaration},
        shared::Shared,
        table::LogTable,
    },
    record::Record,
    snapshot::{
        clean::WASTE_BYTES_MAX,
        disk::Disk,
        export::ExportForm,
        restore::{Parts, RestoredState},
    },
    state::{Migration, Slice, StateBackend, StateError, StateId, StateName, fault},
};

/// Most of the second-level cache of a server's core: what a key waits for there is less than what fetching for every case
/// costs.
pub const NEAR_BYTES_MAX: usize = 1536 << 10;

/// Where a record is larger, writing it with each change costs what copying it costs, which is what changing it in place
/// saves; see `tidemill-bench state snapshot-10ms-count` and design 004.
pub const JOURNALED_BYTES_MAX: usize = 32;

/// A change may have to wait until 64 records were copied, which is a microsecond if they are no larger.
pub const REOPENED_BYTES_MAX: usize = 64;

/// What a store is made with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The key groups whose keys it holds.
    pub key_groups: Range<u32>,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// Where its memory comes from; the stores of one worker share it.
    pub pool: Arc<BlockPool>,
    /// Bytes of records that may be in memory, of all stores that share the pool; `usize::MAX` for no bound. The
    /// index, 7 to 18 bytes per key, is always in memory and not counted. A bound needs `files`.
    pub memory_bytes_max: usize,
    /// Bytes of index and records up to which a table is taken to lie in the core's own caches: batches of updates fetch
    /// only what nearly every key needs then, since more would cost more than it saves.
    pub near_bytes_max: usize,
    /// Bytes of a record, its key's hash included, up to which it may be changed in place after a seal, and then be written
    /// with each change; of a large table whose records have one size and plain values. Others are copied first.
    pub journaled_bytes_max: usize,
    /// Bytes of a record, its key's hash included, up to which it may be changed in place before all of its table is
    /// [copied](self#copies-behind-a-seal), where most keys change between two seals; of such a table, too.
    pub reopened_bytes_max: usize,
    /// Bytes that files may have beyond twice those that count, before what counts in some of them is written again so that
    /// they can go.
    pub waste_bytes_max: u64,
    /// Where it keeps files; `None` if it is never to be snapshotted nor to outgrow its memory.
    pub files: Option<FileOptions>,
}

impl StoreOptions {
    /// For all keys, with memory of its own, without a bound or files.
    pub fn new() -> Self {
        Self {
            key_groups: 0..128,
            max_parallelism: 128,
            pool: BlockPool::new(true),
            memory_bytes_max: usize::MAX,
            near_bytes_max: NEAR_BYTES_MAX,
            journaled_bytes_max: JOURNALED_BYTES_MAX,
            reopened_bytes_max: REOPENED_BYTES_MAX,
            waste_bytes_max: WASTE_BYTES_MAX,
            files: None,
        }
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
    key_groups: Range<u32>,
    max_parallelism: u32,
    restored: Option<Parts>,
    /// Of each part, the numbers of its segments in this store, if it takes them over; until the first snapshot.
    adopted: Vec<Option<Vec<u64>>>,
    /// Slices that were restored and not taken yet, with how their values are read.
    waiting: BTreeMap<StateId, Waiting>,
}

struct Waiting {
    stored: RestoredState,
    slices: Vec<Slice>,
    /// A [`Migration`] to the type that the state was opened with.
    migration: Option<Box<dyn Any>>,
}

/// A seal under way: all tables of the store are to be sealed into it.
pub struct Sealing {
    seal: u64,
    sealed: Sealed,
}

impl Sealing {
    /// What the tables are sealed into.
    pub fn sealed(&mut self) -> &mut Sealed {
        &mut self.sealed
    }
}

impl Store {
    /// An empty store.
    ///
    /// # Panics
    /// When there is a bound on memory and no place for files.
    pub fn new(options: StoreOptions) -> Self {
        assert!(
            options.memory_bytes_max == usize::MAX || options.files.is_some(),
            "a bound on memory needs a place for files"
        );
        let shared = Rc::new(Shared::new(&options));
        let StoreOptions { key_groups, max_parallelism, .. } = options;
        Self {
            shared,
            key_groups,
            max_parallelism,
            restored: None,
            adopted: Vec::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// A store that begins with what a snapshot holds for its key groups: the parts may have been written by any number
    /// of subtasks. Tables are loaded when they are [taken](StateBackend::table). With a place for files, those that it is
    /// restored from are taken over where they can be, see [`adopt`](crate::snapshot::adopt).
    ///
    /// # Errors
    /// When a part is damaged or missing, or was written for another number of key groups.
    pub fn restore(
        options: StoreOptions,
        disk: Arc<dyn Disk>,
        manifests: &[PathBuf],
    ) -> Result<Self, StateError> {
        let parts = Parts::open(disk, manifests, options.key_groups.clone())?;
        if !parts.states().is_empty() && parts.max_parallelism() != options.max_parallelism {
            return Err(StateError::MaxParallelism {
                stored: parts.max_parallelism(),
                wanted: options.max_parallelism,
            });
        }
        let mut store = Self::new(options);
        *store.shared.restored.borrow_mut() = parts.states().iter().map(|state| state.name.clone()).collect();
        store.take_over(&parts)?;
        store.restored = Some(parts);
        Ok(store)
    }

    /// States that were restored and not opened.
    pub fn unopened(&self) -> Vec<StateName> {
        self.snapshots().unopened()
    }

    /// Begins a seal: every table of the store is to be [sealed](LogTable::seal) into it before anything else is done
    /// with any of them. Every slice that was restored of a state that is open was [taken](StateBackend::table) before: what
    /// nobody has taken is in no table, and so in no seal.
    pub fn begin_seal(&mut self) -> Sealing {
        debug_assert!(
            self.waiting.values().all(|waiting| waiting.slices.is_empty()),
            "a restored slice was not taken and would be lost"
        );
        self.shared.finish_held();
        let (seal, sealed) = self.shared.begin_seal();
        Sealing { seal, sealed }
    }

    /// What was sealed since the last time, without making it durable. For those who write it themselves.
    pub fn finish_seal(&mut self, sealing: Sealing) -> Sealed {
        let mut sealed = sealing.sealed;
        self.shared.finish_seal(&mut sealed);
        self.shared.give_owed(usize::MAX, &mut sealed);
        sealed
    }

    /// Makes what was sealed durable, as a snapshot that is kept until it is [released](Self::release). Returns at once;
    /// [`next_snapshot_event`](Self::next_snapshot_event) goes on with it and tells when it is done. If it has to copy more
    /// of what tables were when the next seal [begins](Self::begin_seal), that waits for it.
    ///
    /// # Errors
    /// When the directory cannot be taken, or the writer is gone.
    pub fn snapshot(&mut self, snapshot: u64, sealing: Sealing) -> Result<(), StateError> {
        let Sealing { seal, mut sealed } = sealing;
        self.shared.finish_seal(&mut sealed);
        // What was not taken over by now will have to be written.
        self.adopted = Vec::new();
        let mut files = self.shared.files.borrow_mut();
        if !self.shared.is_owing() {
            return files.snapshot(snapshot, seal, sealed);
        }
        files.start()?;
        *self.shared.held.borrow_mut() = Some(Held { snapshot, seal, sealed, is_released: false });
        files.ask_for_poll();
        Ok(())
    }

    /// Makes the directory for the files and the writer's thread, for which the first snapshot would wait some hundred
    /// microseconds. Needs a place for files.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn start_writer(&mut self) -> Result<(), StateError> {
        self.shared.files.borrow_mut().start()
    }

    /// Whether there is a place for files, so that it can be snapshotted.
    pub fn has_files(&self) -> bool {
        self.shared.files.borrow().exist()
    }

    /// By what somebody else than the owner of the store follows its snapshots.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots { shared: Rc::clone(&self.shared) }
    }

    /// Forgets a snapshot; files that only it needed are removed.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn release(&mut self, snapshot: u64) -> Result<(), StateError> {
        self.snapshots().release(snapshot)
    }

    /// Brings a kept snapshot to another directory.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn export(&mut self, snapshot: u64, directory: PathBuf, form: ExportForm) -> Result<(), StateError> {
        self.shared.files.borrow_mut().export(snapshot, directory, form)
    }

    /// What became of a snapshot since it was asked last, if anything did. Before that it [goes on](Snapshots::go_on) a little.
    ///
    /// # Errors
    /// When the writer is gone or could not write what does not fit memory.
    pub fn next_snapshot_event(&mut self) -> Result<Option<SnapshotEvent>, StateError> {
        let snapshots = self.snapshots();
        snapshots.go_on()?;
        snapshots.next_event()
    }

    /// Waits for the next thing that becomes of a snapshot; there must be one under way.
    ///
    /// # Errors
    /// As [`next_snapshot_event`](Self::next_snapshot_event).
    pub fn wait_for_snapshot(&mut self) -> Result<SnapshotEvent, StateError> {
        while self.shared.go_on(usize::MAX)? {}
        let mut files = self.shared.files.borrow_mut();
        loop {
            files.poll(false)?;
            if let Some(event) = files.next_snapshot_event() {
                return Ok(event);
            }
            files.wait()?;
        }
    }

    /// Checks the stored types of a state against those it is opened with.
    fn adopt<V: Record>(
        &mut self,
        id: StateId,
        wanted: &StateDeclaration,
        migrations: Vec<Migration<V>>,
    ) -> Result<(), StateError> {
        let Some(parts) = &self.restored else { return Ok(()) };
        let Some(stored) = parts.state(&wanted.name).cloned() else { return Ok(()) };
        let differ = |what, stored: &str, wanted_type: &str| StateError::Schema {
            operator: wanted.name.operator.clone(),
            state: wanted.name.state.clone(),
            what,
            stored: stored.to_owned(),
            wanted: wanted_type.to_owned(),
        };
        if stored.keys != wanted.keys {
            return Err(differ("keys", &stored.keys, &wanted.keys));
        }
        let mut migration = None;
        if stored.values != wanted.values {
            let fitting = migrations.into_iter().find(|migration| migration.from == stored.values);
            migration = Some(fitting.ok_or_else(|| differ("values", &stored.values, &wanted.values))?);
        } else if stored.layout != wanted.layout {
            let (was, is) = (format!("{:?}", stored.layout), format!("{:?}", wanted.layout));
            return Err(differ("layout", &was, &is));
        }
        let slices = parts.slices(&wanted.name);
        let migration = migration.map(|migration| Box::new(migration) as Box<dyn Any>);
        self.waiting.insert(id, Waiting { stored, slices, migration });
        Ok(())
    }
}

/// Follows the snapshots of a store, on the store's thread.
pub struct Snapshots {
    shared: Rc<Shared>,
}

impl Snapshots {
    /// Copies some of what a table was at the last seal and files have still to get, for some fifty microseconds at most; whether
    /// there was something to copy. A snapshot goes to the writer when all of it was, so somebody has to go on with it: a table
    /// whose blocks are [copied as a whole](crate::store#copies-behind-a-seal) is not copied otherwise but where it changes.
    ///
    /// # Errors
    /// When the writer is gone.
    pub fn go_on(&self) -> Result<bool, StateError> {
        let step_bytes = self.shared.files.borrow().step_bytes();
        self.shared.go_on(step_bytes)
    }

    /// What became of a snapshot since it was asked last, if anything did.
    ///
    /// # Errors
    /// When the writer is gone or could not write what does not fit memory.
    pub fn next_event(&self) -> Result<Option<SnapshotEvent>, StateError> {
        let mut files = self.shared.files.borrow_mut();
        files.poll(false)?;
        Ok(files.next_snapshot_event())
    }

    /// As [`Store::unopened`].
    pub fn unopened(&self) -> Vec<StateName> {
        let (restored, states) = (self.shared.restored.borrow(), self.shared.states.borrow());
        let is_open = |name: &&StateName| states.iter().any(|state| state.name == **name);
        restored.iter().filter(|name| !is_open(name)).cloned().collect()
    }

    /// As [`Store::release`].
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    pub fn release(&self, snapshot: u64) -> Result<(), StateError> {
        self.shared.release(snapshot)
    }
}

impl StateBackend for Store {
    type Table<K: Key, V: Record> = LogTable<K, V>;

    fn open<K: Key, V: Record>(
        &mut self,
        name: StateName,
        migrations: Vec<Migration<V>>,
    ) -> Result<StateId, StateError> {
        let count = self.shared.states.borrow().len();
        if self.shared.states.borrow().iter().any(|state| state.name == name) {
            return Err(StateError::OpenTwice { operator: name.operator, state: name.state });
        }
        let id = StateId(count as u32);
        let (keys, values) = (K::stored_name().into_owned(), V::schema().into_owned());
        let wanted = StateDeclaration { id, name, keys, values, layout: Form::<K, V>::LAYOUT };
        self.adopt::<V>(id, &wanted, migrations)?;
        self.shared.states.borrow_mut().push(wanted);
        Ok(id)
    }

    fn restored(&self, state: StateId) -> Vec<Slice> {
        self.waiting.get(&state).map(|waiting| waiting.slices.clone()).unwrap_or_default()
    }

    fn table<K: Key, V: Record>(&mut self, state: StateId, slice: Slice) -> LogTable<K, V> {
        let mut table = LogTable::new(state, slice, &self.shared);
        let Some(mut waiting) = self.waiting.remove(&state) else { return table };
        if let Some(at) = waiting.slices.iter().position(|own| *own == slice) {
            waiting.slices.remove(at);
            if let Err(error) = self.load(&mut table, &waiting, slice) {
                fault(error);
            }
        }
        if !waiting.slices.is_empty() {
            self.waiting.insert(state, waiting);
        }
        table
    }
}
