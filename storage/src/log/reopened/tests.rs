//! Blocks that are open again, and what of them comes back from files: what changes before it is copied, in passing or all at once,
//! modes that change, restarts, crashes.

use crate::{
    log::{
        bed::{Bed, KEYS, Value, contents, crash_everywhere, key, restored},
        blocks::Shape,
        interval::Mode,
        place::Form,
        pool::CHUNK_BYTES,
    },
    snapshot::disk::{Disk, memory::MemoryDisk},
    state::{KeyedTable, StateBackend, StateName, WHOLE},
    store::files::SnapshotEvent,
};

/// Bytes of all records at the beginning.
const RECORD_BYTES: u64 = KEYS * 24;

fn shape() -> Shape {
    Form::<u64, Value>::SHAPE
}

impl Bed {
    /// Changes all keys twice, so that there is no better way than to copy all.
    fn change_all(&mut self) {
        for _ in 0..2 {
            let numbers = self.some(KEYS, KEYS);
            self.update(numbers);
        }
    }

    fn mode(&self) -> Mode {
        self.table.journal.interval.mode
    }

    /// One whose blocks are open again.
    fn reopened(disk: &MemoryDisk) -> Self {
        let mut bed = Self::new(disk, usize::MAX);
        // Keys are new in the first interval, copied in the second one, and so on until everything is known.
        for _ in 0..4 {
            bed.snapshot().unwrap();
            bed.change_all();
        }
        assert_eq!(bed.mode(), Mode::Reopened);
        let open = (0..bed.table.blocks.len()).filter(|block| bed.table.blocks.is_reopened(*block)).count();
        assert!(open as u64 >= RECORD_BYTES / CHUNK_BYTES as u64, "{open} blocks are open again");
        bed
    }

    /// Goes on with a snapshot a little; what it has come to, if that was all.
    fn go_on(&mut self) -> Option<SnapshotEvent> {
        self.store.next_snapshot_event().unwrap()
    }
}

#[test]
fn a_seal_is_given_what_was_whatever_changes_behind_it() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    let mut under_way = 0;
    for round in 0..12_u64 {
        bed.ask_for_snapshot().unwrap();
        let sealed = bed.expected.clone();
        for step in 0..round % 4 {
            if bed.go_on().is_some() {
                panic!("round {round} is done after {step} steps");
            }
            under_way += usize::from(bed.store.is_snapshot_held());
            match step {
                0 => {
                    let numbers = bed.some(1_000, KEYS);
                    bed.update(numbers);
                }
                1 => bed.update((KEYS..KEYS + 500).collect()),
                _ => {
                    for number in bed.some(50, KEYS) {
                        let was = bed.expected.remove(&key(number).hash);
                        assert_eq!(bed.table.remove(key(number)), was.is_some());
                    }
                }
            }
        }
        bed.change();
        let manifest = bed.wait_for_snapshot().unwrap();
        assert_eq!(restored(&disk, &manifest, 1 + round as u32 % 3), sealed, "round {round}");
        bed.change_all();
    }
    assert!(under_way > 10, "{under_way} steps left something to copy");
    assert_eq!(contents(&mut bed.table), bed.expected);
}

#[test]
fn two_seals_one_behind_the_other_are_both_given_what_was() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    for round in 0..4 {
        bed.ask_for_snapshot().unwrap();
        let first = bed.expected.clone();
        bed.change_all();
        bed.change();
        assert!(bed.store.is_snapshot_held(), "round {round}");
        bed.ask_for_snapshot().unwrap();
        let second = bed.expected.clone();
        bed.change_all();
        let done = [bed.store.wait_for_snapshot(), bed.store.wait_for_snapshot()];
        let manifests = done.map(|done| done.unwrap().manifest().unwrap());
        assert_eq!(restored(&disk, &manifests[0], 1), first, "round {round}");
        assert_eq!(restored(&disk, &manifests[1], 2), second, "round {round}");
    }
}

#[test]
fn what_was_filled_is_open_again_before_it_is_written() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    bed.snapshot().unwrap();
    bed.change_all();
    assert_eq!(bed.mode(), Mode::Copied);
    bed.ask_for_snapshot().unwrap();
    assert_eq!(bed.mode(), Mode::Reopened);
    assert!(bed.store.is_snapshot_held(), "all that was filled went to the writer");
    let (sealed, copied) = (bed.expected.clone(), bed.table.journal.interval.copied);
    let numbers = bed.some(KEYS, KEYS);
    bed.update(numbers);
    // But for what is in the tail, and in the block that had been it at the seal before.
    let copied = bed.table.journal.interval.copied - copied;
    assert!(copied < KEYS * 3 / 4, "{copied} records were copied");
    let manifest = bed.wait_for_snapshot().unwrap();
    assert_eq!(restored(&disk, &manifest, 1), sealed);
}

#[test]
fn what_the_writer_still_has_of_a_block_is_not_changed() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    let mut end = KEYS;
    for round in 0..6 {
        // The tail is sealed when it has some records, and filled before that seal is written.
        let mut sealed = Vec::new();
        for more in [3_000, 20_000] {
            bed.update((end..end + more).collect());
            end += more;
            bed.change_all();
            bed.ask_for_snapshot().unwrap();
            sealed.push(bed.expected.clone());
        }
        for _ in 0..2 {
            let numbers = bed.some(end, end);
            bed.update(numbers);
        }
        for (nth, sealed) in sealed.iter().enumerate() {
            let manifest = bed.store.wait_for_snapshot().unwrap().manifest().unwrap();
            assert_eq!(restored(&disk, &manifest, 1), *sealed, "seal {nth} of round {round}");
        }
    }
}

#[test]
fn a_block_that_is_open_again_leaves_no_files_behind() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    bed.update((KEYS..2 * KEYS).collect());
    bed.snapshot().unwrap();
    // Two thirds of the keys that came first change, so that blocks are open again which files still have as they were.
    for _ in 0..2 {
        bed.update((0..KEYS * 2 / 3).collect());
        bed.update((0..KEYS * 2 / 3).collect());
        bed.snapshot().unwrap();
    }
    assert_eq!(bed.mode(), Mode::Reopened);
    bed.update((KEYS..2 * KEYS).collect());
    for number in 0..2 * KEYS {
        bed.table.remove(key(number));
    }
    bed.expected.clear();
    bed.update((7..70).collect());
    for _ in 0..4 {
        let manifest = bed.snapshot().unwrap();
        assert_eq!(restored(&disk, &manifest, 1), bed.expected);
        bed.update((7..70).collect());
    }
    // The removed keys are there as long as the tail has something that is older, and the tail is.
    let bytes = disk.used_bytes_in("/state".as_ref());
    assert!(bytes < 2 * KEYS * 12 + 2 * CHUNK_BYTES as u64, "files of {bytes} bytes for a few records");
}

#[test]
fn a_single_change_of_a_block_that_is_open_again_is_sealed() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    for _ in 0..4 {
        bed.snapshot().unwrap();
        bed.change();
    }
    assert_eq!(bed.mode(), Mode::Journaled);
    let numbers = bed.some(KEYS / 2, KEYS);
    bed.update(numbers);
    bed.snapshot().unwrap();
    assert_eq!(bed.mode(), Mode::Reopened);
    // Nothing else tells of it.
    let number = (0..KEYS).find(|number| {
        let found = bed.table.find(key(*number));
        found.is_some_and(|slot| bed.table.blocks.is_reopened(shape().split(slot.address()).0))
    });
    let number = key(number.unwrap());
    bed.table.update(number, || [0, 7], |value| value[0] += 9);
    *bed.expected.get_mut(&number.hash).unwrap() += 9;
    let manifest = bed.snapshot().unwrap();
    assert_eq!(restored(&disk, &manifest, 1), bed.expected);
}

#[test]
fn a_snapshot_may_be_released_before_it_is_made() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    let first = bed.snapshot().unwrap();
    bed.change_all();
    bed.ask_for_snapshot().unwrap();
    assert!(bed.store.is_snapshot_held());
    bed.store.release(bed.snapshots).unwrap();
    let done = bed.store.wait_for_snapshot().unwrap();
    let given_up = done.manifest().unwrap();
    bed.change();
    let manifest = bed.snapshot().unwrap();
    assert_eq!(restored(&disk, &manifest, 1), bed.expected);
    let files = disk.list("/state".as_ref()).unwrap();
    assert!(!files.contains(&given_up) && files.contains(&first) && files.contains(&manifest), "{files:?}");
}

#[test]
fn files_stay_small_whether_blocks_are_copied_or_records() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    let (mut most_bytes, mut modes) = (0, Vec::new());
    for round in 0..60_u32 {
        // All of it, a little less, a quarter; and all ways to change it.
        match round / 10 % 3 {
            0 => bed.change_all(),
            1 => bed.change(),
            _ => {
                let numbers = bed.some(KEYS / 4, KEYS);
                bed.update(numbers);
            }
        }
        let manifest = bed.snapshot().unwrap();
        modes.push(bed.mode());
        most_bytes = most_bytes.max(disk.used_bytes_in("/state".as_ref()));
        if round % 5 == 0 || round > 55 {
            assert_eq!(restored(&disk, &manifest, 1 + round % 3), bed.expected, "round {round}");
        }
    }
    assert_eq!(contents(&mut bed.table), bed.expected);
    modes.dedup();
    assert!(modes.len() >= 4 && modes.contains(&Mode::Journaled), "{modes:?}");
    assert!(most_bytes < RECORD_BYTES * 8, "files of {most_bytes} bytes for {RECORD_BYTES} of records");
}

#[test]
fn where_few_keys_change_often_little_is_written() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    let written = |bed: &mut Bed| {
        bed.ask_for_snapshot().unwrap();
        match bed.store.wait_for_snapshot().unwrap() {
            SnapshotEvent::Done { bytes_written, .. } => bytes_written,
            other => panic!("{other:?}"),
        }
    };
    for round in 0..5 {
        for _ in 0..200 {
            bed.update((0..KEYS / 100).collect());
        }
        let bytes = written(&mut bed);
        // The first seal has what changed before, and with the second one it is known that little does.
        // Cleaning writes some of it again.
        assert!(round < 2 || bytes < RECORD_BYTES / 4, "{bytes} bytes in round {round}");
    }
    assert_eq!(bed.mode(), Mode::Copied);
}

#[test]
fn nothing_is_copied_of_a_table_that_does_not_change() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    bed.snapshot().unwrap();
    for _ in 0..3 {
        bed.ask_for_snapshot().unwrap();
        assert!(!bed.store.is_snapshot_held(), "nothing has changed");
        let manifest = bed.wait_for_snapshot().unwrap();
        assert_eq!(restored(&disk, &manifest, 1), bed.expected);
    }
    // A single change is enough to be told of, and it is not in a batch.
    bed.table.update(key(5), || [0, 7], |value| value[0] += 9);
    *bed.expected.get_mut(&key(5).hash).unwrap() += 9;
    let manifest = bed.snapshot().unwrap();
    assert_eq!(restored(&disk, &manifest, 1), bed.expected);
    assert_eq!(bed.mode(), Mode::Copied);
}

#[test]
fn a_table_may_go_before_its_seal_has_what_it_is_owed() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    bed.ask_for_snapshot().unwrap();
    let sealed = bed.expected.clone();
    bed.change();
    let other = bed.store.open::<u64, u64>(StateName::new("counts", "other"), Vec::new()).unwrap();
    let other = bed.store.table::<u64, u64>(other, WHOLE);
    let Bed { mut store, table, .. } = bed;
    drop(table);
    assert!(store.is_snapshot_held());
    let manifest = store.wait_for_snapshot().unwrap().manifest().unwrap();
    assert_eq!(restored(&disk, &manifest, 2), sealed);
    assert_eq!(other.len(), 0);
}

#[test]
fn all_keys_may_be_removed_while_a_seal_is_owed_them() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    bed.ask_for_snapshot().unwrap();
    let sealed = bed.expected.clone();
    assert!(bed.go_on().is_none());
    for number in 0..KEYS {
        bed.table.remove(key(number));
    }
    bed.expected.clear();
    bed.update((7..70).collect());
    let manifest = bed.wait_for_snapshot().unwrap();
    assert_eq!(restored(&disk, &manifest, 1), sealed);
    for _ in 0..3 {
        let manifest = bed.snapshot().unwrap();
        assert_eq!(restored(&disk, &manifest, 2), bed.expected);
        bed.update((7..70).collect());
    }
    assert_eq!(contents(&mut bed.table), bed.expected);
}

#[test]
fn a_restored_table_is_opened_again() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::reopened(&disk);
    for attempt in 0..3 {
        let manifest = bed.snapshot().unwrap();
        bed = bed.restart(&disk, &format!("/attempt-{attempt}"), manifest);
        assert_eq!(contents(&mut bed.table), bed.expected);
        for _ in 0..3 {
            bed.change_all();
            bed.snapshot().unwrap();
        }
        assert_eq!(bed.mode(), Mode::Reopened);
        bed.change_all();
    }
}

#[test]
fn blocks_are_not_open_again_where_their_copies_would_overdraw_the_budget() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, 4 * RECORD_BYTES as usize);
    for _ in 0..5 {
        bed.snapshot().unwrap();
        bed.change_all();
        assert_eq!(bed.mode(), Mode::Copied);
    }
}

#[test]
fn blocks_leave_memory_when_the_budget_asks_for_it() {
    let disk = MemoryDisk::default();
    let budget = 24 * RECORD_BYTES as usize;
    let mut bed = Bed::new(&disk, budget);
    for _ in 0..5 {
        bed.snapshot().unwrap();
        bed.change_all();
    }
    assert_eq!(bed.mode(), Mode::Reopened);
    // More is new than the budget has room for, behind a seal that is still owed something and before one that knows of it.
    bed.ask_for_snapshot().unwrap();
    assert!(bed.store.is_snapshot_held());
    let sealed = bed.expected.clone();
    let mut most_bytes = 0;
    for more in 1..30 {
        bed.update((more * KEYS..(more + 1) * KEYS).collect());
        most_bytes = most_bytes.max(bed.table.blocks.shared.pool.block_bytes());
    }
    assert!(most_bytes <= budget * 9 / 8 + CHUNK_BYTES, "{most_bytes} bytes of {budget}");
    assert_ne!(bed.mode(), Mode::Reopened);
    bed.change();
    let manifest = bed.wait_for_snapshot().unwrap();
    assert_eq!(restored(&disk, &manifest, 2), sealed);
    assert!(bed.table.blocks.cold > 8, "{} blocks are cold", bed.table.blocks.cold);
    let manifest = bed.snapshot().unwrap();
    assert_eq!(restored(&disk, &manifest, 1), bed.expected);
    assert_eq!(contents(&mut bed.table), bed.expected);
}

#[test]
fn after_a_crash_the_last_snapshot_that_was_done_is_whole() {
    crash_everywhere(|disk| {
        let mut bed = Bed::new(disk, usize::MAX);
        let mut last = None;
        for round in 0..10 {
            let asked = bed.ask_for_snapshot();
            let sealed = bed.expected.clone();
            bed.change();
            match asked.and_then(|()| bed.wait_for_snapshot()) {
                Ok(manifest) => last = Some((manifest, sealed)),
                Err(_) => return last,
            }
            if round != 6 {
                bed.change_all();
            }
        }
        assert_eq!(bed.mode(), Mode::Reopened);
        last
    });
}
