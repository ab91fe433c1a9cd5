//! The log of a remote store: who may write to it, what is known after a failure, and what is taken away.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

use tidemill_storage::snapshot::{
    disk::memory::MemoryDisk,
    format::{
        manifest::{Manifest, NeededSegment},
        manifest_path, segment_path,
    },
};

use super::{
    carrier::{Carrier, Step},
    entry::BLOCK_BYTES_MAX,
    *,
};
use crate::{
    control::manifest::{JobManifest, ManifestKind},
    model::checkpoint::{OperatorState, SubtaskState},
    platform::{
        SimPlatform, Wake,
        remote::{MemoryFaults, MemoryStore, Request, Verdict, WatchedStore},
    },
};

pub(super) const NEVER: &dyn Fn() -> bool = &|| false;

/// The platform of one more process: no two draw the same numbers.
pub(super) fn a_process() -> SimPlatform {
    static PROCESSES: AtomicU64 = AtomicU64::new(0);
    SimPlatform::new(PROCESSES.fetch_add(1, Ordering::Relaxed))
}

fn archive_of(store: &MemoryStore, job: &str) -> Archive {
    let platform = Arc::new(a_process().disk(Arc::new(MemoryDisk::default())));
    Archive::new(Arc::new(store.clone()), platform, "/job".into(), job.to_owned(), 2)
}

/// Takes the store over, as a process that starts.
fn start(store: &MemoryStore) -> (Vec<CheckpointId>, Keeper) {
    let mut archive = archive_of(store, "orders");
    let claim = archive.claim(0, NEVER).unwrap();
    let found = claim.checkpoints.values().map(|counted| counted.kept.checkpoint).collect();
    (found, archive.keeper(claim))
}

fn manifest(checkpoint: CheckpointId) -> JobManifest {
    JobManifest {
        job: "orders".to_owned(),
        checkpoint,
        kind: ManifestKind::Checkpoint,
        wall_millis: 0,
        max_parallelism: 128,
        beginning: None,
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

pub(super) fn healthy(store: &MemoryStore) {
    store.set_faults(MemoryFaults::default());
}

pub(super) fn dead(store: &MemoryStore) {
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
    store.put_if_absent(&stale, &late_entry().encode()).unwrap();
    assert_eq!(start(&store).0, [7, 8]);
}

/// The entry of checkpoint 100, put under the first claim.
fn late_entry() -> Entry {
    let contents = Contents::Checkpoint(Kept { checkpoint: 100, files: vec![], manifest: String::new() });
    let (job, owner) = ("orders".to_owned(), String::new());
    Entry { job, claim: 1, attempt: 1, owner, earlier: Vec::new(), contents }
}

#[test]
fn an_entry_that_comes_when_the_claim_that_had_its_number_is_gone_counts_for_nobody() {
    let store = MemoryStore::default();
    let (_, mut first) = start(&store);
    copy(&mut first, 1).unwrap();
    let (_, second) = start(&store);
    let number = store.keys().iter().filter_map(|key| number_of(key)).max().unwrap();
    drop(second);
    let (_, mut third) = start(&store);
    sweep(&mut third);
    store.put_if_absent(&log_key(number), &late_entry().encode()).unwrap();
    assert_eq!(start(&store).0, [1]);
    copy(&mut third, 2).unwrap_err();
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
    assert_eq!(claim.checkpoints.values().map(|counted| counted.kept.checkpoint).collect::<Vec<_>>(), [1]);
    assert!(claim.damaged[0].contains(&last) && claim.damaged[0].contains("checksum"), "{:?}", claim.damaged);
    let listed = list(&store, &SimPlatform::new(0)).unwrap().checkpoints;
    let Err(CheckpointError::Manifest { file, .. }) = &listed[0] else { panic!("{listed:?}") };
    assert!(file.ends_with(&last), "{}", file.display());
}

/// A checkpoint with one store, which has these segments of this length.
pub(super) fn with_segments(
    disk: &MemoryDisk,
    checkpoint: CheckpointId,
    segments: &[u64],
    length: usize,
) -> JobManifest {
    let directory = Path::new("/job/state/1/counts/0");
    for number in segments {
        disk.put(&segment_path(directory, *number), &vec![*number as u8; length]);
    }
    part_of(disk, directory, checkpoint, segments, length)
}

/// A checkpoint with one store in `directory`, whose segments are there.
fn part_of(
    disk: &MemoryDisk,
    directory: &Path,
    checkpoint: CheckpointId,
    segments: &[u64],
    length: usize,
) -> JobManifest {
    let needed = |number: &u64| NeededSegment {
        number: *number,
        length: length as u64,
        checksum: 0,
        entries: 1,
        live: Vec::new(),
        adopted: None,
    };
    let part = Manifest {
        store: 1,
        snapshot: checkpoint,
        seal: checkpoint,
        key_groups: 0..128,
        max_parallelism: 128,
        states: Vec::new(),
        tables: Vec::new(),
        segments: segments.iter().map(needed).collect(),
    };
    let path = manifest_path(directory, checkpoint);
    disk.put(&path, &part.encode());
    let subtask = SubtaskState { manifest: Some(path), ..SubtaskState::default() };
    let state = OperatorState { name: "counts".to_owned(), subtasks: vec![subtask] };
    JobManifest { operators: [("counts".to_owned(), state)].into(), ..manifest(checkpoint) }
}

/// A process whose job's directory is on `disk`.
fn start_on(store: &MemoryStore, disk: &MemoryDisk) -> (Archive, Claim) {
    let platform = Arc::new(a_process().disk(Arc::new(disk.clone())));
    let mut archive = Archive::new(Arc::new(store.clone()), platform, "/job".into(), "orders".to_owned(), 2);
    let claim = archive.claim(0, NEVER).unwrap();
    (archive, claim)
}

fn copy_files(keeper: &mut Keeper, manifest: JobManifest) -> Result<(), CheckpointError> {
    keeper.begin(manifest);
    loop {
        if let Step::Done(outcome) = keeper.step(false) {
            return outcome;
        }
    }
}

fn blocks_in(store: &MemoryStore) -> usize {
    store.keys().iter().filter(|key| key.starts_with(BLOCKS)).count()
}

#[test]
fn what_is_there_is_not_sent_again_and_goes_when_nothing_needs_it() {
    let (store, disk) = (MemoryStore::default(), MemoryDisk::default());
    let (archive, claim) = start_on(&store, &disk);
    let mut keeper = archive.keeper(claim);
    copy_files(&mut keeper, with_segments(&disk, 1, &[0, 1], 100)).unwrap();
    assert_eq!(blocks_in(&store), 3, "two segments and a part manifest");
    store.set_faults(MemoryFaults::default());
    copy_files(&mut keeper, with_segments(&disk, 2, &[0, 1, 2], 100)).unwrap();
    // One segment, one part manifest, the entry, and a list.
    assert_eq!((store.operations(), blocks_in(&store)), (4, 5));
    // The first two were merged into another one; two checkpoints are retained.
    copy_files(&mut keeper, with_segments(&disk, 3, &[2, 3], 100)).unwrap();
    sweep(&mut keeper);
    assert_eq!(blocks_in(&store), 6, "segments 0 to 3 and two part manifests");
    copy_files(&mut keeper, with_segments(&disk, 4, &[2, 3], 100)).unwrap();
    sweep(&mut keeper);
    assert_eq!(blocks_in(&store), 4, "segments 2 and 3 and two part manifests");
}

/// What a process that has taken over the state of another one writes first: the same segments under other names.
fn taken_over(disk: &MemoryDisk, segments: &[(u64, u64)], length: usize) -> JobManifest {
    for (old, new) in segments {
        let old = segment_path(Path::new("/job/state/1/counts/0"), *old);
        disk.link(&old, &segment_path(Path::new(SECOND), *new)).unwrap();
    }
    let own: Vec<u64> = segments.iter().map(|(_, new)| *new).collect();
    part_of(disk, Path::new(SECOND), 2, &own, length)
}

/// The directory of the store in the second attempt.
const SECOND: &str = "/job/state/2/counts/0";

#[test]
fn files_that_were_taken_over_are_not_sent_again() {
    let (store, disk) = (MemoryStore::default(), MemoryDisk::default());
    let (archive, claim) = start_on(&store, &disk);
    let length = 2 * BLOCK_BYTES_MAX as usize + 5;
    copy_files(&mut archive.keeper(claim), with_segments(&disk, 1, &[0, 1], length)).unwrap();
    assert_eq!(blocks_in(&store), 7);

    let (archive, claim) = start_on(&store, &disk);
    let mut keeper = archive.keeper(claim);
    store.set_faults(MemoryFaults::default());
    copy_files(&mut keeper, taken_over(&disk, &[(0, 5), (1, 6)], length)).unwrap();
    // The blocks are listed, a part manifest and the entry are put, the log is listed.
    assert_eq!((store.operations(), blocks_in(&store)), (4, 8));
    // Nothing of it goes while a later checkpoint needs it, though it was put by another attempt.
    for checkpoint in 3..6 {
        let manifest = part_of(&disk, Path::new(SECOND), checkpoint, &[5, 6], length);
        copy_files(&mut keeper, manifest).unwrap();
        sweep(&mut keeper);
        assert_eq!(verify(&store, &SimPlatform::new(0)).unwrap().broken, []);
    }
    assert_eq!(blocks_in(&store), 8, "two segments, and the part manifests of two checkpoints");

    let elsewhere = MemoryDisk::default();
    let (archive, claim) = start_on(&store, &elsewhere);
    for file in &claim.checkpoints.values().next_back().unwrap().kept.files {
        archive.fetcher().fetch(file, NEVER).unwrap();
        let path = Path::new("/job").join(&file.path);
        assert_eq!(elsewhere.contents(&path), disk.contents(&path), "{}", file.path);
    }
}

#[test]
fn files_that_only_look_as_if_they_were_there_are_sent() {
    let length = 100;
    let other = Path::new(SECOND);
    for what_is_wrong in ["no link", "changed bytes", "a block that is gone", "nothing"] {
        let (store, disk) = (MemoryStore::default(), MemoryDisk::default());
        let (archive, claim) = start_on(&store, &disk);
        copy_files(&mut archive.keeper(claim), with_segments(&disk, 1, &[0], length)).unwrap();
        let old = segment_path(Path::new("/job/state/1/counts/0"), 0);
        let mut expected = 2;
        match what_is_wrong {
            "no link" => disk.put(&segment_path(other, 5), &disk.contents(&old).unwrap()),
            "changed bytes" => disk.put(&old, &vec![7; length]),
            "a block that is gone" => {
                let blocks = store.keys().into_iter().filter(|key| key.starts_with(BLOCKS));
                store.delete(&blocks.collect::<Vec<_>>()).unwrap();
            }
            _ => expected = 1,
        }
        let (archive, claim) = start_on(&store, &disk);
        let mut keeper = archive.keeper(claim);
        let before = blocks_in(&store);
        let manifest = if what_is_wrong == "no link" {
            part_of(&disk, other, 2, &[5], length)
        } else {
            taken_over(&disk, &[(0, 5)], length)
        };
        copy_files(&mut keeper, manifest).unwrap();
        assert_eq!(blocks_in(&store) - before, expected, "{what_is_wrong}");
        assert!(verify(&store, &SimPlatform::new(0)).unwrap().whole.contains(&2), "{what_is_wrong}");
    }
}

#[test]
fn long_files_are_cut_into_blocks_and_come_back_as_they_were() {
    let (store, disk) = (MemoryStore::default(), MemoryDisk::default());
    let (archive, claim) = start_on(&store, &disk);
    let mut keeper = archive.keeper(claim);
    let length = 2 * BLOCK_BYTES_MAX as usize + 5;
    // It fails on the way, and goes on from there with the next checkpoint.
    store.set_faults(MemoryFaults { dead_from: Some(2), ..MemoryFaults::default() });
    copy_files(&mut keeper, with_segments(&disk, 1, &[7], length)).unwrap_err();
    assert_eq!(blocks_in(&store), 2);
    healthy(&store);
    copy_files(&mut keeper, with_segments(&disk, 2, &[7], length)).unwrap();
    sweep(&mut keeper);
    assert_eq!(blocks_in(&store), 4, "three of the segment and one part manifest");

    let elsewhere = MemoryDisk::default();
    let (archive, claim) = start_on(&store, &elsewhere);
    let kept = &claim.checkpoints.values().next().unwrap().kept;
    for file in &kept.files {
        archive.fetcher().fetch(file, NEVER).unwrap();
        let path = Path::new("/job").join(&file.path);
        assert_eq!(elsewhere.contents(&path), disk.contents(&path), "{}", file.path);
    }
    // A block that was changed is no part of any file.
    let file = &kept.files[0];
    store.change(&file.blocks[0].key(), |mut bytes| {
        bytes[3] ^= 1;
        Some(bytes)
    });
    let trouble = format!("{:?}", archive.fetcher().fetch(file, NEVER).unwrap_err());
    assert!(trouble.contains("checksum") && trouble.contains(&file.blocks[0].key()), "{trouble}");
}

#[test]
fn what_a_crash_has_left_goes_and_what_is_retained_stays() {
    let (store, disk) = (MemoryStore::default(), MemoryDisk::default());
    let (archive, claim) = start_on(&store, &disk);
    let mut keeper = archive.keeper(claim);
    copy_files(&mut keeper, with_segments(&disk, 1, &[0], 100)).unwrap();
    // It dies before the entry is put.
    store.set_faults(MemoryFaults { dead_from: Some(2), ..MemoryFaults::default() });
    copy_files(&mut keeper, with_segments(&disk, 2, &[0, 1], 100)).unwrap_err();
    assert_eq!(blocks_in(&store), 4);
    healthy(&store);
    let (archive, claim) = start_on(&store, &disk);
    let mut next = archive.keeper(claim);
    sweep(&mut next);
    assert_eq!(blocks_in(&store), 4, "not before there is a newer checkpoint");
    copy_files(&mut next, with_segments(&disk, 3, &[5], 100)).unwrap();
    sweep(&mut next);
    assert_eq!(blocks_in(&store), 4, "of the first and the third checkpoint");
    let verified = verify(&store, &SimPlatform::new(0)).unwrap();
    assert_eq!((verified.whole, verified.broken.len(), verified.unneeded), (vec![3, 1], 0, 0));
}

type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A store with which something is done before its next conditional put: as with a process that stands still for a while.
fn slow(store: MemoryStore, meanwhile: &Meanwhile) -> Arc<WatchedStore> {
    let meanwhile = Arc::clone(meanwhile);
    Arc::new(WatchedStore::new(store, move |request| {
        let next = if request == Request::PutIfAbsent { meanwhile.lock().unwrap().take() } else { None };
        next.into_iter().for_each(|next| next());
        Verdict::Done
    }))
}

#[test]
fn a_claim_that_was_overtaken_while_it_was_made_sees_what_came_in_between() {
    for checkpoints in [1, 8] {
        let store = MemoryStore::default();
        let (_, mut first) = start(&store);
        copy(&mut first, 1).unwrap();
        let meanwhile = {
            let store = store.clone();
            move || {
                let (_, mut other) = start(&store);
                for checkpoint in 2..2 + checkpoints {
                    copy(&mut other, checkpoint).unwrap();
                    // With eight of them, the number that the slow one wants is free again.
                    sweep(&mut other);
                }
            }
        };
        let slow = slow(store.clone(), &Arc::new(Mutex::new(Some(Box::new(meanwhile)))));
        let platform = Arc::new(a_process().disk(Arc::new(MemoryDisk::default())));
        let mut archive = Archive::new(slow, platform, "/job".into(), "orders".to_owned(), 2);
        let claim = archive.claim(0, NEVER).unwrap();
        let found: Vec<_> = claim.checkpoints.values().map(|counted| counted.kept.checkpoint).collect();
        assert_eq!(found, [checkpoints, checkpoints + 1]);
        copy(&mut archive.keeper(claim), 20).unwrap();
    }
}

#[test]
fn a_claim_that_comes_long_after_its_place_was_used_makes_nobody_elses_checkpoints_disappear() {
    let store = MemoryStore::default();
    let (_, mut first) = start(&store);
    copy(&mut first, 1).unwrap();
    let meanwhile = move || {
        for checkpoint in 2..10 {
            copy(&mut first, checkpoint).unwrap();
            sweep(&mut first);
        }
    };
    let slow = slow(store.clone(), &Arc::new(Mutex::new(Some(Box::new(meanwhile)))));
    let platform = Arc::new(a_process().disk(Arc::new(MemoryDisk::default())));
    let mut archive = Archive::new(slow, platform, "/job".into(), "orders".to_owned(), 2);
    let claim = archive.claim(0, NEVER).unwrap();
    assert_eq!(claim.checkpoints.values().map(|counted| counted.kept.checkpoint).collect::<Vec<_>>(), [8, 9]);
    // Nor if it dies between the claim that came too late and the next one.
    let mut keeper = archive.keeper(claim);
    copy(&mut keeper, 20).unwrap();
    assert_eq!(start(&store).0, [8, 9, 20]);
}

struct Ring(Sender<()>);

impl Wake for Ring {
    fn wake(&self) {
        // The test may have what it wants.
        let _ = self.0.send(());
    }
}

/// What becomes of the checkpoint that a copier on its own thread has under way.
fn outcome(copier: &mut Copier<Keeper>, rings: &Receiver<()>) -> Copied {
    loop {
        if let Some(outcome) = copier.outcome() {
            return outcome;
        }
        rings.recv().unwrap();
    }
}

#[test]
fn a_copier_on_its_own_thread_copies_gives_up_and_takes_away() {
    let store = MemoryStore::default();
    let (_, keeper) = start(&store);
    let (ring, rings) = channel();
    let mut copier = Copier::start(keeper, Arc::new(Ring(ring))).unwrap();
    copier.begin(manifest(1));
    outcome(&mut copier, &rings).unwrap();
    // It would repeat its requests for seconds, and is told not to.
    dead(&store);
    copier.begin(manifest(2));
    copier.cancel();
    let error = outcome(&mut copier, &rings).unwrap_err();
    assert!(matches!(error, CheckpointError::RemoteLate { checkpoint: 2, .. }), "{error}");
    healthy(&store);
    for checkpoint in 3..6 {
        copier.begin(manifest(checkpoint));
        outcome(&mut copier, &rings).unwrap();
    }
    while copier.is_busy() {
        rings.recv().unwrap();
    }
    assert_eq!(store.keys().len(), 2, "{:?}", store.keys());
}

#[test]
fn a_copier_whose_thread_panics_is_waited_for_by_nobody() {
    let store = MemoryStore::default();
    let platform = Arc::new(a_process().disk(Arc::new(MemoryDisk::default())));
    let meanwhile = Meanwhile::default();
    let mut archive = Archive::new(slow(store, &meanwhile), platform, "/job".into(), "orders".to_owned(), 2);
    let claim = archive.claim(0, NEVER).unwrap();
    *meanwhile.lock().unwrap() = Some(Box::new(|| panic!("expected by the test")));
    let (ring, rings) = channel();
    let mut copier = Copier::start(archive.keeper(claim), Arc::new(Ring(ring))).unwrap();
    copier.begin(manifest(1));
    let error = outcome(&mut copier, &rings).unwrap_err().to_string();
    assert!(error.contains("see its panic message"), "{error}");
    assert!(!copier.is_busy());
}
