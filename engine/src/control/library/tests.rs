//! What is kept of a job in its directory, and what goes.

use std::fs;

use tidemill_storage::snapshot::disk::{
    memory::{Faults, MemoryDisk},
    os::OsDisk,
};

use super::*;
use crate::{
    control::manifest::ManifestKind,
    model::checkpoint::{OperatorState, SubtaskState},
};

/// A checkpoint with state in these directories.
fn checkpoint(id: CheckpointId, directories: &[&PathBuf]) -> JobManifest {
    let operators = directories.iter().enumerate().map(|(at, directory)| {
        let place = directory.join("operator/0");
        fs::create_dir_all(&place).unwrap();
        let manifest = Some(place.join("part"));
        let state = OperatorState {
            name: at.to_string(),
            subtasks: vec![SubtaskState { manifest, ..Default::default() }],
        };
        (at.to_string(), state)
    });
    JobManifest {
        job: "job".to_owned(),
        checkpoint: id,
        kind: ManifestKind::Checkpoint,
        wall_millis: 0,
        max_parallelism: 1,
        beginning: None,
        operators: operators.collect(),
    }
}

#[test]
fn a_directory_that_cannot_be_taken_says_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    // As in a directory that this user may not write to, the system refuses to make the file.
    fs::create_dir(place.path().join("lock")).unwrap();
    let said = Library::open(Arc::clone(&disk), place.path(), "job").err().unwrap().to_string();
    assert!(said.contains("/lock") && said.contains("that this user may write to"), "{said}");
    fs::remove_dir(place.path().join("lock")).unwrap();
    let _library = Library::open(Arc::clone(&disk), place.path(), "job").unwrap();
    let said = Library::open(disk, place.path(), "job").err().unwrap().to_string();
    let words = format!("cannot take the directory {}: it is in use by process ", place.path().display());
    assert!(said.starts_with(&words) && said.contains("stop that process"), "{said}");
}

/// What the next process finds behind one that has completed two checkpoints.
fn with_two_checkpoints() -> (MemoryDisk, Library) {
    let (memory, root) = (MemoryDisk::default(), Path::new("/checkpoints"));
    let disk: Arc<dyn Disk> = Arc::new(memory.clone());
    let mut library = Library::open(Arc::clone(&disk), root, "job").unwrap();
    library.add(&checkpoint(1, &[])).unwrap();
    library.add(&checkpoint(2, &[])).unwrap();
    drop(library);
    (memory, Library::open(disk, root, "job").unwrap())
}

#[test]
fn a_checkpoint_that_was_gone_on_from_outlives_a_power_cut() {
    for seed in 0..16 {
        let (memory, root) = (MemoryDisk::default(), Path::new("/checkpoints"));
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let mut library = Library::open(Arc::clone(&disk), root, "job").unwrap();
        assert!(library.newest().unwrap().is_none());
        // The process dies between giving the manifest its name and making that durable.
        let (file, unnamed) = (library.manifest_path(1), root.join("checkpoints/1.unfinished"));
        disk.write_whole(&unnamed, &checkpoint(1, &[]).encode(root)).unwrap();
        disk.rename(&unnamed, &file).unwrap();
        memory.end_process();
        drop(library);
        let mut library = Library::open(Arc::clone(&disk), root, "job").unwrap();
        assert!(library.newest().unwrap().is_some());
        memory.crash(seed);
        drop(library);
        let mut library = Library::open(disk, root, "job").unwrap();
        assert!(library.newest().unwrap().is_some(), "under seed {seed} it is gone");
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_for_now_is_not_passed_over() {
    let (memory, mut library) = with_two_checkpoints();
    memory.set_faults(Faults { fail_read_at: Some(0), ..Faults::default() });
    let said = library.newest().unwrap_err().to_string();
    assert!(
        said.contains("/checkpoints/checkpoints/00000000000000000002") && said.contains("read"),
        "{said}"
    );
    // The next attempt reads it.
    assert_eq!(library.newest().unwrap().map(|newest| newest.checkpoint), Some(2));
    assert_eq!(library.next_restored().unwrap().map(|newest| newest.checkpoint), Some(2));
    // What is damaged is. The next process may find it whole, for all that this one knows.
    memory.rot(&library.manifest_path(2), 60, 1);
    assert_eq!(library.newest().unwrap().map(|newest| newest.checkpoint), Some(1));
    assert!(library.next_restored().is_err());
    library.add(&checkpoint(3, &[])).unwrap();
    assert_eq!(library.next_restored().unwrap().map(|newest| newest.checkpoint), Some(3));
}

#[test]
fn a_checkpoint_before_the_newest_that_cannot_be_read_is_not_needed() {
    let (memory, mut library) = with_two_checkpoints();
    // The newest is read first.
    memory.set_faults(Faults { fail_read_at: Some(1), ..Faults::default() });
    assert_eq!(library.newest().unwrap().map(|newest| newest.checkpoint), Some(2));
    assert_eq!(library.retire(1, &BTreeSet::new()), [1]);
}

#[test]
fn damaged_checkpoints_go_when_enough_newer_ones_are_there_and_what_they_named_with_them() {
    let root = tempfile::tempdir().unwrap();
    let open = || Library::open(Arc::new(OsDisk::default()), root.path(), "job").unwrap();
    let mut library = open();
    let own = library.begin_region(0).unwrap();
    library.add(&checkpoint(1, &[])).unwrap();
    library.add(&checkpoint(2, &[&own])).unwrap();
    fs::write(library.manifest_path(2), "rot").unwrap();
    drop(library);

    let mut library = open();
    assert_eq!(library.newest().unwrap().map(|newest| newest.checkpoint), Some(1));
    library.begin_attempt(0).unwrap();
    let next = library.begin_region(0).unwrap();
    library.add(&checkpoint(3, &[&next])).unwrap();
    assert!(library.retire(2, &BTreeSet::new()).is_empty(), "two that can be used are kept: 1 and 3");
    assert!(own.exists(), "whoever reads the one that is damaged may need it");
    library.add(&checkpoint(4, &[&next])).unwrap();
    assert_eq!(library.retire(2, &BTreeSet::new()), [1, 2]);
    assert!(!own.exists() && next.exists());
    drop(library);
    // Nor is it what the next process goes back to.
    assert!(open().kept.into_keys().eq([3, 4]));
}

#[test]
fn a_job_that_has_removed_its_checkpoints_itself_begins_anew_also_behind_a_power_cut() {
    for seed in 0..32 {
        let (memory, root) = (MemoryDisk::default(), Path::new("/checkpoints"));
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let mut library = Library::open(Arc::clone(&disk), root, "job").unwrap();
        library.add(&checkpoint(1, &[])).unwrap();
        library.add(&checkpoint(2, &[])).unwrap();
        library.clear();
        memory.crash(seed);
        drop(library);
        let mut library = Library::open(disk, root, "job").unwrap();
        // Those whose removal was not durable are whole, and all others were given up before.
        let newest = library.newest().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(newest.is_none_or(|manifest| manifest.checkpoint <= 2));
    }
}

#[test]
fn a_directory_of_state_goes_when_neither_a_region_nor_a_checkpoint_has_it() {
    let root = tempfile::tempdir().unwrap();
    let mut library = Library::open(Arc::new(OsDisk::default()), root.path(), "job").unwrap();
    library.begin_attempt(3).unwrap();
    let [one, other] = [0, 1].map(|region| library.begin_region(region).unwrap());
    library.add(&checkpoint(1, &[&one, &other])).unwrap();
    // Twice in a row: nothing was kept of the first time.
    let [unused, again] = [1, 1].map(|region| library.begin_region(region).unwrap());
    let names = [&one, &other, &unused, &again].map(|directory| directory.file_name().unwrap());
    assert_eq!(names, ["3", "3-1", "3-2", "3-3"]);
    let state = root.path().join(STATE);
    assert!(!library.synced.contains(&state), "a directory has come into it");
    library.add(&checkpoint(2, &[&one, &again])).unwrap();
    assert!(library.synced.contains(&state));
    let there = || [&one, &other, &unused, &again].map(|directory| directory.exists());
    assert!(library.retire(2, &BTreeSet::new()).is_empty());
    assert_eq!(there(), [true; 4]);
    assert!(library.retire(1, &BTreeSet::from([1])).is_empty(), "a savepoint is written of it");
    assert_eq!(library.retire(1, &BTreeSet::new()), [1]);
    assert_eq!(there(), [true, false, false, true]);
    assert_eq!((library.last_attempt().unwrap(), library.newest_kept()), (3, Some(2)));
    library.begin_attempt(0).unwrap();
    assert_eq!(library.begin_region(0).unwrap(), state.join("4"));
}

#[test]
fn what_was_fetched_goes_and_what_somebody_else_put_there_stays() {
    let root = tempfile::tempdir().unwrap();
    let make = |path: &Path| {
        fs::create_dir_all(path.join("state")).unwrap();
        fs::write(path.join("savepoint"), "").unwrap();
    };
    let [foreign, own] = ["fetched/mine", "savepoint"].map(|name| root.path().join(name));
    let disk = || -> Arc<dyn Disk> { Arc::new(OsDisk::default()) };
    let library = Library::open(disk(), root.path(), "job").unwrap();
    let [old, needed] = ["00c3f1a9d2b7e604", "00c3f1a9d2b7e605"].map(|id| library.fetched(id));
    [&foreign, &own, &old, &needed].into_iter().for_each(|path| make(path));
    drop(library);
    let mut library = Library::open(disk(), root.path(), "job").unwrap();
    let there = || [&foreign, &own, &old, &needed].map(|path| path.exists());
    library.retain_fetched(Some(&needed));
    assert_eq!(there(), [true, true, false, true]);
    library.retain_fetched(None);
    assert_eq!(there(), [true, true, false, false]);
    fs::remove_dir_all(foreign).unwrap();
    make(&needed);
    library.clear();
    assert!(!needed.exists());
}
