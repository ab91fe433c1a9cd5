//! The `tidemill state` commands as a user runs them, on a small snapshot.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use tempfile::TempDir;
use tidemill::storage::{
    log::{
        block::Block,
        seal::{
            BlockId, Layout, RemovedKeys, Sealed, SealedRange, StateDeclaration, TableDeclaration, TableId,
        },
    },
    snapshot::{
        clean::WASTE_BYTES_MAX,
        disk::os::OsDisk,
        writer::{self, Event, StoreSettings, WriterCore},
    },
    state::{StateId, StateName},
};

const TABLE: TableId = TableId(1);

fn state(arguments: &[&str], path: &Path) -> Output {
    let binary = env!("CARGO_BIN_EXE_tidemill");
    Command::new(binary).arg("state").args(arguments).arg(path).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn range(block: u64, keys: std::ops::Range<u64>) -> SealedRange {
    let bytes: Vec<u8> = keys.flat_map(|key| [key << 58, key].map(u64::to_le_bytes)).flatten().collect();
    let (memory, to) = (Arc::new(Block::holding(&bytes)), bytes.len() as u32);
    SealedRange { table: TABLE, block: BlockId(block), memory, from: 0, to }
}

/// A snapshot: keys 0 to 9, of which 0 to 3 were written again and 9 was removed.
fn snapshot() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("state");
    let settings = StoreSettings {
        directory: directory.clone(),
        store: 5,
        key_groups: 0..128,
        max_parallelism: 128,
        waste_bytes_max: WASTE_BYTES_MAX,
    };
    let mut core = WriterCore::open(Arc::new(OsDisk::default()), settings).unwrap();
    let layout = Layout::Stride { stride: 16, value_at: 8, value_len: 8 };
    let declaration = StateDeclaration {
        id: StateId(0),
        name: StateName::new("clicks-per-user", "count"),
        keys: "u64".into(),
        values: "u64".into(),
        layout,
    };
    let first = Sealed {
        states: vec![declaration],
        tables: vec![TableDeclaration { table: TABLE, state: StateId(0), slice: 0 }],
        ranges: vec![range(1, 0..10)],
        live: vec![(TABLE, 10)],
        ..Sealed::default()
    };
    core.handle(writer::Command::Spill { seal: 1, sealed: first });
    let keys = [&(9_u64 << 58).to_le_bytes()[..], &[0; 4]].concat();
    let second = Sealed {
        removed: vec![RemovedKeys { table: TABLE, keys }],
        ranges: vec![range(2, 0..4)],
        live: vec![(TABLE, 9)],
        ..Sealed::default()
    };
    let events = core.handle(writer::Command::Snapshot { snapshot: 7, seal: 2, sealed: second });
    assert!(matches!(events.last(), Some(Event::SnapshotDone { snapshot: 7, .. })), "{events:?}");
    (root, directory)
}

#[test]
fn inspect_says_what_a_snapshot_holds() {
    let (_root, directory) = snapshot();
    let output = state(&["inspect", "--key-groups"], &directory);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(shown.starts_with("snapshot 7: 9 keys, 144 B of records in 24.0 KiB of files"), "{shown}");
    for part in ["clicks-per-user", "count", "u64", "0..128", "35.7 %", "key groups"] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let report = json(&state(&["inspect", "--json"], &directory.join("part-0000000000000007.tmm")));
    let slice = &report["snapshots"][0]["states"][0]["slices"][0];
    assert_eq!((&slice["live"]["keys"], &slice["stored"]["keys"]), (&9.into(), &14.into()));
    assert_eq!(slice["declared_keys"], 9);
    let groups = report["snapshots"][0]["key_groups"].as_array().unwrap();
    assert_eq!(groups.len(), 9);
    assert_eq!(groups[3], serde_json::json!({ "key_group": 6, "keys": 1, "bytes": 16 }));
}

#[test]
fn verify_finds_a_sound_snapshot_sound() {
    let (root, _) = snapshot();
    // A directory above the store's will do.
    let output = state(&["verify"], root.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "sound: 1 manifests, 2 segments, 24.0 KiB, 14 records, 1 removed keys\n"
    );
    assert_eq!(json(&state(&["verify", "--json"], root.path()))["sound"], true);
}

#[test]
fn verify_names_the_first_bad_block_and_fails() {
    let (_root, directory) = snapshot();
    let file = directory.join("segment-0000000000000001.tms");
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096 + 5] ^= 1;
    fs::write(&file, bytes).unwrap();
    for command in ["verify", "inspect"] {
        let output = state(&[command], &directory);
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(shown.contains("segment-0000000000000001.tms: at byte 4096: the checksum"), "{shown}");
        assert!(output.stdout.is_empty());
    }
    let report = json(&state(&["verify", "--json"], &directory));
    assert_eq!((&report["sound"], &report["offset"]), (&false.into(), &4096.into()));
}

#[test]
fn what_is_no_snapshot_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let output = state(&["verify"], root.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no part-*.tmm is there or below"), "{}", text(&output.stderr));
    let file = root.path().join("notes.txt");
    fs::write(&file, "hello, this is no manifest").unwrap();
    let output = state(&["inspect"], &file);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no part manifest"), "{}", text(&output.stderr));
    assert_eq!(state(&["verify"], &root.path().join("missing")).status.code(), Some(1));
    assert_eq!(state(&["repair"], root.path()).status.code(), Some(2));
}
