//! A smoke run of fuzzing: every decoder of bytes from a disk, under seeded random mutations.
//!
//! Checksums are put right after a mutation, else no decoder would get past them. A decoder may refuse or accept; it
//! must not panic, nor allocate by a count that the bytes cannot hold (which would end the test for want of memory).
//! `TIDEMILL_FUZZ_ROUNDS` sets how many.
#![allow(clippy::unwrap_used)]

#[path = "snapshot/random.rs"]
mod random;

use random::{Die, sized_record};
use tidemill_storage::{
    log::seal::{BlockId, Layout, StateDeclaration, TableDeclaration, TableId},
    snapshot::{
        format::{
            PAGE_BYTES, checksum,
            manifest::{Manifest, NeededSegment, NeededTable},
            segment::{
                Contents, Entry, FOOTER_BYTES, Footer, SegmentId, decode_header, encode_header, encode_tail,
            },
        },
        records::{records, removed_keys},
    },
    state::{StateId, StateName},
};

fn rounds() -> u64 {
    std::env::var("TIDEMILL_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20_000)
}

/// Changes a few bytes, cuts, or repeats a piece.
fn mutate(die: &mut Die, sound: &[u8], resize: bool) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for _ in 0..=die.roll(4) {
        let at = die.roll(bytes.len() as u64) as usize;
        match die.roll(if resize { 7 } else { 4 }) {
            0 => bytes[at] ^= 1 << die.roll(8),
            1 => bytes[at] = die.roll(256) as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][die.roll(5) as usize],
            3 => {
                let end = bytes.len().min(at + 4);
                bytes[at..end].fill([0, 0xff][die.roll(2) as usize]);
            }
            4 => bytes.truncate(at.max(1)),
            5 => {
                let again = bytes[at..bytes.len().min(at + 40)].to_vec();
                bytes.extend(again);
            }
            _ => {
                bytes.remove(at);
                bytes.resize(bytes.len().max(1), 0);
            }
        }
    }
    bytes
}

/// Puts a checksum over all but the last four bytes right.
fn seal(bytes: &mut [u8]) {
    if let Some(end) = bytes.len().checked_sub(4) {
        let sum = checksum(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&sum);
    }
}

fn manifest() -> Manifest {
    let state = |id, layout| StateDeclaration {
        id: StateId(id),
        name: StateName::new("operator", format!("state {id}")),
        keys: "u64".into(),
        values: "Count { n: u64 }".into(),
        layout,
    };
    let table = |table, state, slice| NeededTable {
        declaration: TableDeclaration { table: TableId(table), state: StateId(state), slice },
        live_keys: 9,
    };
    let segment = |number, live| NeededSegment { number, length: 1 << 14, checksum: 5, entries: 9, live };
    Manifest {
        store: 77,
        snapshot: 3,
        seal: 12,
        key_groups: 3..9,
        max_parallelism: 128,
        states: vec![
            state(0, Layout::Stride { stride: 24, value_at: 8, value_len: 16 }),
            state(1, Layout::Sized { narrow: true, align: 16 }),
        ],
        tables: vec![table(1, 0, -5), table(4, 1, 0)],
        segments: vec![segment(0, Vec::new()), segment(3, vec![0xff, 1])],
    }
}

#[test]
fn manifests() {
    let sound = manifest().encode();
    assert_eq!(Manifest::decode(&sound), Ok(manifest()));
    let (mut die, mut accepted) = (Die(11), 0);
    for _ in 0..rounds() {
        let mut bytes = mutate(&mut die, &sound, true);
        let _ = Manifest::decode(&bytes);
        seal(&mut bytes);
        if let Ok(manifest) = Manifest::decode(&bytes) {
            accepted += 1;
            assert_eq!(manifest.encode(), bytes, "what is read is what was written");
        }
    }
    assert!(accepted > 0, "mutations reach behind the checksum");
}

#[test]
fn segments() {
    let id = SegmentId { store: 77, number: 3 };
    let records = Contents::Records { block: BlockId(9), from: 64 };
    let entries = [
        Entry { seal: 1, table: TableId(4), contents: Contents::Removed, offset: 4096, length: 24 },
        Entry { seal: 2, table: TableId(4), contents: records, offset: 4128, length: 5000 },
    ];
    let header = encode_header(id);
    let (tail, footer) = encode_tail(id, &entries, &[1, 2]);
    let (body, end) = tail.split_at(tail.len() - FOOTER_BYTES);
    let (mut die, mut accepted) = (Die(12), 0);
    for _ in 0..rounds() / 4 {
        let mut page = mutate(&mut die, &header[..64], false);
        page.resize(PAGE_BYTES, 0);
        seal(&mut page);
        let _ = decode_header(&page);
        let resize = die.roll(2) == 0;
        let mut bytes = mutate(&mut die, end, resize);
        let _ = Footer::decode(&bytes, footer.length);
        seal(&mut bytes);
        if let Ok(read) = Footer::decode(&bytes, footer.length) {
            let _ = read.decode_tail(body);
        }
        // The directory with its checksum put right.
        let directory = mutate(&mut die, &body[..96], false);
        let body = [&directory, &body[96..]].concat();
        let footer = Footer { directory_checksum: checksum(&directory), ..footer };
        if let Ok((entries, _)) = footer.decode_tail(&body) {
            accepted += 1;
            let inside = |entry: &Entry| entry.offset + u64::from(entry.length) <= footer.directory_at();
            assert!(entries.iter().all(inside));
        }
        let body = mutate(&mut die, &body, true);
        let _ = footer.decode_tail(&body);
    }
    assert!(accepted > 0, "mutations reach behind the checksum");
}

#[test]
fn records_and_removed_keys() {
    let layouts = [
        Layout::Stride { stride: 24, value_at: 8, value_len: 16 },
        Layout::Sized { narrow: false, align: 8 },
        Layout::Sized { narrow: true, align: 16 },
    ];
    let sound: Vec<u8> =
        (0..5_u64).flat_map(|i| sized_record(i, &[b'k'; 7], &vec![1; i as usize * 9])).collect();
    let mut die = Die(13);
    for _ in 0..rounds() {
        let bytes = mutate(&mut die, &sound, true);
        for layout in layouts {
            let length: usize = records(layout, &bytes).flatten().map(|record| record.length).sum();
            assert!(length <= bytes.len());
        }
        assert!(removed_keys(&bytes).count() <= bytes.len());
    }
}
