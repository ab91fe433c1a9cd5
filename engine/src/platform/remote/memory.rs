//! A remote store in memory that fails when told to; for tests and simulation.
//!
//! It is consistent as S3 is: what was put is read and listed at once. What goes wrong is on the way: a request that does not
//! arrive, an answer that does not, and a request that arrives long after its sender has given it up, even after it has died.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{RemoteError, RemoteStore};
use crate::platform::{Nanos, Random};

/// How a [`MemoryStore`] misbehaves.
#[derive(Clone, Debug, Default)]
pub struct MemoryFaults {
    /// One operation in so many fails, in one of the ways above; none when it is 0.
    pub fail_one_in: u64,
    /// This operation and all that follow fail; the first is number 0.
    pub dead_from: Option<u64>,
    /// How long an operation takes at most, in virtual time.
    pub took_ns_max: u64,
    /// What the rolls follow from.
    pub seed: u64,
}

/// A store in memory. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    faults: MemoryFaults,
    random: Random,
    operations: u64,
    took: Nanos,
    /// Puts that were reported as failed and are still on their way: when they arrive, and whether only if absent.
    late: Vec<(u64, String, Vec<u8>, bool)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            faults: MemoryFaults::default(),
            random: Random::from_seed(0),
            operations: 0,
            took: 0,
            late: Vec::new(),
        }
    }
}

/// What becomes of an operation.
enum Fate {
    Happens,
    /// It happens, and its sender does not hear so.
    HappensUnheard,
    /// It happens so many operations later.
    Late(u64),
    Lost,
}

fn failed() -> RemoteError {
    RemoteError::Failed { why: "the simulated store does not answer".to_owned() }
}

impl State {
    fn begin(&mut self) -> Fate {
        let now = self.operations;
        self.operations += 1;
        for (_, key, bytes, if_absent) in self.late.extract_if(.., |(at, ..)| *at <= now) {
            if !(if_absent && self.objects.contains_key(&key)) {
                self.objects.insert(key, bytes);
            }
        }
        self.took = match self.faults.took_ns_max {
            0 => 0,
            most => self.random.below(most),
        };
        if self.faults.dead_from.is_some_and(|from| now >= from) {
            return Fate::Lost;
        }
        if self.faults.fail_one_in == 0 || !self.random.one_in(self.faults.fail_one_in) {
            return Fate::Happens;
        }
        match self.random.below(3) {
            0 => Fate::HappensUnheard,
            1 => Fate::Late(now + 1 + self.random.below(40)),
            _ => Fate::Lost,
        }
    }

    fn put(&mut self, key: &str, bytes: &[u8], if_absent: bool) -> Result<(), RemoteError> {
        let fate = self.begin();
        if let Fate::Late(at) = fate {
            self.late.push((at, key.to_owned(), bytes.to_vec(), if_absent));
        }
        if let Fate::Happens | Fate::HappensUnheard = fate {
            if if_absent && self.objects.contains_key(key) {
                return Err(RemoteError::Taken { key: key.to_owned() });
            }
            self.objects.insert(key.to_owned(), bytes.to_vec());
        }
        if let Fate::Happens = fate { Ok(()) } else { Err(failed()) }
    }
}

impl MemoryStore {
    /// Sets how it misbehaves, and counts operations from 0 again. What is on its way stays so.
    pub fn set_faults(&self, faults: MemoryFaults) {
        let mut state = self.state();
        let passed = state.operations;
        state.late.iter_mut().for_each(|(at, ..)| *at = at.saturating_sub(passed));
        state.random = Random::from_seed(faults.seed);
        (state.faults, state.operations) = (faults, 0);
    }

    /// Operations since the faults were set.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The names of all objects; the faults do not apply.
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// All objects by name; the faults do not apply.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().objects.clone()
    }

    /// Changes an object or takes it away, whatever the faults; whether it was there.
    pub fn change(&self, key: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> bool {
        let mut state = self.state();
        let Some(bytes) = state.objects.remove(key) else { return false };
        if let Some(bytes) = change(bytes) {
            state.objects.insert(key.to_owned(), bytes);
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RemoteStore for MemoryStore {
    fn place(&self) -> String {
        "memory:///simulated".to_owned()
    }

    fn put(&self, objects: &[(String, Vec<u8>)]) -> Result<(), RemoteError> {
        let mut state = self.state();
        let outcomes: Vec<_> = objects.iter().map(|(key, bytes)| state.put(key, bytes, false)).collect();
        outcomes.into_iter().collect()
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<(), RemoteError> {
        self.state().put(key, bytes, true)
    }

    fn get(&self, keys: &[String], bytes_max: u64) -> Result<Vec<Vec<u8>>, RemoteError> {
        let mut state = self.state();
        let mut one = |key: &String| {
            let Fate::Happens = state.begin() else { return Err(failed()) };
            let found = state.objects.get(key).cloned();
            let found = found.ok_or_else(|| RemoteError::Absent { key: key.clone() })?;
            let bytes = found.len() as u64;
            if bytes > bytes_max {
                return Err(RemoteError::TooLong { key: key.clone(), bytes, bytes_max });
            }
            Ok(found)
        };
        keys.iter().map(&mut one).collect()
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, RemoteError> {
        let mut state = self.state();
        let Fate::Happens = state.begin() else { return Err(failed()) };
        Ok(state.objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect())
    }

    fn delete(&self, keys: &[String]) -> Result<(), RemoteError> {
        let mut state = self.state();
        let mut outcome = Ok(());
        for key in keys {
            let fate = state.begin();
            if let Fate::Happens | Fate::HappensUnheard = fate {
                state.objects.remove(key);
            }
            if !matches!(fate, Fate::Happens) {
                outcome = Err(failed());
            }
        }
        outcome
    }

    fn took(&self) -> Nanos {
        self.state().took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_that_failed_may_have_happened_or_happens_later_and_never_replaces_the_winner() {
        let (mut at_once, mut later) = (0, 0);
        for seed in 0..64 {
            let store = MemoryStore::default();
            store.set_faults(MemoryFaults { fail_one_in: 1, seed, ..MemoryFaults::default() });
            assert!(store.put_if_absent("log/1", b"mine").unwrap_err().may_pass());
            at_once += store.keys().len();
            store.set_faults(MemoryFaults::default());
            let won = store.put_if_absent("log/1", b"other").is_ok();
            (0..50).for_each(|_| drop(store.list("log/")));
            let found = store.get(&["log/1".to_owned()], 9).unwrap();
            assert_eq!(found, [if won { b"other".to_vec() } else { b"mine".to_vec() }]);
            let other = MemoryStore::default();
            other.set_faults(MemoryFaults { fail_one_in: 1, seed, ..MemoryFaults::default() });
            let _failed = other.put_if_absent("log/1", b"mine");
            let before = other.keys().len();
            other.set_faults(MemoryFaults::default());
            (0..50).for_each(|_| drop(other.list("log/")));
            later += other.keys().len() - before;
        }
        assert!(at_once > 8 && later > 8, "{at_once} at once, {later} later");
    }
}
