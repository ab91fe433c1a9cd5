//! The job's checkpoints, and savepoints, in a store on other machines: how they get there and back, and who may put them there.
//!
//! The remote store decides what is complete; the job's directory is where its state lives and what a restart on the same machine
//! reads. What is in the store, and in which order it gets there: `docs/internals/checkpoints.md`.
//!
//! * `Archive`: takes the store for an attempt, and brings back the newest checkpoint.
//! * `Keeper`: brings checkpoints there and takes old ones away, one request after the other.
//! * `Saver`: writes a savepoint in the same way; `Saved` is what its manifest says.
//! * `Copier`: drives either on a thread of its own; under simulation on the coordinator's.
//! * [`list`] and [`verify`]: what a store holds, for anyone who asks.

mod carrier;
mod copier;
mod entry;
mod fetch;
mod former;
mod keeper;
mod list;
mod pieces;
mod retry;
mod savepoint;
mod verify;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use list::{Listed, list};
use tidemill_storage::snapshot::disk::Disk;
pub use verify::{Verified, verify};

pub(super) use self::{
    carrier::{Carrier, Step},
    copier::{Copied, Copier},
    keeper::Keeper,
    savepoint::{Saved, Saver, is_id, look},
};
use self::{
    entry::{BLOCKS, Contents, ENTRY_BYTES_MAX, Earlier, Entry, Kept, LOG, attempt_of, log_key, number_of},
    former::Former,
    keeper::{Held, InLog, Ownership},
    retry::{failed, patiently},
};
use super::manifest::Unreadable;
use crate::{
    model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError},
    platform::{
        Platform,
        remote::{RemoteError, RemoteStore},
    },
};

/// How often a claim is tried while others put entries into the log.
const CLAIMS_MAX: usize = 16;
/// Entries that are read at once.
const READ_MAX: usize = 16;

/// The remote store of a job.
pub(super) struct Archive {
    store: Arc<dyn RemoteStore>,
    platform: Arc<dyn Platform>,
    disk: Arc<dyn Disk>,
    root: PathBuf,
    job: String,
    retained_max: usize,
    /// The last claim.
    claim: Option<u64>,
    /// Checkpoints whose files in the job's directory are not believed any more.
    distrusted: BTreeSet<CheckpointId>,
}

/// The log as it was when an attempt took it.
pub(super) struct Claim {
    at: u64,
    /// Number of the attempt: greater than any before, on whichever machine.
    pub(super) attempt: u64,
    owner: String,
    /// Complete checkpoints, by the number of their entry.
    checkpoints: BTreeMap<u64, Counted>,
    /// What is wrong with entries that cannot be read.
    damaged: Vec<String>,
    dead_entries: BTreeSet<String>,
}

/// A checkpoint that counts.
struct Counted {
    /// The claim under which it was put.
    claim: u64,
    kept: Kept,
}

/// The entries of a log, and what is wrong with those that cannot be read.
struct Log {
    keys: Vec<String>,
    entries: BTreeMap<u64, Entry>,
    damaged: Vec<Damaged>,
}

/// An entry that cannot be read.
struct Damaged {
    /// Where it is, for people.
    file: PathBuf,
    /// What is wrong with it.
    what: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.file.display(), self.what)
    }
}

impl Log {
    fn read(
        store: &dyn RemoteStore,
        platform: &dyn Platform,
        enough: &dyn Fn() -> bool,
    ) -> Result<Self, CheckpointError> {
        let keys = patiently(platform, enough, || store.list(LOG)).map_err(failed(store, "list the log"))?;
        let numbered: Vec<(u64, &String)> =
            keys.iter().filter_map(|key| Some((number_of(key)?, key))).collect();
        let (mut entries, mut damaged) = (BTreeMap::new(), Vec::new());
        for some in numbered.chunks(READ_MAX) {
            let names: Vec<String> = some.iter().map(|(_, key)| (*key).clone()).collect();
            let read = match patiently(platform, enough, || store.get(&names, ENTRY_BYTES_MAX)) {
                Ok(read) => read.into_iter().map(Ok).collect(),
                // Something is wrong with one of them: which?
                Err(RemoteError::Absent { .. } | RemoteError::TooLong { .. }) => {
                    let one = |name: &String| {
                        let name = std::slice::from_ref(name);
                        patiently(platform, enough, || store.get(name, ENTRY_BYTES_MAX))
                            .map(|mut read| read.pop().unwrap_or_default())
                    };
                    names.iter().map(one).collect::<Vec<_>>()
                }
                Err(error) => return Err(failed(store, "read the log")(error)),
            };
            for ((at, key), bytes) in some.iter().zip(read) {
                let file = Path::new(&store.place()).join(key);
                match bytes {
                    Ok(bytes) => match Entry::decode(&bytes) {
                        Ok(entry) => drop(entries.insert(*at, entry)),
                        Err(Unreadable::Newer(found)) => {
                            return Err(CheckpointError::NewerVersion { file, found, known: 1 });
                        }
                        Err(Unreadable::Damaged(what)) => {
                            damaged.push(Damaged { file, what });
                        }
                    },
                    // Its owner has just removed it.
                    Err(RemoteError::Absent { .. }) => {}
                    Err(error @ RemoteError::TooLong { .. }) => {
                        damaged.push(Damaged { file, what: error.to_string() });
                    }
                    Err(error) => return Err(failed(store, "read the log")(error)),
                }
            }
        }
        Ok(Self { keys, entries, damaged })
    }

    fn last(&self) -> u64 {
        self.keys.iter().rev().find_map(|key| number_of(key)).unwrap_or(0)
    }

    /// Checkpoints that count, by the number of their entry: those that the last entry knows, and itself. An entry may have come after all, when
    /// the claim that had taken its number was removed again: then others are behind it that do not know it.
    fn checkpoints(self) -> BTreeMap<u64, Counted> {
        let Some((last, newest)) = self.entries.last_key_value() else { return BTreeMap::new() };
        let mut claims: BTreeMap<u64, u64> =
            newest.earlier.iter().map(|earlier| (earlier.entry, earlier.claim)).collect();
        claims.insert(*last, newest.claim);
        let counted = self.entries.into_iter().filter_map(|(at, entry)| match entry.contents {
            Contents::Checkpoint(kept) if claims.get(&at) == Some(&entry.claim) => {
                Some((at, Counted { claim: entry.claim, kept }))
            }
            _ => None,
        });
        counted.collect()
    }
}

impl Archive {
    /// The archive of `job`, whose directory is `root`. Does not speak with the store yet.
    pub(super) fn new(
        store: Arc<dyn RemoteStore>,
        platform: Arc<dyn Platform>,
        root: PathBuf,
        job: String,
        retained_max: usize,
    ) -> Self {
        let disk = platform.disk();
        let distrusted = BTreeSet::new();
        Self { store, platform, disk, root, job, retained_max, claim: None, distrusted }
    }

    /// Takes the store for an attempt: whoever had it before completes no checkpoint any more. `attempts` is the greatest number
    /// of an attempt on this machine.
    ///
    /// # Errors
    /// When the store cannot be reached, is another job's or a newer version's, or others take it at the same time, again and again.
    pub(super) fn claim(
        &mut self,
        attempts: u64,
        enough: &dyn Fn() -> bool,
    ) -> Result<Claim, CheckpointError> {
        let (store, platform) = (&*self.store, &*self.platform);
        for _ in 0..CLAIMS_MAX {
            let log = Log::read(store, platform, enough)?;
            if let Some(other) = log.entries.values().find(|entry| entry.job != self.job) {
                let (directory, found) = (store.place().into(), other.job.clone());
                return Err(CheckpointError::OtherJob { directory, found, job: self.job.clone() });
            }
            let known = log.entries.values().map(|entry| entry.attempt).max().unwrap_or(0);
            // An entry that cannot be read may have been the one with the greatest number.
            let blocks = if log.damaged.is_empty() {
                Vec::new()
            } else {
                patiently(platform, enough, || store.list(BLOCKS)).map_err(failed(store, "list blocks"))?
            };
            let written = blocks.iter().filter_map(|key| attempt_of(key)).max().unwrap_or(0);
            let attempt = known.max(written).max(attempts) + 1;
            let (at, owner) = (log.last() + 1, format!("{:016x}", platform.unique()));
            let damaged: Vec<_> = log.damaged.iter().map(Damaged::to_string).collect();
            let checkpoints = log.checkpoints();
            let entry = Entry {
                job: self.job.clone(),
                claim: at,
                attempt,
                owner: owner.clone(),
                earlier: checkpoints
                    .iter()
                    .map(|(at, counted)| Earlier { entry: *at, claim: counted.claim })
                    .collect(),
                contents: Contents::Claim,
            };
            let bytes = entry.encode();
            let key = log_key(at);
            match patiently(platform, enough, || store.put_if_absent(&key, &bytes)) {
                Ok(()) => {}
                Err(RemoteError::Taken { .. }) => {
                    let names = [key];
                    let found = patiently(platform, enough, || store.get(&names, ENTRY_BYTES_MAX));
                    // If it is what was to be put, an earlier try came through.
                    match found {
                        Ok(found) if found.first() == Some(&bytes) => {}
                        Ok(_) | Err(RemoteError::Absent { .. } | RemoteError::TooLong { .. }) => continue,
                        Err(error) => return Err(failed(store, "read the log")(error)),
                    }
                }
                Err(error) => return Err(failed(store, "claim the log")(error)),
            }
            // The number may have been free again because the log has gone on for long since it was read.
            let keys =
                patiently(platform, enough, || store.list(LOG)).map_err(failed(store, "list the log"))?;
            if keys.iter().rev().find_map(|key| number_of(key)) != Some(at) {
                continue;
            }
            let counts_not = |key: &&String| number_of(key).is_some_and(|at| !checkpoints.contains_key(&at));
            // Those that cannot be read stay until there is a checkpoint again.
            let dead_entries = if damaged.is_empty() {
                let earlier = keys.iter().filter(|key| number_of(key) != Some(at));
                earlier.filter(counts_not).cloned().collect()
            } else {
                BTreeSet::new()
            };
            self.claim = Some(at);
            return Ok(Claim { at, attempt, owner, checkpoints, damaged, dead_entries });
        }
        Err(CheckpointError::Overtaken { place: self.store.place(), job: self.job.clone() })
    }

    /// What keeps the checkpoints of the attempt that has claimed the store.
    pub(super) fn keeper(&self, claim: Claim) -> Keeper {
        let Claim { at, attempt, owner, checkpoints, dead_entries, .. } = claim;
        let newest = checkpoints.last_key_value();
        let former = Former::new(newest.map(|(_, counted)| counted.kept.files.clone()).unwrap_or_default());
        let kept = checkpoints
            .into_iter()
            .map(|(at, counted)| (at, InLog { claim: counted.claim, blocks: counted.kept.keys() }))
            .collect();
        let own = Ownership { job: self.job.clone(), claim: at, attempt, owner };
        let (store, disk) = (Arc::clone(&self.store), Arc::clone(&self.disk));
        Keeper::new(
            store,
            disk,
            self.root.clone(),
            own,
            self.retained_max,
            Held { kept, former, dead_entries },
        )
    }

    /// Takes note that a file of a checkpoint on this machine is damaged; whether that is news, and so whether it is worth a try
    /// to bring it back.
    pub(super) fn distrust(&mut self, checkpoint: CheckpointId) -> bool {
        self.distrusted.insert(checkpoint)
    }

    /// Removes all checkpoints, if nobody has taken the store over. What cannot be removed is only garbage.
    pub(super) fn clear(&self) {
        let Ok(found) = self.store.list(LOG) else { return };
        let Some(own) = self.claim else { return };
        // The claim stays, so that whoever had the store before cannot go on.
        let entries: Vec<String> = found.into_iter().filter(|key| number_of(key) != Some(own)).collect();
        let is_ours = self.claimed_since(own, &entries);
        if !is_ours || self.store.delete(&entries).is_err() {
            return;
        }
        let Ok(blocks) = self.store.list(BLOCKS) else { return };
        let _left = self.store.delete(&blocks);
    }

    /// Whether all entries behind a claim were put under it.
    fn claimed_since(&self, own: u64, entries: &[String]) -> bool {
        let later = entries.iter().filter(|key| number_of(key).is_some_and(|at| at > own));
        let names: Vec<String> = later.cloned().collect();
        let read = self.store.get(&names, ENTRY_BYTES_MAX);
        read.is_ok_and(|read| {
            read.iter().all(|bytes| Entry::decode(bytes).is_ok_and(|entry| entry.claim == own))
        })
    }
}
