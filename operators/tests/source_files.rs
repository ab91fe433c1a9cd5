//! File sources: every record once at any parallelism, budget and mode; every bad input as its setting says.
#![allow(clippy::unwrap_used)]

mod source_kit;

use std::{fs, io::Write, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use serde::Deserialize;
use source_kit::{failure, read};
use tempfile::TempDir;
use tidemill_operators::source::{BadRecords, CsvSource, JsonLinesSource};

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Row {
    id: u32,
    name: String,
    delay: Option<f64>,
}

fn row(id: u32) -> Row {
    let delay = (!id.is_multiple_of(3)).then_some(f64::from(id) / 2.0);
    Row { id, name: format!("name {}", "x".repeat(id as usize % 13)), delay }
}

/// Rows with a column that `Row` does not have, in another order than its fields.
fn csv(ids: std::ops::Range<u32>) -> String {
    let mut text = String::from("name,unused,id,delay\n");
    for row in ids.map(row) {
        let delay = row.delay.map_or("NA".into(), |delay| delay.to_string());
        text += &format!("{},ignored,{},{delay}\n", row.name, row.id);
    }
    text
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

fn rows(path: &PathBuf) -> CsvSource<Row> {
    CsvSource::new([path]).null_text("NA")
}

#[test]
fn every_row_is_read_once_at_any_parallelism_and_budget() {
    let (_directory, path) = place("rows.csv", csv(0..500));
    let expected: Vec<Row> = (0..500).map(row).collect();
    for inline in [true, false] {
        for parallelism in [1, 2, 3, 8, 61] {
            for budget in [1, 7, usize::MAX] {
                let read = read(rows(&path), parallelism, budget, inline).unwrap();
                let sizes: Vec<usize> = read.by_subtask.iter().map(Vec::len).collect();
                assert!(sizes.iter().all(|size| size.abs_diff(500 / parallelism) < 60), "{sizes:?}");
                assert_eq!(read.all(), expected);
            }
        }
    }
}

#[test]
fn plain_and_packed_files_with_other_column_orders_are_read_together() {
    let (directory, first) = place("a.csv", csv(0..100));
    let packed = directory.path().join("b.csv.gz");
    fs::write(&packed, [gzip(csv(100..150).as_bytes()), gzip(b"last,z,999,\n")].concat()).unwrap();
    let other = directory.path().join("c.csv");
    fs::write(&other, "id,delay,name\r\n1000,0.5,\"a, \"\"b\"\"\"\r\n\r\n1001,,é").unwrap();
    let empty = directory.path().join("d.csv");
    fs::write(&empty, "").unwrap();
    for parallelism in [1, 2, 5] {
        let source = CsvSource::<Row>::new([&first, &packed, &other, &empty]).null_text("NA");
        let mut rows = read(source, parallelism, 3, false).unwrap().all();
        rows.sort_by_key(|row| row.id);
        let mut expected: Vec<Row> = (0..150).map(row).collect();
        expected.push(Row { id: 999, name: "last".into(), delay: None });
        expected.push(Row { id: 1000, name: "a, \"b\"".into(), delay: Some(0.5) });
        expected.push(Row { id: 1001, name: "é".into(), delay: None });
        assert_eq!(rows, expected);
    }
}

#[test]
fn records_without_header_are_read_by_position() {
    let (_directory, path) = place("rows.tsv", "\u{feff}1\tone\t0.5\n2\ttwo\t\n");
    let source = CsvSource::<(u32, String, Option<f64>)>::new([&path]).header(false).delimiter(b'\t');
    let tuples = read(source, 2, 1, true).unwrap().all();
    assert_eq!(tuples, [(1, "one".into(), Some(0.5)), (2, "two".into(), None)]);
    let source = CsvSource::<Row>::new([&path]).header(false).delimiter(b'\t');
    assert_eq!(read(source, 1, 1, true).unwrap().all()[1].name, "two");
}

#[test]
fn maps_enums_and_flattened_structs_are_decoded() {
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Color {
        Red,
        Blue,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    struct Inner {
        x: i8,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    struct Outer {
        color: Color,
        #[serde(flatten)]
        inner: Inner,
        #[serde(default)]
        absent: u8,
    }
    let (_directory, path) = place("rows.csv", "color,x\nred,-1\nblue,7\n");
    let outer = read(CsvSource::<Outer>::new([&path]), 1, 9, true).unwrap().all();
    assert_eq!(outer[0], Outer { color: Color::Red, inner: Inner { x: -1 }, absent: 0 });
    assert_eq!(outer[1].color, Color::Blue);
    let maps = CsvSource::<std::collections::BTreeMap<String, String>>::new([&path]);
    assert_eq!(read(maps, 1, 9, true).unwrap().all()[1]["color"], "blue");
}

#[test]
fn multiline_fields_are_read_when_asked_for_and_bad_records_otherwise() {
    let (_directory, path) = place("rows.csv", "id,name,delay\n1,\"two\nlines\",\n2,b,x\n");
    let source = || CsvSource::<Row>::new([&path]);
    let read_rows = read(source().multiline(true).on_error(BadRecords::Skip), 3, 1, false).unwrap();
    assert_eq!(read_rows.skipped, 1);
    assert_eq!(read_rows.all(), [Row { id: 1, name: "two\nlines".into(), delay: None }]);
    let error = failure(source());
    assert!(error.contains("byte 14 (line 2)") && error.contains("multiline(true)"), "{error}");
    let error = failure(source().multiline(true));
    assert!(error.contains("byte 29 (line 4)"), "{error}");
}

const BAD: &[u8] = b"id,name,delay\n1,a,0.5\n2,b,fast\n3,\xff,1\n4,d\n5,e,1,1\n6,f,\n-7,g,\n8,\"open,\n9,i,2";
const BAD_LINES: &[u8] = b"2,b,fast\n3,\xff,1\n4,d\n5,e,1,1\n-7,g,\n8,\"open,\n";

#[test]
fn a_bad_row_fails_with_file_place_and_reason() {
    for (content, parts) in [
        (&b"id,name,delay\n1,a,0.5\n2,b,fast\n"[..], &["byte 22 (line 3)", "column `delay`", "fast"][..]),
        (b"id,name,delay\n3,\xff,1\n", &["byte 14 (line 2)", "UTF-8", "\\xff"]),
        (b"id,name,delay\n4,d\n", &["2 fields, not 3"]),
        (b"id,name,delay\n4,d,1,1\n", &["4 fields, not 3"]),
        (b"id,name,delay\n-4,d,1\n", &["column `id`", "`-4` is no u32"]),
    ] {
        let (_directory, path) = place("bad.csv", content);
        let plain = failure(rows(&path));
        fs::write(&path, gzip(content)).unwrap();
        // The number of the line is counted in one way for plain and in another for packed files.
        for error in [plain, failure(rows(&path))] {
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            for part in parts {
                assert!(error.contains(part), "{part} in {error}");
            }
        }
    }
}

#[test]
fn bad_rows_are_skipped_and_counted_or_kept_with_bytes_intact() {
    let (directory, path) = place("bad.csv", BAD);
    for parallelism in [1, 2, 5] {
        for inline in [true, false] {
            let read_rows = read(rows(&path).on_error(BadRecords::Skip), parallelism, 1, inline).unwrap();
            assert_eq!(read_rows.skipped, 6);
            assert_eq!(read_rows.all().iter().map(|row| row.id).collect::<Vec<_>>(), [1, 6, 9]);

            let dead = directory.path().join(format!("dead-{parallelism}-{inline}"));
            let source = rows(&path).on_error(BadRecords::DeadLetter(dead.clone()));
            assert_eq!(read(source, parallelism, 1, inline).unwrap().skipped, 6);
            assert_eq!(fs::read(&dead).unwrap(), BAD_LINES);
        }
    }
}

#[test]
fn a_line_above_the_bound_is_a_bad_record() {
    let long = [b"7,".to_vec(), vec![b'x'; 1 << 20], b",1\n".to_vec()].concat();
    let content = [&b"id,name,delay\n1,a,0.5\n"[..], &long, b"2,b,1\n"].concat();
    let (directory, path) = place("long.csv", &content);
    for bound in [1000, 600 << 10] {
        let dead = directory.path().join(format!("dead-{bound}"));
        let source = rows(&path).line_bytes_max(bound).on_error(BadRecords::DeadLetter(dead.clone()));
        let read_rows = read(source, 1, 9, false).unwrap();
        assert_eq!((read_rows.skipped, read_rows.by_subtask[0].len()), (1, 2));
        assert_eq!(fs::read(&dead).unwrap(), long);
        let error = failure(rows(&path).line_bytes_max(bound));
        assert!(error.contains("byte 22 (line 3): it is longer than"), "{error}");
    }
}

#[test]
fn a_column_that_is_missing_fails_whatever_the_setting() {
    let (_directory, path) = place("rows.csv", "id,delay\n1,2\n");
    let error = failure(rows(&path).on_error(BadRecords::Skip));
    assert!(error.contains("no column `name`") && error.contains("id, delay"), "{error}");
}

#[test]
fn unusable_files_are_clear_errors() {
    let (directory, path) = place("rows.csv", csv(0..1));
    let missing = directory.path().join("missing.csv");
    assert!(failure(rows(&missing)).contains("there is no such file"));
    assert!(failure(rows(&directory.path().to_path_buf())).contains("it is a directory"));
    assert!(failure(CsvSource::<Row>::new(Vec::<PathBuf>::new())).contains("no file"));
    let dead = BadRecords::DeadLetter(directory.path().join("no/dead"));
    assert!(failure(rows(&path).on_error(dead)).contains("does not exist"));
    let dead = BadRecords::DeadLetter("/dev/full".into());
    fs::write(&path, BAD).unwrap();
    assert!(failure(rows(&path).on_error(dead)).contains("disk is full"));
    fs::write(&path, b"a,\xff\n").unwrap();
    assert!(failure(rows(&path)).contains("header"));
    let mut torn = gzip(csv(0..1000).as_bytes());
    torn.truncate(torn.len() / 2);
    fs::write(&path, torn).unwrap();
    let error = failure(rows(&path));
    assert!(error.contains("failed after byte") && error.contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn json_lines_are_read_at_any_parallelism_and_bad_ones_told() {
    let good: String = (0..100)
        .map(|id| format!("{{\"id\":{id},\"name\":\"n\\n{id}\",\"delay\":null,\"other\":[1]}}\r\n"))
        .collect();
    let (directory, path) = place("rows.jsonl", format!("\u{feff}{good}\n  \n"));
    let source = || JsonLinesSource::<Row>::new([&path]);
    for parallelism in [1, 2, 7] {
        let read_rows = read(source(), parallelism, 3, false).unwrap().all();
        assert_eq!(read_rows.iter().map(|row| row.id).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert_eq!(read_rows[4].name, "n\n4");
    }
    fs::write(&path, gzip(good.as_bytes())).unwrap();
    assert_eq!(read(source(), 3, 3, true).unwrap().all().len(), 100);

    let bad = &b"{\"id\":1,\"name\":}\nnull\n{\"id\":1,\"name\":\"\xff\"}\n"[..];
    fs::write(&path, [bad, good.as_bytes()].concat()).unwrap();
    let error = failure(source());
    assert!(error.contains("byte 0 (line 1): expected value at column 16"), "{error}");
    assert_eq!(read(source().on_error(BadRecords::Skip), 2, 3, true).unwrap().skipped, 3);
    let dead = directory.path().join("dead");
    let kept = source().on_error(BadRecords::DeadLetter(dead.clone()));
    assert_eq!(read(kept, 2, 3, true).unwrap().all().len(), 100);
    assert_eq!(fs::read(dead).unwrap(), bad);
}
