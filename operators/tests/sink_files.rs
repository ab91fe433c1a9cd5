//! File and memory sinks: what was written is there, and an unusable destination is a clear error.
#![allow(clippy::unwrap_used)]

mod source_kit;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use serde::Serialize;
use source_kit::{context, write};
use tidemill_engine::model::{
    checkpoint::Committable,
    sink::{CommitContext, Committer, Sink, SinkWriter},
    source::{BoxError, SubtaskContext},
};
use tidemill_operators::sink::{
    BlackholeSink, CallbackSink, CollectSink, CsvSink, JsonLinesSink, SinkError, StdoutSink,
};
use tidemill_storage::snapshot::disk::{
    Disk,
    memory::{Faults, MemoryDisk},
};

#[derive(Clone, Debug, Serialize)]
struct Row {
    id: u32,
    name: String,
    delay: Option<f64>,
}

fn rows(count: u32) -> impl Iterator<Item = Row> {
    (0..count).map(|id| Row { id, name: "a,\"b\"".into(), delay: (id != 0).then_some(0.5) })
}

#[test]
fn csv_goes_to_one_file_or_to_a_part_per_subtask() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.csv");
    fs::write(&path, "something older and longer than the result").unwrap();
    write(CsvSink::file(&path), 1, rows(2)).unwrap();
    let expected = "id,name,delay\n0,\"a,\"\"b\"\"\",\n1,\"a,\"\"b\"\"\",0.5\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    write(CsvSink::file(&path).columns(["n"]).delimiter(b'\t'), 1, Vec::<u32>::new()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "n\n");
    write(CsvSink::file(&path).header(false), 1, [(1, 2), (3, 4)]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1,2\n3,4\n");

    let parts = directory.path().join("parts");
    write(CsvSink::directory(&parts), 3, rows(3)).unwrap();
    assert_eq!(
        fs::read_to_string(parts.join("part-1.csv")).unwrap(),
        "id,name,delay\n1,\"a,\"\"b\"\"\",0.5\n"
    );
    let error = write(CsvSink::directory(&parts), 2, rows(3)).unwrap_err().to_string();
    assert!(error.contains("part-2.csv is left"), "{error}");
}

#[test]
fn json_lines_go_to_one_file_or_to_a_part_per_subtask() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.jsonl");
    write(JsonLinesSink::file(&path), 1, rows(1)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"id\":0,\"name\":\"a,\\\"b\\\"\",\"delay\":null}\n");
    write(JsonLinesSink::directory(directory.path()), 2, rows(50_000)).unwrap();
    let lines = |part| fs::read_to_string(directory.path().join(part)).unwrap().lines().count();
    assert_eq!((lines("part-0.jsonl"), lines("part-1.jsonl")), (25_000, 25_000));
}

/// A process: the committer has recovered, and the writers are open.
struct Process<S: Sink<Row>> {
    sink: S,
    disk: Arc<dyn Disk>,
    committer: Box<dyn Committer>,
    writers: Vec<S::Writer>,
}

impl<S: Sink<Row>> Process<S> {
    /// Begins with what a checkpoint has of the sink.
    fn begin(sink: S, subtasks: usize, checkpoint: &[Committable]) -> Result<Self, BoxError> {
        Self::begin_on(context(0, 1, false).disk, sink, subtasks, checkpoint)
    }

    fn begin_on(
        disk: Arc<dyn Disk>,
        mut sink: S,
        subtasks: usize,
        checkpoint: &[Committable],
    ) -> Result<Self, BoxError> {
        sink.prepare(subtasks)?;
        let (job, operator, connections) = ("job".into(), "sink".into(), Arc::default());
        let place = CommitContext { job, operator, disk: Arc::clone(&disk), connections };
        let committer = sink.committer(&place)?.unwrap();
        let mut process = Self { sink, disk, committer, writers: Vec::new() };
        process.go_on(subtasks, checkpoint)?;
        Ok(process)
    }

    /// Begins another attempt; from nothing without committables.
    fn go_on(&mut self, subtasks: usize, checkpoint: &[Committable]) -> Result<(), BoxError> {
        self.writers.clear();
        if checkpoint.is_empty() {
            self.committer.begin_anew()?;
        }
        self.go_on_from(subtasks, checkpoint)
    }

    /// Begins another attempt, from a checkpoint that has these.
    fn go_on_from(&mut self, subtasks: usize, checkpoint: &[Committable]) -> Result<(), BoxError> {
        self.committer.recover(checkpoint)?;
        for subtask in 0..subtasks {
            let place = SubtaskContext { disk: Arc::clone(&self.disk), ..context(subtask, subtasks, false) };
            self.writers.push(self.sink.open(&place)?);
        }
        Ok(())
    }

    fn write(&mut self, ids: std::ops::Range<u32>) {
        for row in rows(ids.end).skip(ids.start as usize) {
            let subtask = row.id as usize % self.writers.len();
            self.writers[subtask].write(row, 0).unwrap();
        }
        self.writers.iter_mut().for_each(|writer| writer.flush().unwrap());
    }

    /// What the writers prepare for a checkpoint.
    fn prepare(&mut self) -> Result<Vec<Committable>, BoxError> {
        let prepared: Result<Vec<_>, _> =
            self.writers.iter_mut().map(|writer| writer.pre_commit(1)).collect();
        Ok(prepared?.concat())
    }

    /// Completes a checkpoint; returns what it has.
    fn checkpoint(&mut self) -> Vec<Committable> {
        let prepared = self.prepare().unwrap();
        self.committer.secure(&prepared).unwrap();
        self.committer.commit(&prepared).unwrap();
        prepared
    }
}

/// Has a process write, and die with half a row behind what its checkpoint has; the next one goes on.
fn goes_on<S: Sink<Row>>(sink: impl Fn() -> S, path: &Path) {
    fs::write(path, "something older").unwrap();
    let mut first = Process::begin(sink(), 1, &[]).unwrap();
    // Nothing was written yet: it is no fresh start all the same.
    let empty = first.checkpoint();
    first.write(0..3);
    drop(first);
    let mut second = Process::begin(sink(), 1, &empty).unwrap();
    second.write(0..5);
    let earlier = second.checkpoint();
    second.write(5..6);
    // A checkpoint that was carried over has the earlier length, too.
    let later = [second.checkpoint(), earlier].concat();
    second.write(6..9);
    drop(second);
    let mut torn = fs::OpenOptions::new().append(true).open(path).unwrap();
    torn.write_all(b"9,\"a,\n").unwrap();
    let mut third = Process::begin(sink(), 1, &later).unwrap();
    third.write(6..20);
    third.writers[0].finish().unwrap();
    let all = fs::read_to_string(path).unwrap();
    // As it is when nothing fails.
    write(sink(), 1, rows(20)).unwrap();
    assert_eq!(all, fs::read_to_string(path).unwrap());
}

#[test]
fn a_file_goes_on_where_the_checkpoint_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    goes_on(|| CsvSink::file(&path), &path);
    goes_on(|| CsvSink::file(&path).columns(["a", "b", "c"]), &path);
    goes_on(|| CsvSink::file(&path).header(false), &path);
    goes_on(|| JsonLinesSink::file(&path), &path);
}

#[test]
fn parts_go_on_where_the_checkpoint_was_with_more_subtasks_and_with_fewer() {
    let directory = tempfile::tempdir().unwrap();
    let sink = || CsvSink::directory(directory.path()).header(false);
    let mut first = Process::begin(sink(), 2, &[]).unwrap();
    first.write(0..10);
    let checkpoint = first.checkpoint();
    first.write(10..20);
    drop(first);
    // With more, one of which no checkpoint has known when it dies.
    let mut second = Process::begin(sink(), 3, &checkpoint).unwrap();
    second.write(10..30);
    drop(second);
    let mut third = Process::begin(sink(), 1, &checkpoint).unwrap();
    third.write(10..40);
    drop(third);
    let parts = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let text: String = parts.map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut ids = ids(&text);
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<_>>());
    // A fresh start does not mix its result with that.
    let error = Process::begin(sink(), 1, &[]).err().unwrap().to_string();
    assert!(error.contains("part-1.csv is left"), "{error}");
    // Nor is it taken for another sink's.
    let other = br#"{"name":"part-1-0-0.csv","bytes":7}"#.to_vec();
    let error = Process::begin(sink(), 1, &[other]).err().unwrap().to_string();
    assert!(error.contains("another sink"), "{error}");
}

/// The ids of rows in CSV without a header.
fn ids(text: &str) -> Vec<u32> {
    text.lines().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_file_that_could_not_be_made_durable_is_not_believed_until_it_is_written_anew() {
    let (memory, path) = (MemoryDisk::default(), Path::new("/out"));
    let disk: Arc<dyn Disk> = Arc::new(memory.clone());
    let mut process = Process::begin_on(disk, CsvSink::file(path).header(false), 1, &[]).unwrap();
    process.write(0..10);
    let complete = process.checkpoint();
    process.write(10..20);
    let prepared = process.prepare().unwrap();
    memory.set_faults(Faults { fail_at: Some(0), ..Faults::default() });
    assert!(process.committer.secure(&prepared).is_err());
    // The disk works again, and would say so of what it has lost.
    let told = |result: Result<(), BoxError>| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("could not be made durable before") && error.contains("/out"), "{error}");
    };
    told(process.committer.secure(&prepared));
    // So the job fails at the next barrier, and goes on from the last checkpoint.
    process.write(20..30);
    told(process.prepare().map(drop));
    process.go_on(1, &complete).unwrap();
    process.write(10..40);
    process.checkpoint();
    memory.crash(1);
    let text = String::from_utf8(memory.contents(path).unwrap()).unwrap();
    assert_eq!(ids(&text), (0..40).collect::<Vec<_>>());
}

#[test]
fn a_file_that_goes_while_it_is_written_fails_the_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let mut process = Process::begin(JsonLinesSink::file(&path), 1, &[]).unwrap();
    process.write(0..10);
    process.checkpoint();
    // As a rotation of logs does it.
    fs::rename(&path, directory.path().join("out.1")).unwrap();
    process.write(10..20);
    let prepared = process.prepare().unwrap();
    let error = process.committer.secure(&prepared).unwrap_err().to_string();
    assert!(error.contains("it is not there"), "{error}");
    fs::write(&path, "").unwrap();
    let error = process.committer.secure(&prepared).unwrap_err().to_string();
    assert!(error.contains("it has 0"), "{error}");
}

#[test]
fn a_file_is_found_where_it_was_moved_to_and_begun_where_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let sink = |name: &str| CsvSink::file(at(name)).header(false);
    let written = |name: &str| ids(&fs::read_to_string(at(name)).unwrap());
    let mut first = Process::begin(sink("first"), 1, &[]).unwrap();
    first.write(0..10);
    let checkpoint = first.checkpoint();
    first.write(10..20);
    drop(first);
    fs::copy(at("first"), at("moved")).unwrap();
    let mut moved = Process::begin(sink("moved"), 1, &checkpoint).unwrap();
    moved.write(10..30);
    moved.checkpoint();
    assert_eq!(written("moved"), (0..30).collect::<Vec<_>>());
    // Attempts that die before the first checkpoint, with fewer rows than are known elsewhere and with more.
    let mut fork = Process::begin(sink("fork"), 1, &checkpoint).unwrap();
    for end in [12, 50, 15] {
        fork.write(10..end);
        fork.go_on(1, &checkpoint).unwrap();
        assert!(written("fork").is_empty());
    }
    fork.write(10..30);
    drop(fork);
    // Another process finds the mark; without, it does not guess.
    let mut fork = Process::begin(sink("fork"), 1, &checkpoint).unwrap();
    assert!(written("fork").is_empty());
    fork.write(10..30);
    let mark = at(".fork.tidemill-begun");
    let marked = fs::read(&mark).unwrap();
    fs::remove_file(&mark).unwrap();
    let error = Process::begin(sink("fork"), 1, &checkpoint).err().unwrap().to_string();
    assert!(error.contains("make it an empty file"), "{error}");
    fs::write(&mark, marked).unwrap();
    let checkpoint = fork.checkpoint();
    assert!(!mark.exists());
    fork.write(30..40);
    fork.go_on(1, &checkpoint).unwrap();
    assert_eq!(written("fork"), (10..30).collect::<Vec<_>>());
    // Emptied on purpose, and then the process dies before its first checkpoint.
    fs::write(at("fork"), "").unwrap();
    for end in [35, 90] {
        Process::begin(sink("fork"), 1, &checkpoint).unwrap().write(30..end);
    }
    let mut last = Process::begin(sink("fork"), 1, &checkpoint).unwrap();
    last.write(30..40);
    last.checkpoint();
    assert_eq!(written("fork"), (30..40).collect::<Vec<_>>());
}

#[test]
fn rows_of_which_a_checkpoint_knows_nothing_are_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let sink = || CsvSink::file(&path).header(false);
    let mut first = Process::begin(sink(), 1, &[]).unwrap();
    first.write(0..10);
    let checkpoint = first.checkpoint();
    let old = fs::read(&path).unwrap();
    // The sink has another id now, or the savepoint was taken without it.
    let error = first.go_on_from(1, &[]).unwrap_err().to_string();
    assert!(error.contains("knows nothing of them"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), old);
    // Where there are none it begins, and knows its own again when it dies before its first checkpoint.
    fs::write(&path, "").unwrap();
    for end in [12, 30] {
        first.writers.clear();
        first.go_on_from(1, &[]).unwrap();
        first.write(10..end);
    }
    // A file that was begun, and then put back, is what the checkpoint knows.
    first.writers.clear();
    fs::write(&path, "").unwrap();
    first.go_on(1, &checkpoint).unwrap();
    first.write(10..12);
    fs::write(&path, &old).unwrap();
    first.go_on(1, &checkpoint).unwrap();
    first.write(10..20);
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_part_without_rows_need_not_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let sink = |name: &str| JsonLinesSink::directory(directory.path().join(name));
    let mut first = Process::begin(sink("first"), 4, &[]).unwrap();
    first.write(0..2);
    let checkpoint = first.checkpoint();
    // A fork elsewhere, with fewer subtasks: its checkpoints do not ask for the parts that have no rows.
    let mut fork = Process::begin(sink("fork"), 2, &checkpoint).unwrap();
    fork.write(2..6);
    let forked = fork.checkpoint();
    let mut fork = Process::begin(sink("fork"), 1, &forked).unwrap();
    fork.write(6..8);
    fork.checkpoint();
    // One that dies before its first checkpoint knows its own again, and touches no others'.
    for end in [10, 30] {
        Process::begin(sink("wide"), 4, &checkpoint).unwrap().write(2..end);
    }
    fs::create_dir(directory.path().join("taken")).unwrap();
    let others = directory.path().join("taken/part-3.jsonl");
    fs::write(&others, "others'\n").unwrap();
    let error = Process::begin(sink("taken"), 4, &checkpoint).err().unwrap().to_string();
    assert!(error.contains("part-3.jsonl: it has 8 bytes") && error.contains("knows nothing"), "{error}");
    assert_eq!(fs::read_to_string(&others).unwrap(), "others'\n");
    // Nor are they asked for where they were.
    for part in 2..4 {
        fs::remove_file(directory.path().join(format!("first/part-{part}.jsonl"))).unwrap();
    }
    let mut fewer = Process::begin(sink("first"), 1, &checkpoint).unwrap();
    fewer.write(2..6);
    fewer.checkpoint();
}

#[test]
fn parts_are_known_again_wherever_the_first_process_died_and_the_power_is_cut_behind_the_second() {
    let sink = || CsvSink::directory("/out").header(false);
    for (fail_at, seed) in (0..10).flat_map(|fail_at| (0..16).map(move |seed| (fail_at, seed))) {
        let memory = MemoryDisk::default();
        let disk = || Arc::new(memory.clone()) as Arc<dyn Disk>;
        memory.set_faults(Faults { dead_from: Some(fail_at), ..Faults::default() });
        drop(Process::begin_on(disk(), sink(), 1, &[]));
        memory.end_process();
        let mut second = Process::begin_on(disk(), sink(), 3, &[]).unwrap();
        second.write(0..30);
        memory.crash(seed);
        let third = Process::begin_on(disk(), sink(), 1, &[]);
        assert!(third.is_ok(), "died at {fail_at}, under seed {seed}: {}", third.err().unwrap());
    }
}

#[test]
fn parts_of_a_fork_are_begun_in_an_empty_directory_and_others_are_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let sink = |name: &str| JsonLinesSink::directory(directory.path().join(name));
    let part = |name: &str, part| directory.path().join(name).join(format!("part-{part}.jsonl"));
    let mut first = Process::begin(sink("first"), 3, &[]).unwrap();
    first.write(0..30);
    let checkpoint = first.checkpoint();
    let mut fork = Process::begin(sink("fork"), 1, &checkpoint).unwrap();
    fork.write(30..40);
    drop(fork);
    let mut fork = Process::begin(sink("fork"), 2, &checkpoint).unwrap();
    assert_eq!(fs::metadata(part("fork", 0)).unwrap().len(), 0);
    fork.write(30..40);
    let names = |committables: &[Committable]| {
        let text = |committable: &Committable| String::from_utf8(committable.clone()).unwrap();
        committables.iter().map(text).collect::<Vec<_>>()
    };
    let named = names(&fork.checkpoint());
    assert!(named.len() == 2 && named.iter().all(|own| own.contains("fork")), "{named:?}");
    fs::create_dir(directory.path().join("taken")).unwrap();
    fs::write(part("taken", 7), "others'\n").unwrap();
    let error = Process::begin(sink("taken"), 1, &checkpoint).err().unwrap().to_string();
    assert!(error.contains("part-7.jsonl: it has 8 bytes") && error.contains("knows nothing"), "{error}");
    assert_eq!(fs::read_to_string(part("taken", 7)).unwrap(), "others'\n");
}

#[test]
fn a_pipe_or_device_is_written_to_and_never_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let reader = std::thread::spawn({
        let path = path.clone();
        move || fs::read_to_string(path).unwrap()
    });
    let mut process = Process::begin(CsvSink::file(&path).header(false), 1, &[]).unwrap();
    process.write(0..3);
    assert!(process.checkpoint().is_empty());
    process.write(3..5);
    drop(process);
    assert_eq!(ids(&reader.join().unwrap()), [0, 1, 2, 3, 4]);
    // Where there was a file, as behind a link.
    let known = br#"{"part":0,"bytes":7,"path":"/dev/null"}"#.to_vec();
    let mut process = Process::begin(CsvSink::file("/dev/null"), 1, &[known]).unwrap();
    process.write(0..3);
    assert!(process.checkpoint().is_empty());
    assert!(!Path::new("/dev/.null.tidemill-begun").exists());
}

#[test]
fn parts_of_a_start_without_a_checkpoint_are_known_again_and_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let sink = || CsvSink::directory(directory.path()).header(false);
    let mut first = Process::begin(sink(), 3, &[]).unwrap();
    first.write(0..30);
    drop(first);
    let mut second = Process::begin(sink(), 1, &[]).unwrap();
    second.write(0..20);
    let text = |part| fs::read_to_string(directory.path().join(format!("part-{part}.csv"))).unwrap();
    assert_eq!((ids(&text(0)), text(1), text(2)), ((0..20).collect(), String::new(), String::new()));
    // Of another job, or of this one when it has come further.
    fs::write(directory.path().join("part-1.csv"), "others'\n").unwrap();
    second.checkpoint();
    let error = Process::begin(sink(), 1, &[]).err().unwrap().to_string();
    assert!(error.contains("part-1.csv is left") && text(1) == "others'\n", "{error}");
}

#[test]
fn unusable_destinations_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let file = here.join("file");
    fs::write(&file, "").unwrap();
    let told = |error: Box<dyn std::error::Error + Send + Sync>, parts: &[&str]| {
        let error = error.to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    told(write(CsvSink::file(here), 1, rows(1)).unwrap_err(), &["directory", here.to_str().unwrap()]);
    told(
        write(JsonLinesSink::file(here.join("no/out")), 1, rows(1)).unwrap_err(),
        &["does not exist", "no/out"],
    );
    told(write(CsvSink::file(file.join("out")), 1, rows(1)).unwrap_err(), &["not a directory", "file"]);
    told(write(JsonLinesSink::directory(&file), 1, rows(1)).unwrap_err(), &["not a directory", "file"]);
    told(write(CsvSink::directory(here.join("no/parts")), 1, rows(1)).unwrap_err(), &["does not exist"]);
    told(write(CsvSink::file(&file), 2, rows(1)).unwrap_err(), &[".global()", "2 subtasks"]);
    // Written at the end, and when the buffer is full.
    for count in [1, 100_000] {
        told(write(CsvSink::file("/dev/full"), 1, rows(count)).unwrap_err(), &["disk is full", "/dev/full"]);
        told(write(JsonLinesSink::file("/dev/full"), 1, rows(count)).unwrap_err(), &["disk is full"]);
    }
    told(write(CsvSink::file("/proc/out"), 1, rows(1)).unwrap_err(), &["/proc/out"]);
    let map = std::collections::BTreeMap::from([("k", 1)]);
    told(write(CsvSink::file(&file), 1, [map]).unwrap_err(), &["cannot write a record", "file"]);
    let keys = std::collections::BTreeMap::from([(vec![1], 1)]);
    told(write(JsonLinesSink::file(&file), 1, [keys]).unwrap_err(), &["cannot write a record", "file"]);
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Failing(io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn stdout_gets_lines_and_a_closed_pipe_is_told_apart() {
    let shared = Shared::default();
    let output = shared.clone();
    write(StdoutSink::display().to(move || Box::new(output.clone())), 2, [1, 2, 3]).unwrap();
    assert_eq!(*shared.0.lock().unwrap(), b"1\n3\n2\n");
    let closed = StdoutSink::debug().to(|| Box::new(Failing(io::ErrorKind::BrokenPipe)));
    let error = write(closed, 1, ["x"]).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(SinkError::StdoutClosed)));
    let full = StdoutSink::debug().to(|| Box::new(Failing(io::ErrorKind::StorageFull)));
    assert!(matches!(write(full, 1, ["x"]).unwrap_err().downcast_ref(), Some(SinkError::Stdout { .. })));
}

#[test]
fn records_are_collected_called_back_and_counted() {
    let (sink, collected) = CollectSink::new();
    write(sink, 2, 0..5).unwrap();
    assert_eq!(collected.clone().take_by_subtask(), [vec![0, 2, 4], vec![1, 3]]);
    assert!(collected.take().is_empty());

    let (sender, receiver) = std::sync::mpsc::channel();
    write(CallbackSink::new(move |number: u32| sender.send(number).unwrap()), 2, 0..4).unwrap();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    let refusing = CallbackSink::fallible(|number: u32, timestamp| match number {
        2 => Err(format!("no {timestamp}").into()),
        _ => Ok(()),
    });
    assert_eq!(write(refusing, 1, 0..4).unwrap_err().to_string(), "no 2");

    let sink = BlackholeSink::new();
    let count = sink.count();
    write(sink, 3, 0..1000).unwrap();
    assert_eq!(count.records(), 1000);
}
