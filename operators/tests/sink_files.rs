//! File and memory sinks: what was written is there, and an unusable destination is a clear error.
#![allow(clippy::unwrap_used)]

mod source_kit;

use std::{
    fs,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use serde::Serialize;
use source_kit::write;
use tidemill_operators::sink::{
    BlackholeSink, CallbackSink, CollectSink, CsvSink, JsonLinesSink, SinkError, StdoutSink,
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
