//! Spans read every line exactly once, whatever the cuts; bounds hold; errors name the path.

use std::{io::Write, sync::Arc};

use flate2::{Compression, write::GzEncoder};

use super::*;

struct NoWake;

impl crate::platform::Wake for NoWake {
    fn wake(&self) {}
}

fn threaded() -> FileAccess {
    FileAccess::Threaded(IoThreads::new().unwrap(), Arc::new(NoWake))
}

const SMALL: Limits = Limits { chunk_bytes: 7, line_bytes_max: 1 << 20, eager: false };

/// Reads spans to the end: per chunk its span, offset, bytes and kind.
fn read(
    spans: Vec<FileSpan>,
    framing: Framing,
    limits: Limits,
    access: FileAccess,
) -> Result<Vec<(u64, Vec<u8>, Piece)>, FileError> {
    let mut lines = FileLines::open(spans, framing, limits, access, "test");
    let mut chunks = Vec::new();
    loop {
        match lines.poll()? {
            Next::Chunk(chunk) => {
                chunks.push((chunk.offset, chunk.text.as_bytes().to_vec(), chunk.piece));
                lines.recycle(chunk);
            }
            Next::Pending => std::thread::yield_now(),
            Next::SpanEnd(_) => {}
            Next::End => return Ok(chunks),
        }
    }
}

fn file(content: &[u8]) -> (tempfile::TempDir, Arc<Path>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    fs::write(&path, content).unwrap();
    (directory, path.into())
}

fn span(path: &Arc<Path>, start: u64, end: Option<u64>) -> FileSpan {
    FileSpan { path: path.clone(), start, end, at_line_start: start == 0, gzip: false }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_cut_reads_every_line_once_and_at_its_offset() {
    for content in [&b"a\nbb\n\nccc\r\ndddddddddddddd\ne\n"[..], b"a\nbb\nlast line", b"\n\n\n", b"x", b""] {
        let (_directory, path) = file(content);
        let size = content.len() as u64;
        for first in 0..=size {
            for second in first..=size {
                let spans = [span(&path, 0, Some(first)), span(&path, first, Some(second))]
                    .into_iter()
                    .chain([span(&path, second, Some(size))]);
                let mut joined = Vec::new();
                for span in spans {
                    for (offset, bytes, piece) in
                        read(vec![span], Framing::Lines, SMALL, FileAccess::Inline).unwrap()
                    {
                        assert_eq!(piece, Piece::Lines);
                        assert_eq!(offset, joined.len() as u64, "cut at {first} and {second}");
                        joined.extend(bytes);
                    }
                }
                assert_eq!(joined, content, "cut at {first} and {second}");
            }
        }
    }
}

#[test]
fn chunks_end_at_line_ends_and_are_the_same_read_ahead_and_inline() {
    let (_directory, path) = file(b"one\ntwo\nthree\nfour\nthe longest of them all\nsix");
    let spans = vec![span(&path, 0, Some(20)), span(&path, 20, None)];
    let inline = read(spans.clone(), Framing::Lines, SMALL, FileAccess::Inline).unwrap();
    assert!(inline.iter().rev().skip(1).all(|(_, bytes, _)| bytes.ends_with(b"\n")));
    assert_eq!(inline, read(spans, Framing::Lines, SMALL, threaded()).unwrap());
}

#[test]
fn a_line_above_the_bound_leaves_in_pieces() {
    let content = [&b"ok\n"[..], &[b'x'; 100], b"\nok\n"].concat();
    let (_directory, path) = file(&content);
    let limits = Limits { chunk_bytes: 8, line_bytes_max: 16, eager: false };
    let chunks = read(vec![span(&path, 0, None)], Framing::Lines, limits, FileAccess::Inline).unwrap();
    let pieces: Vec<_> = chunks.iter().filter(|(_, _, piece)| *piece != Piece::Lines).collect();
    assert!(matches!(pieces.first().unwrap().2, Piece::Oversize { first: true, last: false }));
    assert!(matches!(pieces.last().unwrap().2, Piece::Oversize { first: false, last: true }));
    let long: Vec<u8> = pieces.iter().flat_map(|(_, bytes, _)| bytes.clone()).collect();
    assert_eq!(long, [&[b'x'; 100][..], b"\n"].concat());
    assert!(chunks.iter().all(|(_, bytes, _)| bytes.len() <= 32));
    assert_eq!(chunks.last().unwrap().1, b"ok\n");
}

#[test]
fn quoted_line_feeds_do_not_end_a_record() {
    let (_directory, path) = file(b"1,\"a\nb\"\n2,\"c\"\"\n\"\n3,d\n");
    let chunks =
        read(vec![span(&path, 0, None)], Framing::QuotedLines(b'"'), SMALL, FileAccess::Inline).unwrap();
    let mut records = Vec::new();
    for (_, bytes, _) in &chunks {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (record, after) = rest.split_at(Framing::QuotedLines(b'"').record_end(rest).unwrap());
            records.push(record);
            rest = after;
        }
    }
    assert_eq!(records, [&b"1,\"a\nb\"\n"[..], b"2,\"c\"\"\n\"\n", b"3,d\n"]);
}

#[test]
fn gzip_of_several_members_is_unpacked_and_a_torn_one_is_an_error() {
    let packed = [gzip(b"one\ntwo\n"), gzip(b"three\n")].concat();
    let (_directory, path) = file(&packed);
    let info = probe(&path).unwrap();
    assert!(info.gzip);
    assert_eq!(first_record(&info, Framing::Lines, 100).unwrap(), b"one\n");
    let from = |start| FileSpan { gzip: true, at_line_start: true, ..span(&path, start, None) };
    let chunks = read(vec![from(4)], Framing::Lines, SMALL, FileAccess::Inline).unwrap();
    assert_eq!(chunks.first().unwrap().0, 4);
    assert_eq!(chunks.iter().flat_map(|(_, bytes, _)| bytes.clone()).collect::<Vec<_>>(), b"two\nthree\n");

    fs::write(&path, &packed[..packed.len() - 3]).unwrap();
    for access in [FileAccess::Inline, threaded()] {
        let error = read(vec![from(0)], Framing::Lines, SMALL, access).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("after byte"), "{error}");
    }
}

#[test]
fn unusable_paths_are_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.csv");
    let error = probe(&missing).unwrap_err();
    assert!(matches!(error, FileError::Missing { .. }));
    assert!(error.to_string().contains(missing.to_str().unwrap()));
    assert!(matches!(probe(directory.path()).unwrap_err(), FileError::InputIsDirectory { .. }));
    assert!(matches!(probe(Path::new("/dev/null")).unwrap_err(), FileError::NotRegular { .. }));
    let named = directory.path().join("plain.gz");
    fs::write(&named, "a,b\n").unwrap();
    assert!(matches!(probe(&named).unwrap_err(), FileError::NotGzip { .. }));
    let denied = FileError::open(&missing, io::ErrorKind::PermissionDenied.into());
    assert!(denied.to_string().contains("permission denied"), "{denied}");
    let denied = FileError::write(&missing, io::ErrorKind::PermissionDenied.into());
    assert!(matches!(denied, FileError::WriteDenied { .. }), "{denied}");
}

#[test]
fn unusable_outputs_are_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(check_output(directory.path()), Err(FileError::OutputIsDirectory { .. })));
    let orphan = directory.path().join("no/such/out.csv");
    let error = check_output(&orphan).unwrap_err();
    assert!(matches!(&error, FileError::MissingParent { .. }), "{error}");
    assert!(error.to_string().contains("no/such"), "{error}");
    let kept = directory.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    check_output(&kept).unwrap();
    assert_eq!(fs::read(&kept).unwrap(), b"kept");
    let mut full = OutputFile::append(Path::new("/dev/full")).unwrap();
    assert!(matches!(full.write_whole(b"x"), Err(FileError::DiskFull { .. })));
}

#[test]
fn the_number_of_a_line_is_counted() {
    let (_directory, path) = file(b"a\nb\nc\n");
    assert_eq!(line_number(&path, 0), Some(1));
    assert_eq!(line_number(&path, 4), Some(3));
    assert_eq!(line_number(&path, u64::MAX), None);
}
