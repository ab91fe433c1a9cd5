//! A system outside of the job that it commits to: outlives the crashes of the simulated process.

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tidemill_engine::{
    model::{
        checkpoint::{CheckpointId, Committable},
        sink::{CommitContext, Committer, Sink, SinkWriter},
        source::{BoxError, SubtaskContext},
        time::Timestamp,
    },
    platform::Random,
};

use super::{
    Counts, counted, difference,
    outside::{Act, Outside},
};
use crate::api::environment::StreamEnvironment;

/// What was written to it, prepared and committed. Clones are the same.
struct Ledger<T>(Arc<Mutex<Entries<T>>>);

impl<T> Clone for Ledger<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Entries<T> {
    prepared: BTreeMap<u64, Prepared<T>>,
    /// What was committed, in that order, each with the checkpoint that it was prepared for.
    committed: Vec<(CheckpointId, T)>,
    /// How much of that was there when the job last began to go on from a checkpoint.
    recovered_at: usize,
    committed_ids: BTreeSet<u64>,
    next_id: u64,
    /// The process that writes to it was killed: nothing is taken any more.
    is_cut_off: bool,
    /// What else is outside.
    outside: BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

struct Prepared<T> {
    /// Which of the sinks has prepared it.
    part: u64,
    /// The checkpoint behind whose barrier none of its records is.
    checkpoint: CheckpointId,
    records: Vec<T>,
    /// Whether it would survive a crash of the process that prepared it.
    is_secure: bool,
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Entries {
            prepared: BTreeMap::new(),
            committed: Vec::new(),
            recovered_at: 0,
            committed_ids: BTreeSet::new(),
            next_id: 0,
            is_cut_off: false,
            outside: BTreeMap::new(),
        })))
    }
}

impl<T> Ledger<T> {
    fn lock(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing is taken: the process is dead, whatever of it still runs.
    fn cut_off(&self) {
        self.lock().is_cut_off = true;
    }

    /// Another process is there. What the former one had not made sure of may be gone.
    fn recover_from_crash(&self, random: &mut Random) {
        let mut entries = self.lock();
        entries.is_cut_off = false;
        entries.prepared.retain(|_, prepared| prepared.is_secure || random.one_in(2));
    }

    /// Takes back what had been committed behind a checkpoint when the job last began to go on: as one does by hand who has lost a
    /// checkpoint, and whose job said again what was behind the one before.
    fn take_back(&self, behind: CheckpointId) {
        let entries = &mut *self.lock();
        let mut at = 0;
        entries.committed.retain(|(checkpoint, _)| {
            at += 1;
            at > entries.recovered_at || *checkpoint <= behind
        });
        entries.recovered_at = entries.recovered_at.min(entries.committed.len());
    }

    /// What was committed.
    fn committed(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.lock().committed.iter().map(|(_, record)| record.clone()).collect()
    }
}

/// The ledger, with the job that commits to it.
pub(super) struct LedgerOutside<'a, T, D> {
    ledger: Ledger<T>,
    expected: &'a Counts,
    describe: &'a D,
}

impl<'a, T, D> LedgerOutside<'a, T, D> {
    pub(super) fn new(expected: &'a Counts, describe: &'a D) -> Self {
        Self { ledger: Ledger::default(), expected, describe }
    }
}

impl<T, D> Outside for LedgerOutside<'_, T, D>
where
    T: Clone + Debug + Send + 'static,
    D: Fn(&StreamEnvironment, SimSink<T>),
{
    fn describe(&self, environment: &StreamEnvironment) {
        (self.describe)(environment, SimSink { ledger: self.ledger.clone(), part: 0, parts: Arc::default() });
    }

    fn when_killed(&self) -> Act {
        let ledger = self.ledger.clone();
        Arc::new(move || ledger.cut_off())
    }

    fn life_is_over(&self, _: bool) {
        self.ledger.cut_off();
    }

    fn recover_from_crash(&self, random: &mut Random) {
        self.ledger.recover_from_crash(random);
    }

    fn can_take_back(&self) -> bool {
        true
    }

    fn take_back(&self, behind: CheckpointId) {
        self.ledger.take_back(behind);
    }

    fn wrong(&self) -> Option<String> {
        difference(self.expected, &counted(self.ledger.committed()))
    }
}

/// The sink that a simulated job has to end in: commits its records exactly once, if the engine does what it promises.
///
/// A clone is a sink of its own, for another place in the job, that commits to the same outside. Make clones in the same order in each
/// life: each takes up what its counterpart in the life before has left.
pub struct SimSink<T> {
    ledger: Ledger<T>,
    part: u64,
    parts: Arc<AtomicU64>,
}

impl<T> Clone for SimSink<T> {
    fn clone(&self) -> Self {
        let part = self.parts.fetch_add(1, Ordering::Relaxed) + 1;
        Self { ledger: self.ledger.clone(), part, parts: Arc::clone(&self.parts) }
    }
}

impl<T> SimSink<T> {
    /// Something that is outside of the simulated process and outlives its crashes, such as a client that remembers what was
    /// acknowledged: one per seed, made by `Default` when it is first asked for.
    pub fn outside<W: Default + Send + Sync + 'static>(&self) -> Arc<W> {
        let mut entries = self.ledger.lock();
        let outside = entries.outside.entry(TypeId::of::<W>()).or_insert_with(|| Arc::new(W::default()));
        // What is kept under a type is of that type.
        Arc::clone(outside).downcast().unwrap_or_default()
    }
}

/// Writes the records of one subtask of a [`SimSink`].
pub struct SimSinkWriter<T> {
    ledger: Ledger<T>,
    part: u64,
    pending: Vec<T>,
}

impl<T: Send + 'static> Sink<T> for SimSink<T> {
    type Writer = SimSinkWriter<T>;

    fn prepare(&mut self, _parallelism: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn open(&self, _context: &SubtaskContext) -> Result<SimSinkWriter<T>, BoxError> {
        Ok(SimSinkWriter { ledger: self.ledger.clone(), part: self.part, pending: Vec::new() })
    }

    fn committer(&self, _context: &CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> {
        Ok(Some(Box::new(LedgerCommitter { ledger: self.ledger.clone(), part: self.part })))
    }
}

impl<T: Send + 'static> SinkWriter<T> for SimSinkWriter<T> {
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        self.pending.push(record);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    fn pre_commit(&mut self, checkpoint: CheckpointId) -> Result<Vec<Committable>, BoxError> {
        if self.pending.is_empty() {
            return Ok(Vec::new());
        }
        let mut entries = self.ledger.lock();
        if entries.is_cut_off {
            return Err("the process is dead".into());
        }
        let id = entries.next_id;
        entries.next_id += 1;
        let records = std::mem::take(&mut self.pending);
        entries.prepared.insert(id, Prepared { part: self.part, checkpoint, records, is_secure: false });
        Ok(vec![id.to_le_bytes().to_vec()])
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        if self.pending.is_empty() { Ok(()) } else { Err("records came behind the last barrier".into()) }
    }
}

struct LedgerCommitter<T> {
    ledger: Ledger<T>,
    part: u64,
}

fn id_of(committable: &Committable) -> Result<u64, BoxError> {
    Ok(u64::from_le_bytes(committable.as_slice().try_into()?))
}

impl<T> LedgerCommitter<T> {
    fn each(
        &self,
        committables: &[Committable],
        mut act: impl FnMut(&mut Entries<T>, u64) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        let mut entries = self.ledger.lock();
        if entries.is_cut_off {
            return Err("the process is dead".into());
        }
        committables.iter().try_for_each(|committable| act(&mut entries, id_of(committable)?))
    }
}

fn commit<T>(entries: &mut Entries<T>, id: u64) -> Result<(), BoxError> {
    match entries.prepared.remove(&id) {
        Some(prepared) => {
            let Prepared { checkpoint, records, .. } = prepared;
            entries.committed.extend(records.into_iter().map(|record| (checkpoint, record)));
            entries.committed_ids.insert(id);
            Ok(())
        }
        None if entries.committed_ids.contains(&id) => Ok(()),
        None => Err(format!("transaction {id} is lost: it was neither prepared nor committed").into()),
    }
}

impl<T: Send + 'static> Committer for LedgerCommitter<T> {
    fn secure(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        self.each(committables, |entries, id| match entries.prepared.get_mut(&id) {
            Some(prepared) => {
                prepared.is_secure = true;
                Ok(())
            }
            None => Err(format!("transaction {id} was not prepared").into()),
        })
    }

    fn commit(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        self.each(committables, commit)
    }

    fn abort(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        self.each(committables, |entries, id| {
            entries.prepared.remove(&id);
            Ok(())
        })
    }

    fn recover(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        self.each(committables, commit)?;
        let mut entries = self.ledger.lock();
        entries.prepared.retain(|_, prepared| prepared.part != self.part);
        entries.recovered_at = entries.committed.len();
        Ok(())
    }
}
