//! Changes in place, and what of them comes back from files: restarts, a late writer, a budget, crashes.

use crate::{
    log::{
        bed::{Bed, KEYS, contents, crash_everywhere, key, restored},
        pool::CHUNK_BYTES,
    },
    snapshot::disk::memory::MemoryDisk,
    state::KeyedTable,
};

#[test]
fn what_is_changed_in_place_is_restored_and_the_files_stay_small() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    bed.snapshot().unwrap();
    let (mut most_blocks, mut most_bytes, mut sweeps, mut before) = (0, 0, 0, 0);
    for round in 0..60 {
        bed.change();
        let blocks = bed.table.journal.tape.blocks();
        sweeps += usize::from(blocks < before);
        (before, most_blocks) = (blocks, most_blocks.max(blocks));
        let manifest = bed.snapshot().unwrap();
        most_bytes = most_bytes.max(disk.used_bytes_in("/state".as_ref()) as usize);
        if round % 6 == 0 || round > 54 {
            assert_eq!(restored(&disk, &manifest, 1 + round % 3), bed.expected);
        }
    }
    assert_eq!(contents(&mut bed.table), bed.expected);
    assert!(sweeps > 3, "{sweeps} sweeps ended");
    assert!(bed.changed_in_place() > 1);
    let records = KEYS as usize * 24;
    let blocks_max = records * 9 / 2 / CHUNK_BYTES + 3;
    assert!(most_blocks <= blocks_max, "the journal had {most_blocks} blocks");
    // At the end, and whenever it was: a file may go only when nearly nothing in it counts, and blocks are large here.
    let bytes = disk.used_bytes_in("/state".as_ref()) as usize;
    assert!(bytes < records * 6, "files of {bytes} bytes for {records} of records");
    assert!(most_bytes < records * 8, "files of {most_bytes} bytes for {records} of records");
}

#[test]
fn what_is_not_written_yet_is_not_changed_in_place() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    for round in 0..12 {
        bed.ask_for_snapshot().unwrap();
        let sealed = bed.expected.clone();
        bed.change();
        let manifest = bed.wait_for_snapshot().unwrap();
        assert_eq!(restored(&disk, &manifest, 1), sealed, "round {round}");
    }
    assert!(bed.changed_in_place() > 0);
}

#[test]
fn a_restored_table_goes_on_in_place() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    bed.snapshot().unwrap();
    for attempt in 0..4 {
        for _ in 0..6 {
            bed.change();
            bed.snapshot().unwrap();
        }
        assert!(bed.table.journal.tape.blocks() > 0);
        let manifest = bed.snapshot().unwrap();
        bed = bed.restart(&disk, &format!("/attempt-{attempt}"), manifest);
        assert_eq!(contents(&mut bed.table), bed.expected);
    }
}

#[test]
fn blocks_leave_memory_when_the_budget_asks_for_it() {
    let disk = MemoryDisk::default();
    // Five times what the table has at first.
    let mut bed = Bed::new(&disk, 16 * CHUNK_BYTES);
    bed.snapshot().unwrap();
    for _ in 0..8 {
        bed.change();
        bed.snapshot().unwrap();
    }
    assert!(bed.changed_in_place() > 1, "nothing was changed in place");
    for more in 1..=8 {
        bed.update((more * KEYS..(more + 1) * KEYS).collect());
        bed.change();
        let manifest = bed.snapshot().unwrap();
        assert_eq!(restored(&disk, &manifest, 2), bed.expected);
    }
    assert_eq!(bed.changed_in_place(), 0, "they have settled");
    assert!(bed.table.blocks.cold > 8, "{} blocks are cold", bed.table.blocks.cold);
    assert_eq!(contents(&mut bed.table), bed.expected);
}

#[test]
fn an_empty_table_needs_no_journal() {
    let disk = MemoryDisk::default();
    let mut bed = Bed::new(&disk, usize::MAX);
    bed.snapshot().unwrap();
    for _ in 0..6 {
        bed.change();
        bed.snapshot().unwrap();
    }
    assert!(bed.table.journal.tape.blocks() > 2);
    for number in 1..KEYS {
        bed.table.remove(key(number));
    }
    for _ in 0..100 {
        bed.table.update(key(0), || [0, 7], |value| value[0] += 1);
    }
    bed.snapshot().unwrap();
    let manifest = bed.snapshot().unwrap();
    assert_eq!(bed.table.journal.tape.blocks(), 0);
    assert_eq!(restored(&disk, &manifest, 1), contents(&mut bed.table));
}

#[test]
fn after_a_crash_the_last_snapshot_that_was_done_is_whole() {
    crash_everywhere(|disk| {
        let mut bed = Bed::new(disk, usize::MAX);
        let mut last = None;
        for _ in 0..14 {
            match bed.snapshot() {
                Ok(manifest) => last = Some((manifest, bed.expected.clone())),
                Err(_) => return last,
            }
            bed.change();
        }
        assert!(bed.table.journal.tape.blocks() > 2);
        last
    });
}
