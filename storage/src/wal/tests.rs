//! The log on a disk that fails, tears writes and loses what was not synced.

use std::{path::Path, sync::Arc};

use super::*;
use crate::snapshot::disk::{
    memory::{Faults, MemoryDisk},
    os::OsDisk,
};

const DIRECTORY: &str = "/log";

fn options() -> LogOptions {
    LogOptions { schema: "u64".to_owned(), number: 0xabc, segment_bytes: 400 }
}

fn open(disk: &MemoryDisk) -> Result<WriteAheadLog, LogError> {
    WriteAheadLog::open(Arc::new(disk.clone()), Path::new(DIRECTORY), options())
}

fn group(records: impl IntoIterator<Item = u64>) -> Group {
    let mut group = Group::default();
    // Some are longer, so that groups reach over the pages that a crash tears.
    records.into_iter().for_each(|record| {
        group.push(&[&record.to_le_bytes()[..], &vec![7; (record % 7 * record % 4096) as usize][..]].concat())
    });
    group
}

/// The records from `from` on, and whether the end is behind them.
fn read(log: &WriteAheadLog, from: u64) -> Result<(Vec<u64>, bool), LogError> {
    let mut cursor = Cursor::at(log, from)?;
    let mut records = Vec::new();
    while let Some(mut chunk) = cursor.read(log)? {
        if chunk.is_end() {
            return Ok((records, true));
        }
        while let Some(record) = chunk.take() {
            records.push(u64::from_le_bytes(*record.first_chunk().unwrap()));
        }
        assert_eq!(chunk.next(), cursor.next());
    }
    assert_eq!(cursor.next(), log.next());
    Ok((records, false))
}

#[test]
fn records_are_read_from_anywhere_and_survive_a_restart() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk).unwrap();
    assert_eq!((read(&log, 0).unwrap(), log.number()), ((vec![], false), 0xabc));
    for first in (0..60).step_by(3) {
        let mut chunk = log.append(&group(first..first + 3)).unwrap();
        chunk.skip_to(first + 1);
        assert_eq!((chunk.next(), chunk.remaining()), (first + 1, 2));
    }
    assert!(log.segments.len() > 5, "{} segments", log.segments.len());
    for from in 0..=60 {
        assert_eq!(read(&log, from).unwrap(), ((from..60).collect(), false));
    }
    assert!(matches!(Cursor::at(&log, 61), Err(LogError::Elsewhere { wanted: 61, first: 0, end: 60, .. })));
    assert!(matches!(open(&disk), Err(LogError::Taken { .. })));
    drop(log);
    let other = LogOptions { number: 5, ..options() };
    let mut log = WriteAheadLog::open(Arc::new(disk.clone()), Path::new(DIRECTORY), other).unwrap();
    assert_eq!((log.number(), log.next(), log.first()), (0xabc, 60, 0));
    log.append(&group([60])).unwrap();
    log.end().unwrap();
    log.end().unwrap();
    assert_eq!(read(&log, 58).unwrap(), (vec![58, 59, 60], true));
    drop(log);
    let log = open(&disk).unwrap();
    assert!(log.is_ended());
    assert_eq!(read(&log, 0).unwrap(), ((0..61).collect(), true));
}

#[test]
fn trimming_takes_whole_segments_in_front_and_never_the_last() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk).unwrap();
    for first in 0..40 {
        log.append(&group([first])).unwrap();
    }
    let all = log.bytes();
    for before in [0, 7, 7, 20] {
        log.trim(before).unwrap();
        assert!(log.first() <= before && log.segments.get(1).unwrap().base > before);
        assert_eq!(read(&log, before).unwrap().0, (before..40).collect::<Vec<_>>());
    }
    assert!(log.bytes() < all);
    assert!(matches!(Cursor::at(&log, 0), Err(LogError::Elsewhere { .. })));
    log.trim(1_000).unwrap();
    assert_eq!((log.segments.len(), log.next()), (1, 40));
    drop(log);
    let mut log = open(&disk).unwrap();
    assert_eq!(log.next(), 40);
    log.append(&group([40])).unwrap();
    assert_eq!(read(&log, 40).unwrap().0, [40]);
}

#[test]
fn a_failed_write_loses_its_own_group_only_and_the_log_goes_on() {
    for fail_at in 0..12 {
        let disk = MemoryDisk::default();
        let mut log = open(&disk).unwrap();
        disk.set_faults(Faults { fail_at: Some(fail_at), ..Faults::default() });
        let mut expected = Vec::new();
        for record in 0..30 {
            if log.append(&group([record, 100 + record])).is_ok() {
                expected.extend([record, 100 + record]);
            }
        }
        assert_eq!(expected.len(), 58, "one group was lost");
        assert_eq!(read(&log, 0).unwrap().0, expected);
        drop(log);
        assert_eq!(read(&open(&disk).unwrap(), 0).unwrap().0, expected);
    }
}

#[test]
fn a_full_disk_is_told_with_its_remedy_and_is_no_end() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk).unwrap();
    disk.set_faults(Faults { capacity_bytes: Some(1_000), ..Faults::default() });
    let mut sent = 0;
    let error = loop {
        match log.append(&group([sent])) {
            Ok(_) => sent += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("/log/segment-") && error.contains("Make room on its filesystem"), "{error}");
    assert!(log.append(&group([sent])).is_err());
    disk.set_faults(Faults::default());
    log.append(&group([sent])).unwrap();
    assert_eq!(read(&log, 0).unwrap().0, (0..=sent).collect::<Vec<_>>());
    disk.set_faults(Faults { read_only: true, ..Faults::default() });
    let error = log.append(&group([sent])).unwrap_err().to_string();
    assert!(error.contains("read-only") && error.contains("Mount its filesystem for writing"), "{error}");
    assert!(open(&disk).is_err());
}

#[test]
fn a_log_without_records_still_knows_how_far_it_has_come() {
    let disk = MemoryDisk::default();
    let header = SegmentHeader { log: 5, segment: 3, base: 100, schema: "u64".to_owned() };
    disk.put(&segment_path(Path::new(DIRECTORY), 3), &header.encode());
    for _ in 0..2 {
        let mut log = open(&disk).unwrap();
        assert_eq!((log.number(), log.first(), log.next()), (5, 100, 100));
        disk.set_faults(Faults { capacity_bytes: Some(60), ..Faults::default() });
        log.append(&group([1])).unwrap_err();
        disk.set_faults(Faults::default());
        drop(log);
        disk.crash(1);
    }
    let mut log = open(&disk).unwrap();
    log.append(&group([1, 2])).unwrap();
    assert_eq!(read(&log, 100).unwrap(), (vec![1, 2], false));
    drop(log);
    assert_eq!(read(&open(&disk).unwrap(), 101).unwrap().0, [2]);
}

#[test]
fn foreign_newer_and_missing_segments_are_refused() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk).unwrap();
    for first in 0..20 {
        log.append(&group([first])).unwrap();
    }
    let paths: Vec<PathBuf> = log.segments.iter().map(|segment| segment.path.clone()).collect();
    drop(log);
    let other = LogOptions { schema: "Order.v2".to_owned(), ..options() };
    let error = WriteAheadLog::open(Arc::new(disk.clone()), Path::new(DIRECTORY), other).unwrap_err();
    assert!(error.to_string().contains("records of the type `u64`, and `Order.v2` is to be sent"), "{error}");

    let sound = disk.contents(&paths[1]).unwrap();
    let mut newer = sound.clone();
    newer[8] = 9;
    disk.put(&paths[1], &newer);
    // The number alone may be a bit that has changed.
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("the header's checksum is wrong, and there are records"), "{error}");
    let covered = 20 + u32::from_le_bytes(*newer[16..].first_chunk().unwrap()) as usize;
    let sum = format::header_checksum(9, &newer[16..covered]);
    newer[12..16].copy_from_slice(&sum.to_le_bytes());
    disk.put(&paths[1], &newer);
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("format version 9, and this release reads up to 1"), "{error}");

    let foreign = SegmentHeader { log: 1, segment: 1, base: 5, schema: "u64".to_owned() };
    disk.put(&paths[1], &foreign.encode());
    assert!(open(&disk).unwrap_err().to_string().contains("a segment of log 0000000000000001"));

    disk.put(&paths[1], &sound);
    disk.remove(&paths[1]).unwrap();
    let log = open(&disk).unwrap();
    let error = read(&log, 0).unwrap_err().to_string();
    assert!(
        error.contains("segment-0000000000000000.wal: at byte") && error.contains("the file ends"),
        "{error}"
    );
    drop(log);
    disk.put(&paths[2], &sound);
    assert!(open(&disk).unwrap_err().to_string().contains("under another name"));
}

#[test]
fn a_changed_byte_is_an_error_wherever_it_is_but_in_the_last_group() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk).unwrap();
    for first in 0..12 {
        log.append(&group([first])).unwrap();
    }
    let paths: Vec<PathBuf> = log.segments.iter().map(|segment| segment.path.clone()).collect();
    let last_group = group([11]).bytes();
    drop(log);
    let last = paths.last().unwrap();
    for path in &paths {
        let sound = disk.contents(path).unwrap();
        let counted = if path == last { sound.len() - last_group } else { sound.len() };
        for at in 0..counted {
            let mut changed = sound.clone();
            changed[at] ^= 1;
            disk.put(path, &changed);
            match open(&disk).and_then(|log| read(&log, 0)) {
                Err(LogError::Damaged { file, .. }) => assert_eq!(file, *path, "byte {at}"),
                Err(LogError::NewerVersion { .. }) => assert_eq!(at / 4, 2),
                other => panic!("byte {at} of {}: {other:?}", path.display()),
            }
            disk.put(path, &sound);
        }
    }
    let sound = disk.contents(last).unwrap();
    for kept in sound.len() - last_group..sound.len() {
        disk.put(last, &sound[..kept]);
        assert_eq!(read(&open(&disk).unwrap(), 0).unwrap().0, (0..11).collect::<Vec<_>>());
    }
}

/// A sender that knows what it was told, and a reader that keeps a checkpoint now and then.
#[derive(Default)]
struct Client {
    /// Numbers in the order in which they were acknowledged.
    acknowledged: Vec<u64>,
    /// Those that it was told of that they failed, or was never told of.
    unsure: Vec<u64>,
    sent: u64,
    /// Trimmed away up to here, at most.
    trimmed: u64,
    has_ended: bool,
}

impl Client {
    /// Sends, until the disk is dead or so many groups are through.
    fn send(&mut self, log: &mut WriteAheadLog, groups: u64, roll: &mut impl FnMut(u64) -> u64) {
        for _ in 0..groups {
            let numbers: Vec<u64> = (self.sent..self.sent + 1 + roll(5)).collect();
            self.sent += numbers.len() as u64;
            match log.append(&group(numbers.iter().copied())) {
                Ok(_) => self.acknowledged.extend(numbers),
                Err(_) => self.unsure.extend(numbers),
            }
            if roll(8) == 0 {
                let before = log.first() + roll(log.next() - log.first() + 1);
                self.trimmed = self.trimmed.max(before);
                let _dead = log.trim(before);
            }
        }
    }

    /// Compares what is there with what was said. What was unsure and is there counts from now on.
    fn check(&mut self, log: &WriteAheadLog, seed: u64) {
        assert!(log.first() <= self.trimmed, "seed {seed}: more was trimmed than was wanted");
        let (there, is_ended) = read(log, log.first()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(there.is_sorted_by(|a, b| a < b), "seed {seed}: out of order or twice: {there:?}");
        assert!(is_ended || !self.has_ended, "seed {seed}: the end is lost");
        let oldest = there.first().copied().unwrap_or(self.sent);
        let sure: Vec<u64> = there.iter().copied().filter(|number| !self.unsure.contains(number)).collect();
        let kept = self.acknowledged.iter().copied().filter(|number| *number >= oldest);
        assert_eq!(sure, kept.collect::<Vec<_>>(), "seed {seed}");
        self.acknowledged.extend(there.iter().filter(|number| self.unsure.contains(number)));
        self.acknowledged.sort_unstable();
        self.unsure.clear();
        self.has_ended = is_ended;
    }
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_operation() {
    let (mut deaths, mut unsure) = (0, 0);
    for seed in 0..1_500 {
        let disk = MemoryDisk::default();
        let mut state = seed;
        let mut roll = |below: u64| {
            state = u64::wrapping_mul(state ^ (state >> 29), 0xbf58_476d_1ce4_e5b9)
                .wrapping_add(0x9e37_79b9_7f4a_7c15);
            (state >> 33) % below
        };
        let mut client = Client::default();
        for life in 0..6 {
            let at = Some(roll(60));
            let faults = match roll(3) {
                0 => Faults { fail_at: at, dead_from: Some(20 + roll(60)), ..Faults::default() },
                1 => Faults { fail_at: at, ..Faults::default() },
                _ => Faults { dead_from: at, ..Faults::default() },
            };
            disk.set_faults(faults);
            if let Ok(mut log) = open(&disk) {
                client.check(&log, seed);
                if !log.is_ended() {
                    client.send(&mut log, 4 + roll(20), &mut roll);
                    if life == 4 && roll(2) == 0 {
                        client.has_ended |= log.end().is_ok();
                    }
                }
            }
            unsure += client.unsure.len();
            // Either a power cut, or only the process dies and the system writes everything in the end.
            if roll(4) > 0 {
                disk.crash(roll(u64::MAX));
                deaths += 1;
            }
        }
        disk.set_faults(Faults::default());
        client.check(&open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}")), seed);
    }
    assert!(deaths > 3_000 && unsure > 1_000, "too little went wrong: {deaths} deaths, {unsure} unsure");
}

#[test]
fn the_real_disk_keeps_a_log_in_a_directory_that_was_not_there() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("disk/log");
    let open = || WriteAheadLog::open(Arc::new(OsDisk::default()), &directory, options());
    let parent = place.path().join("disk");
    assert!(matches!(open(), Err(LogError::NoParent { parent: missing, .. }) if missing == parent));
    std::fs::create_dir(&parent).unwrap();
    let mut log = open().unwrap();
    for first in 0..50 {
        log.append(&group([first])).unwrap();
    }
    let error = open().unwrap_err().to_string();
    assert!(error.contains("cannot be taken") && error.contains("it is in use by process"), "{error}");
    log.trim(30).unwrap();
    drop(log);
    assert_eq!(read(&open().unwrap(), 30).unwrap().0, (30..50).collect::<Vec<_>>());
}
