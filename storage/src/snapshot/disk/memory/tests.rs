//! What a disk in memory keeps, loses and breaks.

use super::*;
use crate::snapshot::disk::read_whole;

#[test]
fn only_what_was_synced_surely_survives_a_crash() {
    let path = Path::new("d/file");
    let mut left = BTreeSet::new();
    for seed in 0..64 {
        let disk = MemoryDisk::default();
        let mut file = disk.create(path, 4096).unwrap();
        let mut pages = file.buffer().unwrap();
        pages.extend(&[7; 4096]);
        file.write(0, pages).unwrap();
        disk.crash(seed);
        left.insert(disk.contents(path));
    }
    assert!(left.len() >= 3, "nothing, nothing in it, zeros, or all: {} of them", left.len());
    let disk = MemoryDisk::default();
    disk.write_whole(path, b"abc").unwrap();
    assert_eq!(disk.used_bytes(), 3);
    disk.sync_directory(Path::new("d")).unwrap();
    disk.rename(path, Path::new("d/other")).unwrap();
    disk.sync_directory(Path::new("d")).unwrap();
    disk.crash(1);
    assert_eq!(disk.list(Path::new("d")).unwrap(), [Path::new("d/other")]);
    assert_eq!(disk.contents(Path::new("d/other")).unwrap(), b"abc");
}

#[test]
fn links_are_names_of_one_file_and_stay_so_after_a_crash() {
    let (path, link, other) = (Path::new("d/file"), Path::new("d/link"), Path::new("d/other"));
    let disk = MemoryDisk::default();
    disk.write_whole(path, b"abc").unwrap();
    disk.write_whole(other, b"abc").unwrap();
    disk.link(path, link).unwrap();
    disk.sync_directory(Path::new("d")).unwrap();
    for _ in 0..2 {
        assert!(disk.is_same_file(path, link) && disk.is_same_file(path, path));
        assert!(!disk.is_same_file(path, other) && !disk.is_same_file(path, Path::new("d/none")));
        disk.crash(1);
    }
}

#[test]
fn the_end_of_the_process_alone_takes_nothing_and_lets_go_of_everything() {
    let (directory, path) = (Path::new("d"), Path::new("d/file"));
    let disk = MemoryDisk::default();
    let held = disk.lock(directory).unwrap();
    let mut stream = disk.create_stream(path).unwrap();
    stream.write(b"abc").unwrap();
    disk.set_faults(Faults { dead_from: Some(0), ..Faults::default() });
    disk.end_process();
    // What is left of the process reaches nothing any more.
    stream.write(b"def").unwrap();
    assert_eq!(disk.contents(path).unwrap(), b"abc");
    std::mem::forget(held);
    assert!(disk.lock(directory).is_ok());
    // Nothing was synced: a power cut may still take it.
    let left: BTreeSet<_> = (0..64)
        .map(|seed| {
            let disk = MemoryDisk::default();
            disk.create_stream(path).unwrap().write(b"abc").unwrap();
            disk.end_process();
            disk.crash(seed);
            disk.contents(path)
        })
        .collect();
    assert!(left.contains(&None) && left.contains(&Some(b"abc".to_vec())), "{left:?}");
}

#[test]
fn what_was_not_synced_may_be_damaged_and_what_was_is_as_it_was() {
    let path = Path::new("d/file");
    let mut damaged = 0;
    for seed in 0..256 {
        let disk = MemoryDisk::default();
        let mut stream = disk.create_stream(path).unwrap();
        stream.write(b"synced").unwrap();
        stream.sync().unwrap();
        disk.sync_directory(Path::new("d")).unwrap();
        stream.write(b"not synced").unwrap();
        disk.crash(seed);
        let left = disk.contents(path).unwrap();
        assert_eq!(&left[..6], b"synced", "under seed {seed}");
        let arrived = left[6..].iter().zip(b"not synced").filter(|(left, wrote)| left == wrote).count();
        // All but one of its bytes, and that one is not what was there before.
        damaged += u64::from(arrived == 9);
    }
    assert!((10..100).contains(&damaged), "{damaged}");
}

#[test]
fn a_read_that_fails_once_works_the_next_time() {
    let path = Path::new("d/file");
    let disk = MemoryDisk::default();
    disk.put(path, b"abc");
    disk.set_faults(Faults { fail_read_at: Some(1), ..Faults::default() });
    let read = || read_whole(&disk, path, 3);
    assert!(read().is_ok() && read().is_err() && read().is_ok());
    assert_eq!((disk.reads(), disk.operations()), (3, 0));
}

#[test]
fn rot_is_under_all_names_durable_and_can_be_mended() {
    let (path, link) = (Path::new("d/file"), Path::new("d/link"));
    let disk = MemoryDisk::default();
    disk.write_whole(path, b"abc").unwrap();
    disk.link(path, link).unwrap();
    disk.sync_directory(Path::new("d")).unwrap();
    assert!(disk.rot(path, 1, 4) && !disk.rot(path, 3, 4) && !disk.rot(Path::new("d/none"), 0, 1));
    disk.crash(1);
    assert_eq!(disk.contents(link).unwrap(), b"afc");
    assert!(disk.rot(link, 1, 4));
    assert_eq!(disk.contents(path).unwrap(), b"abc");
}

#[test]
fn a_file_that_is_cut_and_written_on_has_either_behind_a_crash_and_what_was_before_the_cut() {
    let path = Path::new("d/file");
    let mut left = BTreeSet::new();
    for seed in 0..64 {
        let disk = MemoryDisk::default();
        let mut file = disk.append(path).unwrap();
        file.write(b"kept, older").unwrap();
        disk.sync_file(path).unwrap();
        disk.sync_directory(Path::new("d")).unwrap();
        drop(file);
        disk.cut(path, 5).unwrap();
        assert_eq!(disk.length(path).unwrap(), Some(5));
        disk.cut(path, 9).unwrap();
        disk.append(path).unwrap().write(b" and newer").unwrap();
        assert_eq!(disk.contents(path).unwrap(), b"kept, and newer");
        disk.crash(seed);
        let contents = disk.contents(path).unwrap();
        assert_eq!(&contents[..5], b"kept,", "under seed {seed}");
        left.insert(contents);
    }
    for whole in [b"kept, older".as_slice(), b"kept, and newer"] {
        assert!(left.contains(whole), "{left:?}");
    }
    let disk = MemoryDisk::default();
    assert_eq!(disk.length(path).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.cut(path, 0).unwrap_err().kind(), io::ErrorKind::NotFound);
}
