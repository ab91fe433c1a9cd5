//! The log of a remote store: who may write to it, what is known after a failure, and what is taken away.

use std::collections::BTreeMap;

use tidemill_storage::snapshot::disk::memory::MemoryDisk;

use super::{keeper::Step, *};
use crate::{
    control::manifest::{JobManifest, ManifestKind},
    platform::{
        SimPlatform,
        remote::{MemoryFaults, MemoryStore},
    },
};

const NEVER: &dyn Fn() -> bool = &|| false;

fn archive_of(store: &MemoryStore, job: &str) -> Archive {
    let platform = Arc::new(SimPlatform::new(0).disk(Arc::new(MemoryDisk::default())));
    Archive::new(Arc::new(store.clone()), platform, "/job".into(), job.to_owned(), 2)
}

/// Takes the store over, as a process that starts.
fn start(store: &MemoryStore) -> (Vec<CheckpointId>, Keeper) {
    let mut archive = archive_of(store, "orders");
    let claim = archive.claim(0, NEVER).unwrap();
    let found = claim.checkpoints.values().map(|kept| kept.checkpoint).collect();
    (found, archive.keeper(claim))
}

fn manifest(checkpoint: CheckpointId) -> JobManifest {
    JobManifest {
        job: "orders".to_owned(),
        checkpoint,
        kind: ManifestKind::Checkpoint,
        wall_millis: 0,
        max_parallelism: 128,
        operators: BTreeMap::new(),
    }
}

/// Brings a checkpoint there, or fails.
fn copy(keeper: &mut Keeper, checkpoint: CheckpointId) -> Result<(), CheckpointError> {
    keeper.begin(manifest(checkpoint));
    loop {
        match keeper.step(false) {
            Step::Again | Step::Wait(_) => {}
            Step::Done(outcome) => return outcome,
            Step::Idle => panic!("it has nothing to do"),
        }
    }
}

/// Takes away what is not needed.
fn sweep(keeper: &mut Keeper) {
    while !matches!(keeper.step(false), Step::Idle) {}
}

fn healthy(store: &MemoryStore) {
    store.set_faults(MemoryFaults::default());
}

fn dead(store: &MemoryStore) {
    store.set_faults(MemoryFaults { dead_from: Some(0), ..MemoryFaults::default() });
}

#[test]
fn the_next_process_finds_what_is_retained_and_the_log_does_not_grow() {
    let store = MemoryStore::default();
    for round in 0..5_u64 {
        let (found, mut keeper) = start(&store);
        let before = 10 * round;
        assert_eq!(found, if round == 0 { vec![] } else { vec![before - 2, before - 1] });
        for checkpoint in before..before + 10 {
            copy(&mut keeper, checkpoint).unwrap();
            sweep(&mut keeper);
        }
        assert_eq!(store.keys().len(), 2, "two checkpoints are retained: {:?}", store.keys());
    }
    // Claims alone do not pile up either: each start sweeps those before it.
    for _ in 0..5 {
        sweep(&mut start(&store).1);
    }
    assert_eq!(store.keys().len(), 3, "and the last claim");
}

#[test]
fn a_process_that_was_overtaken_completes_nothing() {
    let store = MemoryStore::default();
    let (_, mut first) = start(&store);
    copy(&mut first, 1).unwrap();
    let (found, mut second) = start(&store);
    assert_eq!(found, [1]);
    let error = copy(&mut first, 2).unwrap_err();
    assert!(matches!(error, CheckpointError::Overtaken { .. }), "{error}");
    assert!(error.to_string().contains("another process runs the job `orders`"), "{error}");
    copy(&mut second, 2).unwrap();
    assert_eq!(start(&store).0, [1, 2]);
}

#[test]
fn a_process_that_slept_for_long_finds_its_number_free_and_completes_nothing_all_the_same() {
    let store = MemoryStore::default();
    let (_, mut first) = start(&store);
    copy(&mut first, 1).unwrap();
    let (_, mut second) = start(&store);
    for checkpoint in 2..9 {
        copy(&mut second, checkpoint).unwrap();
        sweep(&mut second);
    }
    let before = store.keys();
    let error = copy(&mut first, 100).unwrap_err();
    assert!(matches!(error, CheckpointError::Overtaken { .. }), "{error}");
    assert_eq!(store.keys(), before, "it takes its entry back");
    // If it dies before that, nobody believes the entry.
    let forged = store.keys();
    let stale = log_key(number_of(&forged[0]).unwrap() - 6);
    let contents = Contents::Checkpoint(Kept { checkpoint: 100, files: vec![], manifest: String::new() });
    let (job, owner) = ("orders".to_owned(), String::new());
    store.put_if_absent(&stale, &Entry { job, claim: 1, attempt: 1, owner, contents }.encode()).unwrap();
    assert_eq!(start(&store).0, [7, 8]);
}

#[test]
fn what_is_not_known_is_settled_by_the_next_checkpoint() {
    for seed in 0..200 {
        let store = MemoryStore::default();
        let (_, mut keeper) = start(&store);
        copy(&mut keeper, 1).unwrap();
        store.set_faults(MemoryFaults { fail_one_in: 1, seed, ..MemoryFaults::default() });
        let error = copy(&mut keeper, 2).unwrap_err();
        assert!(matches!(error, CheckpointError::Remote { .. }), "{error}");
        // Whatever of it is still on its way comes now, or later.
        healthy(&store);
        (0..seed % 50).for_each(|_| drop(store.list(LOG)));
        copy(&mut keeper, 3).unwrap();
        (0..50).for_each(|_| drop(store.list(LOG)));
        let found = start(&store).0;
        assert_eq!(found.last(), Some(&3), "seed {seed}: {found:?}");
        copy(&mut keeper, 4).unwrap_err();
    }
}

#[test]
fn the_next_process_knows_whether_the_last_checkpoint_is_complete_and_that_does_not_change() {
    let mut complete = 0;
    for seed in 0..200 {
        let store = MemoryStore::default();
        let (_, mut keeper) = start(&store);
        copy(&mut keeper, 1).unwrap();
        store.set_faults(MemoryFaults { fail_one_in: 1, seed, ..MemoryFaults::default() });
        copy(&mut keeper, 2).unwrap_err();
        healthy(&store);
        let (found, mut next) = start(&store);
        // What comes later comes too late.
        (0..50).for_each(|_| drop(store.list(LOG)));
        copy(&mut next, 3).unwrap();
        let expected: Vec<_> = found.iter().copied().chain([3]).collect();
        assert_eq!(start(&store).0, expected, "seed {seed}");
        complete += u64::from(found.contains(&2));
    }
    assert!((1..200).contains(&complete), "both were to happen: {complete} of 200");
}

#[test]
fn a_store_that_is_gone_or_another_jobs_is_said_to_be_so() {
    let store = MemoryStore::default();
    let (_, mut keeper) = start(&store);
    dead(&store);
    let error = copy(&mut keeper, 1).unwrap_err().to_string();
    assert!(error.contains("memory:///simulated") && error.contains("Check that the store is up"), "{error}");
    let error = archive_of(&store, "orders").claim(0, NEVER).map(drop).unwrap_err().to_string();
    assert!(error.contains("cannot list the log"), "{error}");
    healthy(&store);
    let error = archive_of(&store, "other").claim(0, NEVER).map(drop).unwrap_err().to_string();
    assert!(error.contains("`orders`") && error.contains("`other`"), "{error}");
}

#[test]
fn a_checkpoint_that_is_cancelled_has_failed_and_the_next_one_has_not() {
    let store = MemoryStore::default();
    let (_, mut keeper) = start(&store);
    for steps in 0..3 {
        keeper.begin(manifest(10 + steps));
        (0..steps).for_each(|_| assert!(matches!(keeper.step(false), Step::Again)));
        let Step::Done(Err(CheckpointError::RemoteLate { .. })) = keeper.step(true) else {
            panic!("it goes on after {steps} steps");
        };
        copy(&mut keeper, 20 + steps).unwrap();
    }
    assert_eq!(start(&store).0.last(), Some(&22));
}

#[test]
fn attempts_have_numbers_that_no_machine_has_used() {
    let store = MemoryStore::default();
    let attempts =
        [0, 7, 0, 3].map(|local| archive_of(&store, "orders").claim(local, NEVER).unwrap().attempt);
    assert_eq!(attempts, [1, 8, 9, 10]);
}

#[test]
fn an_entry_that_was_changed_is_named_and_the_one_before_it_counts() {
    let store = MemoryStore::default();
    let (_, mut keeper) = start(&store);
    copy(&mut keeper, 1).unwrap();
    copy(&mut keeper, 2).unwrap();
    let last = store.keys().into_iter().rfind(|key| key.starts_with(LOG)).unwrap();
    store.change(&last, |mut bytes| {
        bytes[60] ^= 1;
        Some(bytes)
    });
    let claim = archive_of(&store, "orders").claim(0, NEVER).unwrap();
    assert_eq!(claim.checkpoints.values().map(|kept| kept.checkpoint).collect::<Vec<_>>(), [1]);
    assert!(claim.damaged[0].contains(&last) && claim.damaged[0].contains("checksum"), "{:?}", claim.damaged);
}
