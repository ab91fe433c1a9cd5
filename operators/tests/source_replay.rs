//! Sources that are read on from a checkpoint, once or often, at the same and at another parallelism: every record once.
#![allow(clippy::unwrap_used)]

mod source_kit;

use std::{
    fmt::Debug,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use serde::Deserialize;
use source_kit::{Taken, context, drain};
use tempfile::TempDir;
use tidemill_engine::model::{
    checkpoint::{OperatorState, SplitPart, SubtaskState},
    source::{BoxError, Polled, Reader, Source},
};
use tidemill_operators::{
    source::{
        BadRecords, CsvSource, JsonLinesSource, from_generator, from_iter, from_parallel_iter, from_vec,
    },
    testkit::script::ScriptSource,
};
use tidemill_storage::record::{Record, from_bytes, to_bytes};

/// A job between two restarts: its parallelism, and who is polled for how many records.
#[derive(Clone, Debug)]
struct Attempt {
    parallelism: usize,
    polls: Vec<(usize, usize)>,
    /// Whether the process goes on, with the same source.
    same_process: bool,
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let polls = prop::collection::vec((0..8_usize, 1..60_usize), 0..12);
    let attempt = (1..6_usize, polls, any::<bool>());
    let attempt =
        attempt.prop_map(|(parallelism, polls, same_process)| Attempt { parallelism, polls, same_process });
    prop::collection::vec(attempt, 1..5)
}

/// Reads through all attempts, and what is left in one more; returns all that was emitted.
fn read_through<S: Source>(make: impl Fn() -> S, attempts: &[Attempt]) -> Result<Vec<S::Item>, BoxError> {
    let mut records = Vec::new();
    let mut checkpoint: Option<OperatorState> = None;
    let mut source = make();
    let mut prepared_for = None;
    for attempt in attempts {
        // A process has one parallelism.
        let parallelism = match prepared_for.filter(|_| attempt.same_process) {
            Some(parallelism) => parallelism,
            None => {
                source = make();
                source.prepare(attempt.parallelism)?;
                attempt.parallelism
            }
        };
        prepared_for = Some(parallelism);
        let mut readers = open_all(&source, checkpoint.as_ref(), parallelism)?;
        for (subtask, budget) in &attempt.polls {
            let (reader, taken, ended) = &mut readers[subtask % parallelism];
            if !*ended {
                taken.allow(*budget);
                *ended = reader.poll(taken, 0)? == Polled::End;
            }
        }
        let subtasks = readers.iter().map(|(reader, taken, _)| SubtaskState {
            splits: Some(positions(reader, &taken.finished)),
            ..SubtaskState::default()
        });
        checkpoint = Some(OperatorState { name: String::new(), subtasks: subtasks.collect() });
        records.extend(readers.into_iter().flat_map(|(_, taken, _)| taken.records));
    }
    source = make();
    source.prepare(3)?;
    for (mut reader, mut taken, _) in open_all(&source, checkpoint.as_ref(), 3)? {
        drain(&mut reader, &mut taken)?;
        records.extend(taken.records);
    }
    Ok(records)
}

type Opened<S> = (<S as Source>::Reader, Taken<<S as Source>::Item>, bool);

fn open_all<S: Source>(
    source: &S,
    checkpoint: Option<&OperatorState>,
    parallelism: usize,
) -> Result<Vec<Opened<S>>, BoxError> {
    let open = |subtask| {
        let context = context(subtask, parallelism, true);
        let splits = match checkpoint.and_then(|state| state.splits(subtask, parallelism)) {
            Some(parts) => parts.iter().map(|part| from_bytes(&part.bytes).unwrap()).collect(),
            None => source.splits(&context)?,
        };
        let reader = source.open(&context, splits)?;
        Ok((reader, Taken::new(17), false))
    };
    (0..parallelism).map(open).collect()
}

fn positions<R: Reader>(reader: &R, finished: &[usize]) -> Vec<SplitPart> {
    let open = (0..reader.splits()).filter(|split| !finished.contains(split));
    open.map(|split| SplitPart {
        newest: 0,
        schema: R::Split::schema(),
        bytes: to_bytes(&reader.position(split)).unwrap().bytes().to_vec(),
    })
    .collect()
}

fn check<S: Source<Item: Debug + Ord>>(
    make: impl Fn() -> S,
    attempts: &[Attempt],
    mut expected: Vec<S::Item>,
) {
    let mut records = read_through(make, attempts).unwrap();
    records.sort();
    expected.sort();
    assert_eq!(records, expected);
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: u32,
    name: String,
}

fn rows() -> Vec<Row> {
    (0..150).map(|id| Row { id, name: "é".repeat(id as usize % 7) }).collect()
}

fn csv(line_feeds: bool) -> String {
    let name = |row: &Row| if line_feeds { format!("\"{}\n\"", row.name) } else { row.name.clone() };
    let lines = rows().iter().map(|row| format!("{},{}\r\n", row.id, name(row))).collect::<String>();
    format!("\u{feff}id,name\n{}", lines.trim_end_matches("\r\n"))
}

fn place(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    (directory, path)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_vector_is_read_on(attempts in attempts()) {
        check(|| from_vec((0..500_u64).collect()), &attempts, (0..500).collect());
    }

    #[test]
    fn iterators_are_read_on(attempts in attempts()) {
        check(|| from_iter((0..500_u64).filter(|number| number % 3 > 0)), &attempts,
            (0..500).filter(|number| number % 3 > 0).collect());
        // What there is to read depends on the parallelism that the job first started with.
        let first = attempts[0].parallelism as u64;
        let make = |subtask: usize, parallelism: usize| {
            (0..200_u64).map(move |number| number * 10_000 + (subtask * 100 + parallelism) as u64)
        };
        let expected = (0..first as usize).flat_map(|subtask| make(subtask, first as usize));
        check(|| from_parallel_iter(make), &attempts, expected.collect());
    }

    #[test]
    fn generated_records_are_made_on(attempts in attempts()) {
        // Several blocks for each subtask, and the last one not whole.
        check(|| from_generator(7..6_500, |number| number), &attempts, (7..6_500).collect());
        check(|| from_generator(5..5, |number| number), &attempts, Vec::new());
        check(|| from_generator(u64::MAX - 9..u64::MAX, |number| number), &attempts, (u64::MAX - 9..u64::MAX).collect());
    }

    #[test]
    fn a_script_is_read_on(attempts in attempts()) {
        check(|| ScriptSource::dealt(0..300_u64, 4), &attempts, (0..300).collect());
    }

    #[test]
    fn csv_files_are_read_on(attempts in attempts()) {
        let (directory, plain) = place("rows.csv", csv(false));
        let packed = directory.path().join("packed.csv.gz");
        fs::write(&packed, gzip(csv(false).as_bytes())).unwrap();
        let twice = rows().into_iter().chain(rows()).collect();
        check(|| CsvSource::<Row>::new([&plain, &packed]), &attempts, twice);
        let lines = directory.path().join("lines.csv");
        fs::write(&lines, csv(true)).unwrap();
        let with_feeds = rows().into_iter().map(|row| Row { name: format!("{}\n", row.name), ..row });
        check(|| CsvSource::<Row>::new([&lines]).multiline(true), &attempts, with_feeds.collect());
    }

    #[test]
    fn json_lines_are_read_on_and_no_bad_line_is_lost(attempts in attempts()) {
        let long = "x".repeat(3000);
        let line = |row: Row| match row.id % 10 {
            3 => format!("bad {}\n", row.id),
            7 => format!("{long}{}\n", row.id),
            _ => format!("{{\"id\":{},\"name\":\"{}\"}}\n", row.id, row.name),
        };
        let (directory, path) = place("rows.jsonl", rows().into_iter().map(line).collect::<String>());
        let dead = directory.path().join("dead");
        let good = rows().into_iter().filter(|row| row.id % 10 != 3 && row.id % 10 != 7).collect();
        let make = || {
            JsonLinesSource::<Row>::new([&path]).line_bytes_max(1000).on_error(BadRecords::DeadLetter(dead.clone()))
        };
        check(make, &attempts, good);
        // All attempts took a checkpoint behind what they read, so that nothing is there twice either.
        let mut kept: Vec<_> = fs::read_to_string(&dead).unwrap().lines().map(str::to_owned).collect();
        kept.sort();
        let mut expected: Vec<_> = rows().into_iter().filter(|row| matches!(row.id % 10, 3 | 7)).map(line)
            .map(|line| line.trim_end().to_owned()).collect();
        expected.sort();
        prop_assert_eq!(kept, expected);
    }
}

/// The error of reading a file on after `change`.
fn error_after(path: &Path, change: impl Fn()) -> String {
    let mut source = CsvSource::<Row>::new([path]);
    source.prepare(1).unwrap();
    let mut reader = source.open(&context(0, 1, true), source.splits(&context(0, 1, true)).unwrap()).unwrap();
    let mut taken = Taken::new(usize::MAX);
    taken.allow(40);
    reader.poll(&mut taken, 0).unwrap();
    let position = reader.position(0);
    change();
    let opened = source.open(&context(0, 1, true), vec![position]);
    opened.and_then(|mut reader| drain(&mut reader, &mut taken)).unwrap_err().to_string()
}

#[test]
fn a_file_that_has_changed_is_named_with_the_place() {
    let content = csv(false);
    let offset = content.find("\n40,").unwrap() + 1;
    for packed in [false, true] {
        let pack =
            |content: &str| if packed { gzip(content.as_bytes()) } else { content.as_bytes().to_vec() };
        let (_directory, path) = place("rows.csv", pack(&content));
        let named = format!("{} on from byte {offset}", path.display());
        let error = error_after(&path, || fs::write(&path, pack("id,name\n1,a\n")).unwrap());
        assert!(error.contains(&named) && error.contains("shorter"), "{error}");
        fs::write(&path, pack(&content)).unwrap();
        let error = error_after(&path, || fs::remove_file(&path).unwrap());
        assert!(error.contains(&named) && error.contains("no such file"), "{error}");
    }
    let (_directory, path) = place("rows.csv", &content);
    let error = error_after(&path, || fs::write(&path, content.replace("1,é", "1,éé")).unwrap());
    assert!(error.contains("no line ends there"), "{error}");
}

#[test]
fn splits_of_another_file_or_a_longer_vector_are_refused() {
    let (_directory, path) = place("rows.csv", csv(false));
    let source = |path: &Path| {
        let mut source = CsvSource::<Row>::new([path]);
        source.prepare(1).unwrap();
        source
    };
    let splits = source(&path).splits(&context(0, 1, true)).unwrap();
    let (_other_directory, other) = place("other.csv", csv(false));
    let error = source(&other).open(&context(0, 1, true), splits).err().unwrap().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("does not name that file"), "{error}");
    let splits = from_vec(vec![0; 9]).splits(&context(0, 1, true)).unwrap();
    let error = from_vec(vec![0; 8]).open(&context(0, 1, true), splits).err().unwrap().to_string();
    assert!(error.contains("items 0 to 9"), "{error}");
}
