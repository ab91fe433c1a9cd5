//! Snapshots end to end: what is restored is what was sealed, whatever fails in between.
#![allow(clippy::unwrap_used)]

#[path = "snapshot/model.rs"]
mod model;

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{Contents, GROUPS, Model, restore};
use tidemill_storage::{
    log::{
        block::Block,
        seal::{BlockId, Layout, Sealed, SealedRange, StateDeclaration, TableDeclaration, TableId},
    },
    snapshot::{
        disk::{
            Disk,
            memory::{Faults, MemoryDisk},
            os::OsDisk,
        },
        export::ExportForm,
        format::{manifest_path, segment_path},
        restore::{Parts, Piece},
        thread::Writer,
        writer::{Command, Event, StoreSettings, WriterCore},
    },
    state::{StateError, StateId, StateName},
};

/// What is added to the seeds below: `TIDEMILL_SEED`, else 0. Long runs take another one each time.
fn seed() -> u64 {
    std::env::var("TIDEMILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0)
}

/// Of a store that cleans its files whenever there is something to clean.
fn settings(directory: impl Into<PathBuf>, store: u128, key_groups: Range<u32>) -> StoreSettings {
    StoreSettings {
        directory: directory.into(),
        store,
        key_groups,
        max_parallelism: GROUPS,
        waste_bytes_max: 0,
    }
}

/// A store and its model, with what each snapshot has to hold.
struct Run {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    core: WriterCore,
    model: Model,
    groups: Range<u32>,
    /// Snapshots that were asked for.
    taken: BTreeMap<u64, Contents>,
    /// Those that were reported done and not released.
    done: Vec<u64>,
    failures: Vec<StateError>,
    next: u64,
}

impl Run {
    fn new(disk: &Arc<dyn Disk>, directory: impl Into<PathBuf>, seed: u64, groups: Range<u32>) -> Self {
        let directory = directory.into();
        let settings = settings(&directory, seed.into(), groups.clone());
        let core = WriterCore::open(Arc::clone(disk), settings).unwrap();
        let model = Model::new(seed, groups.clone());
        let (taken, done, failures) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { disk: Arc::clone(disk), directory, core, model, groups, taken, done, failures, next: 0 }
    }

    fn handle(&mut self, command: Command) {
        for event in self.core.handle(command) {
            match event {
                Event::SnapshotDone { snapshot, .. } => self.done.push(snapshot),
                Event::Failed { error, .. } => self.failures.push(error),
                _ => {}
            }
        }
    }

    fn snapshot(&mut self, changes: u64) -> u64 {
        let (seal, sealed) = self.model.seal(changes);
        self.next += 1;
        self.taken.insert(self.next, self.model.contents());
        self.handle(Command::Snapshot { snapshot: self.next, seal, sealed });
        self.next
    }

    /// Snapshots, spills and releases in a random order.
    fn go(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.model.die.roll(4) {
                0 => {
                    let (seal, sealed) = self.model.seal(20);
                    self.handle(Command::Spill { seal, sealed });
                }
                1 if self.done.len() > 2 => {
                    let snapshot = self.done.remove(0);
                    self.handle(Command::Release { snapshot });
                }
                _ => {
                    self.snapshot(20);
                }
            }
        }
    }

    fn manifest(&self, snapshot: u64) -> PathBuf {
        manifest_path(&self.directory, snapshot)
    }

    fn check(&self, snapshot: u64) -> Result<(), StateError> {
        let restored = restore(&self.disk, &[self.manifest(snapshot)], self.groups.clone())?;
        assert_eq!(restored, self.taken[&snapshot], "snapshot {snapshot}");
        Ok(())
    }
}

fn memory() -> (MemoryDisk, Arc<dyn Disk>) {
    let disk = MemoryDisk::default();
    (disk.clone(), Arc::new(disk))
}

#[test]
fn every_retained_snapshot_is_restored_as_it_was() {
    for seed in seed() + 1..seed() + 40 {
        let (_, disk) = memory();
        let mut run = Run::new(&disk, "state", seed, 0..GROUPS);
        run.go(30);
        assert!(run.done.len() >= 2 && run.failures.is_empty(), "seed {seed}: {:?}", run.failures);
        run.done.iter().for_each(|snapshot| run.check(*snapshot).unwrap());
    }
}

#[test]
fn files_that_nothing_needs_are_removed() {
    let (_, disk) = memory();
    let mut run = Run::new(&disk, "state", 5, 0..GROUPS);
    run.go(60);
    let last = run.snapshot(1);
    for snapshot in std::mem::take(&mut run.done) {
        if snapshot != last {
            run.handle(Command::Release { snapshot });
        }
    }
    run.check(last).unwrap();
    // What is left are the segments of the last snapshot and its manifest; the lock is none of the disk's files here.
    let segments = run.core.usage().segments;
    assert_eq!(disk.list(Path::new("state")).unwrap().len(), segments + 1);
    assert!(segments < 40);
}

#[test]
fn a_crash_at_any_operation_loses_no_snapshot_that_was_done() {
    let mut operations = 0;
    for n in 0.. {
        let (faults, disk) = memory();
        let mut run = Run::new(&disk, "state", seed() + 3, 0..GROUPS);
        faults.set_faults(Faults { dead_from: Some(n), ..Faults::default() });
        run.go(25);
        operations = operations.max(n);
        let finished = faults.operations() <= n;
        faults.crash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        run.done.iter().for_each(|snapshot| run.check(*snapshot).unwrap());
        // Whatever else lies there is either right or refused.
        (1..=run.next).for_each(|snapshot| drop(run.check(snapshot)));
        if finished {
            break;
        }
    }
    // Each step writes something, but for a few that release: whatever the seed.
    assert!(operations > 25, "only {operations} operations");
}

#[test]
fn a_failed_operation_loses_nothing_and_the_store_goes_on() {
    let mut n = 0;
    loop {
        let (faults, disk) = memory();
        let mut run = Run::new(&disk, "state", seed() + 4, 0..GROUPS);
        faults.set_faults(Faults { fail_at: Some(n), ..Faults::default() });
        run.go(20);
        let finished = faults.operations() <= n;
        faults.set_faults(Faults::default());
        let last = run.snapshot(10);
        assert!(run.done.contains(&last), "{:?}", run.failures);
        run.done.iter().for_each(|snapshot| run.check(*snapshot).unwrap());
        // Nothing but the files of the done snapshots and of the current state stays.
        run.core.handle(Command::RemoveEarlier);
        let manifests = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "tmm");
        let left = disk.list(Path::new("state")).unwrap();
        assert_eq!(left.iter().filter(|path| manifests(path)).count(), run.done.len(), "{left:?}");
        if finished {
            break;
        }
        n += 1;
    }
    // As above.
    assert!(n > 20, "only {n} operations");
}

#[test]
fn a_full_disk_is_an_error_and_harms_nothing() {
    let (faults, disk) = memory();
    let mut run = Run::new(&disk, "state", 7, 0..GROUPS);
    run.go(10);
    let done = run.done.clone();
    faults.set_faults(Faults { capacity_bytes: Some(0), ..Faults::default() });
    for _ in 0..5 {
        run.snapshot(50);
    }
    assert_eq!(run.failures.len(), 5);
    let text = run.failures[0].to_string();
    assert!(text.contains("state/segment-"), "{text}");
    assert!(matches!(&run.failures[0], StateError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::StorageFull));
    faults.set_faults(Faults::default());
    let last = run.snapshot(5);
    done.iter().chain([&last]).for_each(|snapshot| run.check(*snapshot).unwrap());
}

#[test]
fn a_read_only_disk_is_an_error() {
    let (faults, disk) = memory();
    let mut run = Run::new(&disk, "state", 8, 0..GROUPS);
    faults.set_faults(Faults { read_only: true, ..Faults::default() });
    run.snapshot(50);
    assert!(matches!(&run.failures[..], [StateError::Io { doing: "create", .. }]), "{:?}", run.failures);
}

#[test]
fn parts_are_restored_into_any_other_parallelism() {
    let (_, disk) = memory();
    let (mut manifests, mut all) = (Vec::new(), Contents::new());
    for (i, groups) in [0..5, 5..6, 6..16].into_iter().enumerate() {
        let mut run = Run::new(&disk, format!("state/{i}"), 20 + i as u64, groups);
        for _ in 0..12 {
            run.snapshot(30);
        }
        manifests.push(run.manifest(12));
        for (table, values) in &run.taken[&12] {
            all.entry(table.clone()).or_default().extend(values.clone());
        }
    }
    manifests.rotate_left(1);
    for parallelism in 1..=GROUPS {
        for subtask in 0..parallelism {
            let groups = tidemill_storage::key::key_group_range(subtask, GROUPS, parallelism);
            let mut restored = restore(&disk, &manifests, groups.clone()).unwrap();
            let mut wanted = all.clone();
            let of_groups = |hash| groups.contains(&tidemill_storage::key::key_group(hash, GROUPS));
            wanted.values_mut().for_each(|table| table.retain(|(hash, _), _| of_groups(*hash)));
            wanted.retain(|_, table| !table.is_empty());
            restored.retain(|_, table| !table.is_empty());
            assert_eq!(restored, wanted, "subtask {subtask} of {parallelism}");
        }
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let (_, disk) = memory();
    let mut one = Run::new(&disk, "one", 1, 0..8);
    let mut two = Run::new(&disk, "two", 2, 7..16);
    let mut three = Run::new(&disk, "three", 2, 8..16);
    one.snapshot(9);
    two.snapshot(9);
    three.snapshot(9);
    three.snapshot(9);
    let fails = |manifests: [PathBuf; 2], wanted: &str| {
        let text = restore(&disk, &manifests, 0..GROUPS).unwrap_err().to_string();
        assert!(text.contains(wanted), "{text}");
    };
    fails([one.manifest(1), two.manifest(1)], "overlap");
    fails([one.manifest(1), one.manifest(1)], "overlap");
    fails([one.manifest(1), three.manifest(2)], "a part of snapshot 2");
    assert!(restore(&disk, &[one.manifest(1), three.manifest(1)], 0..GROUPS).is_ok());
}

#[test]
fn a_new_store_in_an_old_directory_leaves_its_files_until_told() {
    let (_, disk) = memory();
    let mut old = Run::new(&disk, "state", 1, 0..GROUPS);
    for _ in 0..5 {
        old.snapshot(20);
    }
    let in_use = WriterCore::open(Arc::clone(&disk), settings("state", 9, 0..GROUPS)).unwrap_err();
    assert!(in_use.to_string().contains("the directory state: it is in use"), "{in_use}");
    let Run { core, taken, .. } = old;
    drop(core);
    let mut new = Run::new(&disk, "state", 2, 0..GROUPS);
    new.next = 10;
    new.snapshot(20);
    let restored = |snapshot| restore(&disk, &[manifest_path(Path::new("state"), snapshot)], 0..GROUPS);
    assert_eq!(restored(5).unwrap(), taken[&5]);
    new.handle(Command::RemoveEarlier);
    assert!(restored(5).is_err());
    new.check(11).unwrap();
}

#[test]
fn a_snapshot_does_not_wait_until_hundreds_of_files_are_gone() {
    let (memory, disk) = memory();
    let directory = Path::new("state");
    let settings = StoreSettings { waste_bytes_max: u64::MAX, ..settings(directory, 1, 0..GROUPS) };
    let mut core = WriterCore::open(Arc::clone(&disk), settings).unwrap();
    let (table, block) = (TableId(1), Arc::new(Block::holding(&[7; 8192])));
    let range =
        |id, from| SealedRange { table, block: BlockId(id), memory: Arc::clone(&block), from, to: from + 16 };
    let count = || disk.list(directory).unwrap().len();
    // Each snapshot has a segment more, all with a piece of the same block.
    for snapshot in 1..=300 {
        let mut sealed = Sealed { ranges: vec![range(0, 16 * snapshot as u32)], ..Sealed::default() };
        if snapshot == 1 {
            let layout = Layout::Stride { stride: 16, value_at: 8, value_len: 8 };
            let (keys, values) = ("u64".into(), "u64".into());
            let name = StateName::new("count", "counts");
            sealed.states = vec![StateDeclaration { id: StateId(0), name, keys, values, layout }];
            sealed.tables = vec![TableDeclaration { table, state: StateId(0), slice: 0 }];
        }
        core.handle(Command::Snapshot { snapshot, seal: snapshot, sealed });
        core.handle(Command::Release { snapshot: snapshot - 1 });
    }
    assert_eq!(count(), 301);
    memory.set_faults(Faults::default());
    let (ranges, freed) = (vec![range(1, 16)], vec![(table, BlockId(0))]);
    let sealed = Sealed { ranges, freed, ..Sealed::default() };
    let events = core.perform(Command::Snapshot { snapshot: 301, seal: 301, sealed });
    assert!(
        matches!(&events[..], [Event::Durable(_), Event::SnapshotDone { segments: 1, .. }]),
        "{events:?}"
    );
    core.perform(Command::Release { snapshot: 300 });
    assert!(memory.operations() < 12, "{} operations", memory.operations());
    assert_eq!(count(), 303);
    memory.set_faults(Faults { fail_at: Some(1), ..Faults::default() });
    core.remove_one();
    assert!(core.has_garbage());
    core.remove_one();
    assert!(!core.has_garbage(), "what cannot be removed is not tried again at once");
    assert_eq!(count(), 302);
    core.handle(Command::Release { snapshot: 300 });
    assert_eq!(disk.list(directory).unwrap(), [manifest_path(directory, 301), segment_path(directory, 300)]);
}

#[test]
fn an_export_is_whole_and_costs_what_is_new() {
    for form in [ExportForm::Link, ExportForm::Copy] {
        let (_, disk) = memory();
        let mut run = Run::new(&disk, "state", 6, 0..GROUPS);
        let mut copied = Vec::new();
        for _ in 0..4 {
            let snapshot = run.snapshot(30);
            let command = Command::Export { snapshot, directory: "away".into(), form };
            let events = run.core.handle(command);
            let [Event::Exported { exported, .. }] = &events[..] else { panic!("{events:?}") };
            copied.push(exported.bytes_copied);
            let restored = restore(&disk, std::slice::from_ref(&exported.manifest), 0..GROUPS).unwrap();
            assert_eq!(restored, run.taken[&snapshot]);
            run.handle(Command::Release { snapshot });
        }
        let last = restore(&disk, &[manifest_path(Path::new("away"), 4)], 0..GROUPS).unwrap();
        assert_eq!(last, run.taken[&4], "released in the store, and still here");
        let one_segment = 4 * 4096;
        assert!(copied.iter().all(|bytes| *bytes <= one_segment), "{copied:?}");
        assert_eq!(form == ExportForm::Link, copied.iter().all(|bytes| *bytes == 0), "{copied:?}");
        let command = Command::Export { snapshot: 99, directory: "away".into(), form };
        assert!(matches!(&run.core.handle(command)[..], [Event::Failed { snapshot: Some(99), .. }]));
    }
}

#[test]
fn the_real_disk_does_the_same_with_and_without_a_ring() {
    for disk in [OsDisk::default(), OsDisk::plain()] {
        let root = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let mut run = Run::new(&disk, root.path().join("state"), 11, 0..GROUPS);
        run.go(20);
        assert!(run.failures.is_empty(), "{:?}", run.failures);
        run.done.iter().for_each(|snapshot| run.check(*snapshot).unwrap());
        let in_use = WriterCore::open(Arc::clone(&disk), settings(&run.directory, 1, 0..GROUPS)).unwrap_err();
        assert!(in_use.to_string().contains(&format!("by process {}", std::process::id())), "{in_use}");
        let snapshot = run.snapshot(10);
        for (form, name) in [(ExportForm::Link, "linked"), (ExportForm::Copy, "copied")] {
            let directory = root.path().join(name);
            let events = run.core.handle(Command::Export { snapshot, directory: directory.clone(), form });
            let [Event::Exported { exported, .. }] = &events[..] else { panic!("{events:?}") };
            assert_eq!(exported.bytes_copied == 0, form == ExportForm::Link);
            let restored = restore(&disk, &[manifest_path(&directory, snapshot)], 0..GROUPS).unwrap();
            assert_eq!(restored, run.taken[&snapshot]);
        }
        run.done.clone().into_iter().for_each(|snapshot| run.handle(Command::Release { snapshot }));
    }
}

#[test]
fn a_large_table_comes_back_from_the_real_disk_and_a_flipped_bit_in_it_does_not() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    let mut core = WriterCore::open(Arc::clone(&disk), settings(root.path(), 1, 0..GROUPS)).unwrap();
    let (table, state) = (TableId(1), StateId(0));
    let name = StateName::new("large", "table");
    let blocks: Vec<Vec<u8>> = (0..70_u8).map(|i| vec![i; 256 << 10]).collect();
    let range = |(i, bytes): (usize, &Vec<u8>)| {
        let (memory, to) = (Arc::new(Block::holding(bytes)), bytes.len() as u32);
        SealedRange { table, block: BlockId(i as u64), memory, from: 16, to }
    };
    let declaration = StateDeclaration {
        id: state,
        name: name.clone(),
        keys: "u64".into(),
        values: "u64".into(),
        layout: Layout::Stride { stride: 16, value_at: 8, value_len: 8 },
    };
    let sealed = Sealed {
        states: vec![declaration],
        tables: vec![TableDeclaration { table, state, slice: 0 }],
        ranges: blocks.iter().enumerate().map(range).collect(),
        ..Sealed::default()
    };
    core.handle(Command::Snapshot { snapshot: 1, seal: 1, sealed });
    let manifest = manifest_path(root.path(), 1);
    let parts = Parts::open(Arc::clone(&disk), std::slice::from_ref(&manifest), 0..GROUPS).unwrap();
    let mut reader = parts.reader(&name, 0);
    for block in &blocks {
        assert_eq!(reader.next_piece().unwrap(), Some(Piece::Records(&block[16..])));
    }
    assert_eq!(reader.next_piece().unwrap(), None);
    let file = segment_path(root.path(), 0);
    let mut bytes = std::fs::read(&file).unwrap();
    let flipped = 9 << 20 | 77;
    bytes[flipped] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let mut reader = parts.reader(&name, 0);
    let error = (0..70).find_map(|_| reader.next_piece().err()).unwrap().to_string();
    assert!(error.contains(&format!("at byte {}: the checksum", flipped & !4095)), "{error}");
    std::fs::File::options().write(true).open(&file).unwrap().set_len(10 << 20).unwrap();
    let mut reader = parts.reader(&name, 0);
    assert!((0..70).any(|_| reader.next_piece().is_err()), "cut off after it was opened");
}

#[test]
fn the_thread_answers_in_order_and_finishes_what_it_was_given() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
    let settings = settings(root.path().join("state"), 1, 0..GROUPS);
    let (wake, woken) = std::sync::mpsc::channel();
    let writer = Writer::start(Arc::clone(&disk), settings, move || wake.send(()).unwrap()).unwrap();
    let mut model = Model::new(1, 0..GROUPS);
    let mut taken = Vec::new();
    for snapshot in 1..=8 {
        let (seal, sealed) = model.seal(100);
        taken.push(model.contents());
        assert!(writer.offer(Command::Snapshot { snapshot, seal, sealed }).is_none());
    }
    let first = writer.wait().unwrap();
    assert!(matches!(first, Event::Durable(_)), "{first:?}");
    let rest = writer.stop();
    let done = rest.iter().filter_map(|event| match event {
        Event::SnapshotDone { snapshot, manifest, .. } => Some((*snapshot, manifest)),
        _ => None,
    });
    for ((snapshot, manifest), taken) in done.clone().zip(&taken) {
        assert_eq!(restore(&disk, std::slice::from_ref(manifest), 0..GROUPS).unwrap(), *taken, "{snapshot}");
    }
    assert_eq!(done.map(|(snapshot, _)| snapshot).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(woken.iter().count(), rest.len() + 1);
}
