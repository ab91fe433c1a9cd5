//! Damaged, missing and foreign files of a snapshot: each is an error that names the file, none is read as data.
#![allow(clippy::unwrap_used)]

#[path = "snapshot/model.rs"]
mod model;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{Contents, GROUPS, Model, restore};
use tidemill_storage::{
    snapshot::{
        clean::WASTE_BYTES_MAX,
        disk::{Disk, memory::MemoryDisk},
        format::{PAGE_BYTES, checksum, manifest_path, segment_path},
        inspect::inspect,
        verify::verify,
        writer::{Command, StoreSettings, WriterCore},
    },
    state::StateError,
};

/// A snapshot of two segments.
struct Small {
    memory: MemoryDisk,
    disk: Arc<dyn Disk>,
    contents: Contents,
    manifest: PathBuf,
    segments: [PathBuf; 2],
}

fn small(seed: u64) -> Small {
    // Some seeds change nothing in one of the seals.
    let mut tries = (seed..).step_by(100).map(try_small);
    tries.find(|small| small.segments.iter().all(|file| small.memory.contents(file).is_some())).unwrap()
}

fn try_small(seed: u64) -> Small {
    let memory = MemoryDisk::default();
    let disk: Arc<dyn Disk> = Arc::new(memory.clone());
    let directory = Path::new("state");
    let settings = StoreSettings {
        directory: directory.into(),
        store: seed.into(),
        key_groups: 0..GROUPS,
        max_parallelism: GROUPS,
        waste_bytes_max: WASTE_BYTES_MAX,
    };
    let mut core = WriterCore::open(Arc::clone(&disk), settings).unwrap();
    let mut model = Model::new(seed, 0..GROUPS);
    for snapshot in 1..=2 {
        let (seal, sealed) = model.seal(40);
        core.handle(Command::Snapshot { snapshot, seal, sealed });
    }
    core.handle(Command::Release { snapshot: 1 });
    let segments = [0, 1].map(|number| segment_path(directory, number));
    Small { memory, disk, contents: model.contents(), manifest: manifest_path(directory, 2), segments }
}

impl Small {
    fn restore(&self) -> Result<Contents, StateError> {
        restore(&self.disk, std::slice::from_ref(&self.manifest), 0..GROUPS)
    }

    fn files(&self) -> [&PathBuf; 3] {
        [&self.manifest, &self.segments[0], &self.segments[1]]
    }

    /// Verification fails and names the file; a restore fails, or did not need what is wrong.
    fn refused(&self, file: &Path, what: &str) -> StateError {
        let error = verify(&*self.disk, Path::new("state")).expect_err(what);
        assert!(error.to_string().contains(&file.display().to_string()), "{what}: {error}");
        if let Ok(contents) = self.restore() {
            assert_eq!(contents, self.contents, "{what}");
        }
        error
    }
}

/// Where an error says that something is wrong.
fn offset(error: &StateError) -> u64 {
    match error {
        StateError::Damaged { offset, .. } => *offset,
        other => panic!("{other}"),
    }
}

#[test]
fn a_sound_snapshot_is_verified_and_counted() {
    let small = small(1);
    let verified = verify(&*small.disk, Path::new("state")).unwrap();
    assert_eq!((verified.manifests, verified.segments), (1, 2));
    assert_eq!(verify(&*small.disk, &small.manifest).unwrap(), verified);
    let [report] = &inspect(&small.disk, Path::new("state")).unwrap()[..] else { panic!() };
    assert_eq!((report.snapshot, report.max_parallelism, report.parts.len()), (2, GROUPS, 1));
    let slices: Vec<_> = report.states.iter().flat_map(|state| &state.slices).collect();
    let keys: u64 = slices.iter().map(|slice| slice.live.keys).sum();
    assert!(slices.iter().all(|slice| slice.live.keys == slice.declared_keys));
    assert_eq!(keys, small.contents.values().map(|table| table.len() as u64).sum::<u64>());
    assert_eq!(keys, report.live().keys);
    assert!(slices.iter().any(|slice| slice.dead_ratio() > 0.0), "keys were written twice");
    assert_eq!(verified.records, slices.iter().map(|slice| slice.stored.keys).sum::<u64>());
    assert!(report.dead_ratio() > 0.0 && report.dead_ratio() < 1.0);
}

#[test]
fn every_changed_byte_is_noticed() {
    let small = small(2);
    for file in small.files() {
        let sound = small.memory.contents(file).unwrap();
        for at in 0..sound.len() {
            let mut changed = sound.clone();
            changed[at] ^= 1 << (at % 8);
            small.memory.put(file, &changed);
            small.refused(file, &format!("byte {at} of {}", file.display()));
        }
        small.memory.put(file, &sound);
    }
    assert_eq!(small.restore().unwrap(), small.contents);
}

#[test]
fn the_first_bad_page_is_named() {
    let small = small(3);
    let file = &small.segments[1];
    let mut bytes = small.memory.contents(file).unwrap();
    bytes[PAGE_BYTES + 100] ^= 4;
    small.memory.put(file, &bytes);
    assert_eq!(offset(&small.refused(file, "a flipped bit")), PAGE_BYTES as u64);
    let error = inspect(&small.disk, Path::new("state")).unwrap_err();
    assert!(error.to_string().contains("data page 0"), "{error}");
}

#[test]
fn a_file_that_was_cut_off_or_grew_is_noticed() {
    let small = small(4);
    for file in small.files() {
        let sound = small.memory.contents(file).unwrap();
        for length in
            (0..sound.len()).step_by(61).chain([sound.len() - 1, sound.len() - PAGE_BYTES.min(sound.len())])
        {
            small.memory.put(file, &sound[..length]);
            small.refused(file, &format!("{length} bytes of {}", file.display()));
        }
        for more in [1, PAGE_BYTES] {
            small.memory.put(file, &[&sound[..], &vec![0; more]].concat());
            small.refused(file, &format!("{more} bytes more of {}", file.display()));
        }
        small.memory.put(file, &sound);
    }
}

#[test]
fn a_segment_under_another_name_or_of_another_store_is_refused() {
    let (one, two) = (small(5), small(6));
    let [first, second] = one.segments.clone().map(|file| one.memory.contents(&file).unwrap());
    one.memory.put(&one.segments[0], &second);
    one.memory.put(&one.segments[1], &first);
    let error = one.refused(&one.segments[0], "swapped");
    assert!(error.to_string().contains("segment 1, and its name says 0"), "{error}");
    one.memory.put(&one.segments[0], &two.memory.contents(&two.segments[0]).unwrap());
    one.memory.put(&one.segments[1], &second);
    let error = one.refused(&one.segments[0], "foreign");
    assert!(error.to_string().contains("a segment of store"), "{error}");
}

#[test]
fn a_manifest_under_another_name_is_refused() {
    let small = small(7);
    let other = manifest_path(Path::new("state"), 3);
    small.memory.put(&other, &small.memory.contents(&small.manifest).unwrap());
    let error = small.refused(&other, "renamed");
    assert!(error.to_string().contains("the manifest of snapshot 2, and its name says 3"), "{error}");
    small.memory.put(&other, &small.memory.contents(&small.segments[0]).unwrap());
    let error = small.refused(&other, "a segment as manifest");
    assert!(error.to_string().contains("no part manifest"), "{error}");
}

#[test]
fn a_missing_segment_is_named() {
    let small = small(8);
    small.disk.remove(&small.segments[0]).unwrap();
    let error = small.refused(&small.segments[0], "missing");
    assert!(matches!(error, StateError::Io { doing: "open", .. }), "{error}");
    assert!(small.restore().is_err());
    let error = verify(&*small.disk, Path::new("elsewhere")).unwrap_err();
    assert!(error.to_string().contains("find a snapshot in elsewhere"), "{error}");
}

#[test]
fn a_newer_version_asks_for_a_newer_release() {
    let small = small(9);
    for file in small.files() {
        let sound = small.memory.contents(file).unwrap();
        let mut newer = sound.clone();
        newer[8] = 3;
        // As that release would have written it, checksum and all.
        let covered = if file == &small.manifest { newer.len() - 4 } else { PAGE_BYTES - 4 };
        let sum = checksum(&newer[..covered]).to_le_bytes();
        newer[covered..covered + 4].copy_from_slice(&sum);
        small.memory.put(file, &newer);
        let error = small.refused(file, "newer");
        assert_eq!(offset(&error), 8);
        assert!(error.to_string().contains("use a newer release"), "{error}");
        assert!(small.restore().is_err());
        small.memory.put(file, &sound);
    }
}
