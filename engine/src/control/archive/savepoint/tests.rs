//! Savepoints in a store that fails: whole or not at all, and nothing that changed is believed.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use tidemill_storage::snapshot::disk::memory::MemoryDisk;

use super::{
    super::{
        LOG,
        carrier::{Carrier, Step},
        list,
        tests::{NEVER, a_process, dead, healthy, with_segments},
        verify,
    },
    *,
};
use crate::platform::{
    SimPlatform,
    remote::{MemoryFaults, MemoryStore, Request, Verdict, WatchedStore},
};

const ROOT: &str = "/job";
const ELSEWHERE: &str = "/other/savepoint/1";

fn platform(disk: &MemoryDisk) -> SimPlatform {
    a_process().disk(Arc::new(disk.clone()))
}

/// A checkpoint of two segments, one of which is cut into blocks.
fn checkpoint(disk: &MemoryDisk) -> JobManifest {
    with_segments(disk, 7, &[0, 1], 9 << 20)
}

fn small_checkpoint(disk: &MemoryDisk) -> JobManifest {
    with_segments(disk, 7, &[0, 1], 100)
}

fn saver(store: Arc<dyn RemoteStore>, disk: &MemoryDisk, manifest: JobManifest) -> Saver {
    let mut saver = Saver::new(store, &a_process().disk(Arc::new(disk.clone())), ROOT.into());
    saver.begin(manifest);
    saver
}

fn drive(saver: &mut Saver) -> Result<(), CheckpointError> {
    loop {
        match saver.step(false) {
            Step::Again | Step::Wait(_) => {}
            Step::Done(outcome) => return outcome,
            Step::Idle => panic!("it has nothing to do"),
        }
    }
}

fn save(store: &MemoryStore, disk: &MemoryDisk, manifest: JobManifest) -> Result<(), CheckpointError> {
    drive(&mut saver(Arc::new(store.clone()), disk, manifest))
}

fn found(store: &MemoryStore) -> Option<Result<u64, String>> {
    verify(store, &SimPlatform::new(0)).unwrap().savepoint
}

fn read(store: &MemoryStore) -> Result<Saved, CheckpointError> {
    Saved::read(store, &SimPlatform::new(0), NEVER)
}

/// Brings the savepoint to another machine.
fn fetch(store: &MemoryStore, disk: &MemoryDisk) -> Result<JobManifest, CheckpointError> {
    let (platform, directory) = (platform(disk), Path::new(ELSEWHERE));
    Saved::read(store, &platform, NEVER)?.fetch(store, &platform, directory, NEVER)?;
    savepoint::read(disk, directory)
}

#[test]
fn a_savepoint_comes_to_another_machine_as_it_was_and_what_is_there_is_not_fetched_again() {
    let (store, disk, other) = (MemoryStore::default(), MemoryDisk::default(), MemoryDisk::default());
    save(&store, &disk, checkpoint(&disk)).unwrap();
    assert_eq!(store.keys().len(), 6, "two blocks of each segment, a part manifest, and the manifest");
    let manifest = fetch(&store, &other).unwrap();
    assert_eq!((manifest.kind, manifest.checkpoint), (ManifestKind::Savepoint, 7));
    let part = manifest.operators["counts"].manifests().remove(0);
    assert_eq!(part.parent(), Some(&*Path::new(ELSEWHERE).join("state/counts/0")));
    let files: Vec<_> = read(&store).unwrap().kept.files.iter().map(|file| file.path.clone()).collect();
    for file in &files {
        let here = Path::new(ROOT).join(file.replace("state/", "state/1/"));
        assert_eq!(other.contents(&Path::new(ELSEWHERE).join(file)), disk.contents(&here), "{file}");
    }
    healthy(&store);
    fetch(&store, &other).unwrap();
    assert_eq!(store.operations(), 1, "the manifest alone");
    // What is damaged is brought back, however it was read before.
    let damaged = Path::new(ELSEWHERE).join(&files[1]);
    let mut bytes = other.contents(&damaged).unwrap();
    let sound = bytes.clone();
    bytes[5_000] ^= 1;
    other.put(&damaged, &bytes);
    fetch(&store, &other).unwrap();
    assert_eq!(other.contents(&damaged), Some(sound));
}

#[test]
fn a_second_savepoint_is_refused_before_it_is_begun_and_behind_its_last_block() {
    let (store, disk) = (MemoryStore::default(), MemoryDisk::default());
    let platform = platform(&disk);
    look(&store, &platform, NEVER).unwrap();
    save(&store, &disk, small_checkpoint(&disk)).unwrap();
    let keys = store.keys();
    let refused = look(&store, &platform, NEVER).unwrap_err().to_string();
    let late = save(&store, &disk, small_checkpoint(&disk)).unwrap_err().to_string();
    for message in [refused, late] {
        assert!(message.starts_with("memory:///simulated holds a savepoint already"), "{message}");
    }
    assert_eq!((store.keys(), found(&store)), (keys, Some(Ok(7))), "the first one is as it was");
}

#[test]
fn whichever_request_a_store_dies_at_the_savepoint_is_there_whole_or_not_at_all() {
    let disk = MemoryDisk::default();
    for request in 0.. {
        let store = MemoryStore::default();
        store.set_faults(MemoryFaults { dead_from: Some(request), ..MemoryFaults::default() });
        let outcome = save(&store, &disk, checkpoint(&disk));
        healthy(&store);
        match outcome {
            Ok(()) => {
                assert_eq!((request, found(&store)), (6, Some(Ok(7))));
                break;
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains("memory:///simulated") && message.contains("Check that the store"));
                assert_eq!(found(&store), None, "request {request}");
            }
        }
    }
}

/// A savepoint of which the puts `from` to `until` fail, whether they are done all the same or not: what became of it, and the
/// store.
fn picky(from: u64, until: u64, is_done: bool) -> (Result<(), CheckpointError>, MemoryStore) {
    let (store, disk) = (MemoryStore::default(), MemoryDisk::default());
    let puts = AtomicU64::new(0);
    let picky = WatchedStore::new(store.clone(), move |request| match request {
        Request::Put | Request::PutIfAbsent
            if (from..until).contains(&puts.fetch_add(1, Ordering::Relaxed)) =>
        {
            Verdict::Failed { is_done }
        }
        _ => Verdict::Done,
    });
    (drive(&mut saver(Arc::new(picky), &disk, checkpoint(&disk))), store)
}

#[test]
fn nothing_is_left_of_a_savepoint_that_failed_where_deletions_work() {
    // The blocks are put in two requests, and each is tried six times.
    for happens in [false, true] {
        for request in 0..2 {
            let (outcome, store) = picky(request, u64::MAX, happens);
            outcome.unwrap_err();
            assert_eq!(store.keys(), [""; 0], "request {request}");
        }
    }
    // The manifest: it is there although it was told to have failed.
    let (outcome, store) = picky(2, 3, true);
    outcome.unwrap();
    assert_eq!(found(&store), Some(Ok(7)));
    // It is not, but may come: its place is taken.
    let (outcome, store) = picky(2, 8, false);
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("cannot put a savepoint in memory:///simulated"), "{message}");
    assert_eq!(store.keys(), [SAVEPOINT]);
    let platform = SimPlatform::new(0);
    let message = look(&store, &platform, NEVER).unwrap_err().to_string();
    assert!(message.contains("what a savepoint that failed has left"), "{message}");
    let message = read(&store).unwrap_err().to_string();
    assert!(message.contains("no savepoint in memory:///simulated") && message.contains("given up"));
    // It is not known at all: what it would need stays.
    let (outcome, store) = picky(2, u64::MAX, false);
    outcome.unwrap_err();
    assert_eq!(store.keys().len(), 5);
}

#[test]
fn whatever_becomes_of_requests_no_part_of_a_savepoint_is_taken_for_it() {
    let (mut there, mut unsure, mut clean) = (0, 0, 0);
    for seed in 0..300 {
        let (store, disk) = (MemoryStore::default(), MemoryDisk::default());
        let fail_one_in = [1, 2, 3][seed as usize % 3];
        store.set_faults(MemoryFaults { fail_one_in, seed, ..MemoryFaults::default() });
        let outcome = save(&store, &disk, small_checkpoint(&disk));
        healthy(&store);
        // Whatever is on its way comes.
        (0..50).for_each(|_| drop(store.list(LOG)));
        match (outcome, found(&store)) {
            (Ok(()), found) => {
                there += 1;
                assert_eq!(found, Some(Ok(7)), "seed {seed}");
                fetch(&store, &MemoryDisk::default()).unwrap();
            }
            (Err(_), Some(Ok(_))) => unsure += 1,
            (Err(_), None) => clean += 1,
            (Err(_), Some(Err(what))) => assert!(what.contains("given up"), "seed {seed}: {what}"),
        }
    }
    assert!(there > 30 && unsure > 0 && clean > 30, "{there} there, {unsure} unsure, {clean} clean");
}

#[test]
fn what_is_given_up_at_any_step_is_taken_away_and_waits_for_nothing() {
    let disk = MemoryDisk::default();
    for steps in 0..4 {
        for is_dropped in [false, true] {
            let store = MemoryStore::default();
            let mut saver = saver(Arc::new(store.clone()), &disk, checkpoint(&disk));
            (0..steps).for_each(|_| assert!(matches!(saver.step(false), Step::Again)));
            if is_dropped {
                saver.end();
            } else {
                let outcome = loop {
                    match saver.step(true) {
                        Step::Again => {}
                        Step::Done(outcome) => break outcome,
                        other => panic!("{other:?}"),
                    }
                };
                assert!(matches!(outcome, Err(CheckpointError::RemoteLate { checkpoint: 7, .. })));
            }
            assert_eq!(store.keys(), [""; 0], "after {steps} steps");
        }
    }
    let store = MemoryStore::default();
    let mut saver = saver(Arc::new(store.clone()), &disk, checkpoint(&disk));
    (0..3).for_each(|_| assert!(matches!(saver.step(false), Step::Again)));
    dead(&store);
    saver.end();
    assert_eq!(store.operations(), 5, "each block is deleted once, in vain");
}

/// A store that holds a savepoint.
fn whole() -> MemoryStore {
    let (store, disk) = (MemoryStore::default(), MemoryDisk::default());
    save(&store, &disk, small_checkpoint(&disk)).unwrap();
    store
}

#[test]
fn no_changed_byte_of_a_manifest_and_no_cut_is_believed() {
    let store = whole();
    let bytes = Mutex::new(Vec::new());
    store.change(SAVEPOINT, |sound| {
        bytes.lock().unwrap().clone_from(&sound);
        Some(sound)
    });
    let bytes = bytes.into_inner().unwrap();
    assert_eq!(Saved::decode(&bytes).unwrap().encode(), bytes);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Saved::decode(&changed).is_err(), "byte {at}");
        assert!(Saved::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
    let check = |bytes: Vec<u8>, parts: &[&str]| {
        store.change(SAVEPOINT, |_| Some(bytes));
        let message = fetch(&store, &MemoryDisk::default()).unwrap_err().to_string();
        let is_said = |part: &&str| message.contains(*part);
        assert!(message.contains("memory:///simulated/savepoint") && parts.iter().all(is_said), "{message}");
        assert!(matches!(&list(&store, &SimPlatform::new(0)).unwrap().savepoint, Some(Err(_))));
        let refused = look(&store, &SimPlatform::new(0), NEVER).unwrap_err().to_string();
        assert!(refused.contains("holds a savepoint already"), "{refused}");
    };
    check(bytes[..bytes.len() - 1].to_vec(), &["should have", "bytes"]);
    check(b"somebody else's".to_vec(), &["no first line"]);
    let text = String::from_utf8(bytes).unwrap();
    check(text.replacen("savepoint 1", "savepoint 2", 1).into_bytes(), &["format version 2", "reads 1"]);
    check(text.replacen("state/", "staat/", 1).into_bytes(), &["checksum", "changed"]);
}

#[test]
fn no_manifest_leads_out_of_its_directory_or_to_another_savepoint() {
    let saved = read(&whole()).unwrap();
    for path in ["../x", "/etc/passwd", "state/../../x", "savepoint"] {
        let mut wrong = saved.clone();
        wrong.kept.files[0].path = path.to_owned();
        assert!(Saved::decode(&wrong.encode()).is_err(), "{path}");
    }
    for id in ["", "../../blocks/000", "0123456789ABCDEF", "0123456789abcdef0"] {
        assert!(Saved::decode(&Saved { id: id.to_owned(), ..saved.clone() }.encode()).is_err(), "{id}");
    }
    let mut other = saved.clone();
    other.kept.files.remove(0);
    other.kept.checkpoint = 8;
    let error = other.manifest("s3://there", Path::new(ELSEWHERE)).unwrap_err().to_string();
    assert!(error.contains("s3://there/savepoint") && error.contains("of something else"), "{error}");
}

#[test]
fn blocks_that_are_missing_cut_or_changed_are_named() {
    type Change = fn(Vec<u8>) -> Option<Vec<u8>>;
    let changes: [(Change, &str); 3] = [
        (|_| None, "is not there"),
        (|bytes| Some(bytes[..bytes.len() - 1].to_vec()), "checksum"),
        (
            |mut bytes| {
                bytes[3] ^= 1;
                Some(bytes)
            },
            "checksum",
        ),
    ];
    for (change, said) in changes {
        let store = whole();
        let block = store.keys().into_iter().find(|key| key.starts_with(SAVEPOINT_BLOCKS)).unwrap();
        store.change(&block, change);
        let disk = MemoryDisk::default();
        let message = fetch(&store, &disk).unwrap_err().to_string();
        for part in [&block, said, "memory:///simulated/savepoint"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(savepoint::read(&disk, Path::new(ELSEWHERE)).is_err(), "it is not there in part");
        let found = found(&store).unwrap().unwrap_err();
        assert!(found.contains(&block) && found.contains(said), "{found}");
    }
}

#[test]
fn a_place_with_nothing_or_with_checkpoints_is_said_to_be_one() {
    let store = MemoryStore::default();
    let message = read(&store).unwrap_err().to_string();
    assert!(message.contains("no savepoint in memory:///simulated") && message.contains("Check the URL"));
    store.put_if_absent("log/00000000000000000001", b"anything").unwrap();
    let message = read(&store).unwrap_err().to_string();
    assert!(message.contains("holds the checkpoints of a job") && message.contains("`remote`"), "{message}");
    let message = look(&store, &SimPlatform::new(0), NEVER).unwrap_err().to_string();
    assert!(message.contains("holds the checkpoints of a job") && message.contains("name a place"));
    dead(&store);
    let message = look(&store, &SimPlatform::new(0), NEVER).unwrap_err().to_string();
    assert!(message.contains("cannot take a savepoint in memory:///simulated"), "{message}");
}

#[test]
fn a_fetch_that_the_store_ends_goes_on_where_it_was() {
    let store = MemoryStore::default();
    let disk = MemoryDisk::default();
    save(&store, &disk, small_checkpoint(&disk)).unwrap();
    let whole_cost = {
        healthy(&store);
        fetch(&store, &MemoryDisk::default()).unwrap();
        store.operations()
    };
    for request in 0..whole_cost {
        let other = MemoryDisk::default();
        store.set_faults(MemoryFaults { dead_from: Some(request), ..MemoryFaults::default() });
        fetch(&store, &other).unwrap_err();
        assert!(savepoint::read(&other, Path::new(ELSEWHERE)).is_err(), "request {request}");
        healthy(&store);
        fetch(&store, &other).unwrap();
        // Files that were whole by then are not fetched again.
        assert_eq!(store.operations() < whole_cost, request > 1, "request {request}");
    }
}
