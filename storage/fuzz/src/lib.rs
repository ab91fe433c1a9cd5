//! What is done with bytes from outside, a function per decoder: the bodies of the fuzz targets, and of the smoke run in
//! `storage/tests/decoders_fuzz.rs`, which takes this file in, so that both do the same.
//!
//! Checksums are put right first, else no decoder would get past them. A decoder may refuse or accept; it must not panic,
//! nor read outside of the bytes, nor allocate by a count that they cannot hold. Each function returns whether the bytes
//! were accepted.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::{Arc, OnceLock},
};

use tidemill_storage::{
    Record,
    key::Key,
    kinds::{
        blob::{self, BlobTypes},
        broadcast::BroadcastState,
        composite::{Within, split},
        operator_list::OperatorListState,
        page::{self, Page},
    },
    log::{
        pool::BlockPool,
        seal::{BlockId, Layout, StateDeclaration, TableDeclaration, TableId},
    },
    record::{access, from_archived, last_root, restore as restored, to_bytes},
    snapshot::{
        disk::{Disk, memory::MemoryDisk},
        format::{
            PAGE_BYTES,
            adopted::Adopted,
            checksum,
            manifest::{Manifest, NeededSegment, NeededTable},
            manifest_path,
            segment::{
                Contents, DATA_AT, ENTRY_BYTES, Entry, FOOTER_BYTES, Footer, SegmentId, decode_header,
                encode_header, encode_tail,
            },
            segment_path,
        },
        inspect::inspect,
        records::{records as walk, removed_keys},
        verify::verify,
    },
    state::{KeyView, KeyedTable, StateBackend, StateError, StateId, StateName},
    store::{
        Store, StoreOptions,
        files::{FileOptions, SnapshotEvent, WriterKind},
    },
    wal::{Cursor, Group, LogError, LogOptions, WriteAheadLog},
    writer::RecordWriter,
};

/// A decoder.
pub struct Decoder {
    /// Its name, and that of its target.
    pub name: &'static str,
    /// Reads any bytes; whether they were accepted.
    pub decode: fn(&[u8]) -> bool,
    /// Bytes that are accepted.
    pub sound: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const DECODERS: [Decoder; 10] = [
    Decoder { name: "manifest", decode: manifest, sound: sound_manifests },
    Decoder { name: "segment", decode: segment, sound: sound_segments },
    Decoder { name: "records", decode: records, sound: sound_records },
    Decoder { name: "keys", decode: keys, sound: sound_keys },
    Decoder { name: "archives", decode: archives, sound: sound_archives },
    Decoder { name: "pages", decode: pages, sound: sound_pages },
    Decoder { name: "blobs", decode: blobs, sound: sound_blobs },
    Decoder { name: "loads", decode: loads, sound: sound_loads },
    Decoder { name: "restore", decode: restore, sound: sound_restores },
    Decoder { name: "wal", decode: wal, sound: sound_wals },
];

// ------------------------------------------------------------------------------------------------------------ file formats

/// Puts a checksum over all but the last four bytes right.
fn seal(bytes: &mut [u8]) {
    if let Some(end) = bytes.len().checked_sub(4) {
        let sum = checksum(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&sum);
    }
}

/// A part manifest: what is read is what was written.
pub fn manifest(data: &[u8]) -> bool {
    let _ = Manifest::decode(data);
    let mut bytes = data.to_vec();
    seal(&mut bytes);
    let Ok(manifest) = Manifest::decode(&bytes) else { return false };
    assert!(manifest.encode() == bytes, "what is read is what was written");
    true
}

fn sound_manifests() -> Vec<Vec<u8>> {
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
    let segment = |number, live| NeededSegment {
        number,
        length: 1 << 14,
        checksum: 5,
        entries: 9,
        live,
        adopted: None,
    };
    let manifest = Manifest {
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
    };
    let adopted = Adopted {
        segment: SegmentId { store: 5, number: 8 },
        key_groups: 4..9,
        written_for: 6,
        tables: vec![(TableId(3), TableId(4)), (TableId(7), TableId(1))],
    };
    let mut adopting = manifest.clone();
    adopting.segments.push(NeededSegment { adopted: Some(adopted), ..segment(9, vec![1, 0]) });
    vec![manifest.encode(), adopting.encode()]
}

const SEGMENT: SegmentId = SegmentId { store: 77, number: 3 };
/// Bytes of the header that [`segment`] takes; the rest of the page is zero.
const HEADER_BYTES: usize = 64;

/// A segment's header page, footer and directory: 64 bytes of header, 96 of footer, one for the number of pages, and the
/// directory.
pub fn segment(data: &[u8]) -> bool {
    let Some((header, rest)) = data.split_at_checked(HEADER_BYTES) else { return false };
    let Some((end, rest)) = rest.split_at_checked(FOOTER_BYTES) else { return false };
    let Some((pages, directory)) = rest.split_first() else { return false };
    let _ = decode_header(header);
    let mut page = header.to_vec();
    page.resize(PAGE_BYTES, 0);
    seal(&mut page);
    if let Ok(segment) = decode_header(&page) {
        assert!(encode_header(segment) == page, "what is read is what was written");
    }

    let mut end = end.to_vec();
    let _ = Footer::decode(&end, 4 * PAGE_BYTES as u64);
    seal(&mut end);
    let mut length = [0; 8];
    length.copy_from_slice(&end[48..56]);
    if let Ok(footer) = Footer::decode(&end, u64::from_le_bytes(length)) {
        let _ = footer.decode_tail(directory);
        assert!(footer.checksums_at() < footer.length);
    }

    let pages = usize::from(*pages);
    let directory = &directory[..directory.len() - directory.len() % ENTRY_BYTES];
    let mut tail = directory.to_vec();
    tail.resize(directory.len() + 4 * pages, 0);
    let length = (tail.len() + FOOTER_BYTES).next_multiple_of(PAGE_BYTES);
    tail.resize(length - FOOTER_BYTES, 0);
    let footer = Footer {
        segment: SEGMENT,
        pages: pages as u64,
        entries: (directory.len() / ENTRY_BYTES) as u32,
        length: DATA_AT + (pages * PAGE_BYTES + length) as u64,
        directory_checksum: checksum(directory),
        pages_checksum: checksum(&tail[directory.len()..]),
    };
    let Ok((entries, sums)) = footer.decode_tail(&tail) else { return false };
    let inside = |entry: &Entry| entry.offset + u64::from(entry.length) <= footer.directory_at();
    assert!(entries.iter().all(inside) && sums.len() == pages);
    assert!(
        encode_tail(SEGMENT, &entries, &sums).0[..tail.len()] == tail,
        "what is read is what was written"
    );
    !entries.is_empty()
}

fn sound_segments() -> Vec<Vec<u8>> {
    let records = Contents::Records { block: BlockId(9), from: 64 };
    let entries = [
        Entry { seal: 1, table: TableId(4), contents: Contents::Removed, offset: 4096, length: 24 },
        Entry { seal: 2, table: TableId(4), contents: records, offset: 4128, length: 5000 },
    ];
    let (tail, _) = encode_tail(SEGMENT, &entries, &[1, 2]);
    let (body, footer) = tail.split_at(tail.len() - FOOTER_BYTES);
    vec![[&encode_header(SEGMENT)[..HEADER_BYTES], footer, &[2], &body[..2 * ENTRY_BYTES]].concat()]
}

/// Records and removed keys, without their types. The first three bytes are the layout.
pub fn records(data: &[u8]) -> bool {
    let Some((&[kind, a, b], bytes)) = data.split_first_chunk() else { return false };
    let layout = match kind % 4 {
        0 => Layout::Stride {
            stride: 8 * (1 + u32::from(a)),
            value_at: if b & 1 == 0 { 8 } else { 16 },
            value_len: u32::from(b),
        },
        1 => Layout::Stride { stride: 24, value_at: 8, value_len: 16 },
        _ => Layout::Sized { narrow: kind & 1 == 0, align: if a & 1 == 0 { 8 } else { 16 } },
    };
    let mut accepted = true;
    let mut length = 0;
    for record in walk(layout, bytes) {
        match record {
            Ok(record) => length += record.length,
            Err((at, _)) => {
                accepted = false;
                assert!(at <= bytes.len(), "an error within the bytes");
            }
        }
    }
    assert!(length <= bytes.len() && (!accepted || length == bytes.len()));
    let removed = removed_keys(bytes).map_while(Result::ok).map(|key| key.length).sum::<usize>();
    assert!(removed <= bytes.len());
    accepted && length > 0
}

/// A record of any size, as blocks hold it.
fn sized_record(hash: u64, key: Option<&[u8]>, value: &[u8], align: usize) -> Vec<u8> {
    let mut record = hash.to_le_bytes().to_vec();
    record.extend([0; 4]);
    record.extend((value.len() as u32).to_le_bytes());
    if let Some(key) = key {
        record.extend((key.len() as u16).to_le_bytes());
        record.extend(key);
    }
    record.resize(record.len().next_multiple_of(align), 0);
    record.extend(value);
    record.resize(record.len().next_multiple_of(16), 0);
    let units = record.len() as u32 / 16;
    record[8..12].copy_from_slice(&units.to_le_bytes());
    record
}

fn sound_records() -> Vec<Vec<u8>> {
    let sized = |i: u64| sized_record(i, Some(&[b'k'; 7]), &vec![1; i as usize * 9], 8);
    let narrow = |i: u64| sized_record(i, None, &vec![1; i as usize * 9], 16);
    vec![
        [vec![1, 0, 0], (0..72).collect()].concat(),
        [vec![3, 0, 0], (0..5).flat_map(sized).collect()].concat(),
        [vec![2, 1, 0], (0..5).flat_map(narrow).collect()].concat(),
    ]
}

// ------------------------------------------------------------------------------------------------------------ single values

/// Keys of all widths, and those that are within another: whatever is read is written as the same bytes.
pub fn keys(data: &[u8]) -> bool {
    fn one<K: Key>(bytes: &[u8]) -> bool {
        let Ok(key) = K::decode(bytes) else { return false };
        let mut again = Vec::new();
        key.encode(&mut again);
        assert_eq!(again, bytes, "{}", K::stored_name());
        let _ = key.key_hash(&mut Vec::new());
        true
    }
    let Some((kind, bytes)) = data.split_first() else { return false };
    if let Some((key, suffix)) = split(KeyView { hash: 7, bytes }) {
        assert!(key.bytes.len() + suffix.len() <= bytes.len());
    }
    match kind % 12 {
        0 => one::<u64>(bytes),
        1 => one::<i32>(bytes),
        2 => one::<char>(bytes),
        3 => one::<bool>(bytes),
        4 => one::<(u8, bool)>(bytes),
        5 => one::<u128>(bytes),
        6 => one::<String>(bytes),
        7 => one::<(String, u32)>(bytes),
        8 => one::<((String, Vec<u8>), char)>(bytes),
        9 => one::<Within<u64, u32>>(bytes),
        10 => one::<Within<String, String>>(bytes),
        _ => one::<Within<(String, u8), i64>>(bytes),
    }
}

fn sound_keys() -> Vec<Vec<u8>> {
    fn one<K: Key>(kind: u8, key: K) -> Vec<u8> {
        let mut bytes = vec![kind];
        key.encode(&mut bytes);
        bytes
    }
    vec![
        one(0, 5_u64),
        one(2, 'x'),
        one(6, "wörd".to_owned()),
        one(7, ("one".to_owned(), 2_u32)),
        one(8, (("one".to_owned(), vec![2_u8]), 'x')),
        one(9, Within::<u64, u32>::new(&5, &7)),
        one(10, Within::<String, String>::new(&"key".to_owned(), &"suffix".to_owned())),
        one(11, Within::<(String, u8), i64>::new(&("key".to_owned(), 1), &-3)),
    ]
}

type Nested = (Vec<Vec<String>>, Option<(u128, bool)>);

/// Bytes as a buffer that begins at a multiple of 16.
fn aligned(bytes: &[u8]) -> RecordWriter {
    let mut aligned = RecordWriter::default();
    aligned.append_bytes(bytes);
    aligned
}

/// Archived values: what is valid can be restored, and written again.
pub fn archives(data: &[u8]) -> bool {
    fn one<T: Record>(bytes: &[u8], root: usize) -> bool {
        let Ok(archived) = access::<T>(bytes, root) else { return false };
        let Ok(value) = from_archived::<T>(archived) else { return false };
        to_bytes(&value).is_ok()
    }
    let Some((&[kind, offset], bytes)) = data.split_first_chunk() else { return false };
    let buffer = aligned(bytes);
    let bytes = buffer.bytes();
    // Most often the root is the last; records of batches have it elsewhere.
    fn at<T: Record>(bytes: &[u8], offset: u8) -> usize {
        last_root::<T>(bytes.len()).unwrap_or(0).saturating_sub(usize::from(offset))
    }
    match kind % 7 {
        0 => one::<u64>(bytes, at::<u64>(bytes, offset)),
        1 => one::<String>(bytes, at::<String>(bytes, offset)),
        2 => one::<Nested>(bytes, at::<Nested>(bytes, offset)),
        3 => one::<Vec<u128>>(bytes, at::<Vec<u128>>(bytes, offset)),
        4 => one::<Option<(char, String)>>(bytes, at::<Option<(char, String)>>(bytes, offset)),
        5 => one::<[bool; 9]>(bytes, at::<[bool; 9]>(bytes, offset)),
        _ => one::<Page<String>>(bytes, at::<Page<String>>(bytes, offset)),
    }
}

fn archive<T: Record>(value: &T) -> Vec<u8> {
    to_bytes(value).map(|written| written.bytes().to_vec()).unwrap_or_default()
}

fn sound_archives() -> Vec<Vec<u8>> {
    let nested: Nested = (vec![vec!["long enough to be out of line".into()], Vec::new()], Some((7, true)));
    let tag = |kind: u8, bytes: Vec<u8>| [&[kind, 0], &bytes[..]].concat();
    vec![
        tag(1, archive(&"long enough to be out of line".to_owned())),
        tag(2, archive(&nested)),
        tag(3, archive(&vec![1_u128, 2])),
        tag(4, archive(&Some(('x', "y".to_owned())))),
        tag(5, archive(&[true; 9])),
        tag(6, archive(&filled(["a".to_owned(), "b".repeat(30)]))),
    ]
}

fn filled<T: Record>(elements: impl IntoIterator<Item = T>) -> Page<T> {
    let (mut page, mut scratch) = (Page::default(), RecordWriter::default());
    elements.into_iter().for_each(|element| {
        page.push(&element, &mut scratch);
    });
    page
}

/// Pages of lists: every element that is counted is read or refused, and another may be appended.
pub fn pages(data: &[u8]) -> bool {
    fn one<T: Record>(bytes: &[u8], more: &T) -> bool {
        let mut scratch = RecordWriter::default();
        let mut seen = 0;
        let visited = page::visit::<T>(bytes, &mut scratch, |element| {
            seen += 1;
            from_archived::<T>(element).is_ok()
        });
        let accepted = matches!(visited, Ok(true));
        if accepted {
            assert_eq!(page::count::<T>(bytes).ok(), Some(seen));
        }
        // As it lies in a record, from where it is read to be changed.
        let buffer = aligned(bytes);
        for i in 0..seen.min(2) {
            let _ = page::get::<T>(buffer.bytes(), i);
        }
        let whole = archive(&bytes.to_vec());
        let whole = aligned(&whole);
        let root = last_root::<Page<T>>(whole.len()).unwrap_or(0);
        let Ok(archived) = access::<Page<T>>(whole.bytes(), root) else { return accepted };
        if accepted {
            let mut page = restored::<Page<T>>(archived);
            page.push(more, &mut scratch);
        }
        accepted
    }
    let Some((kind, bytes)) = data.split_first() else { return false };
    match kind % 4 {
        0 => one::<u64>(bytes, &1),
        1 => one::<String>(bytes, &"long enough to be out of line".into()),
        2 => one::<Vec<u128>>(bytes, &vec![1, 2]),
        _ => one::<(bool, char)>(bytes, &(true, 'x')),
    }
}

fn sound_pages() -> Vec<Vec<u8>> {
    /// The bytes of a page, which are those of the vector that it is archived as.
    fn one<T: Record>(kind: u8, elements: Vec<T>) -> Vec<u8> {
        let archived = aligned(&archive(&filled(elements)));
        let root = last_root::<Vec<u8>>(archived.len()).unwrap_or(0);
        let bytes = access::<Vec<u8>>(archived.bytes(), root).map(|bytes| bytes.to_vec()).unwrap_or_default();
        [&[kind], &bytes[..]].concat()
    }
    vec![
        one(0, vec![1_u64, 2, 3]),
        one(1, vec!["a".to_owned(), "b".repeat(30), String::new()]),
        one(2, vec![vec![1_u128], Vec::new()]),
        one(3, vec![(true, 'x'), (false, 'y')]),
    ]
}

/// Blobs of state that is not keyed.
pub fn blobs(data: &[u8]) -> bool {
    let Some((kind, bytes)) = data.split_first() else { return false };
    let name = StateName::new("operator", "state");
    match kind % 3 {
        0 => {
            let types = BlobTypes { kind: "test", keys: "String" };
            blob::read::<u16>(&name, types, bytes).is_ok_and(|entries| !entries.is_empty())
        }
        1 => OperatorListState::<String>::from_bytes(&name, bytes).is_ok(),
        _ => BroadcastState::<String, Vec<String>>::from_bytes(&name, bytes)
            .is_ok_and(|state| state.iter().count() == state.len()),
    }
}

fn sound_blobs() -> Vec<Vec<u8>> {
    let tag =
        |kind: u8, bytes: Result<Vec<u8>, StateError>| [&[kind], &bytes.unwrap_or_default()[..]].concat();
    let types = BlobTypes { kind: "test", keys: "String" };
    let entries: [(&[u8], &u16); 2] = [(b"one", &1), (b"", &2)];
    let mut list = OperatorListState::default();
    list.add_all(["a".to_owned(), "long enough to be out of line".to_owned()]);
    let mut broadcast = BroadcastState::default();
    broadcast.put(&"key".to_owned(), vec!["one".to_owned(), "two".repeat(9)]);
    vec![
        tag(0, blob::write(types, entries.into_iter())),
        tag(1, list.to_bytes()),
        tag(2, broadcast.to_bytes()),
    ]
}

// ------------------------------------------------------------------------------------------------------------ whole snapshots

const DIRECTORY: &str = "state";

/// Files of a snapshot of one state, with all checksums right, that hold these pieces: whether they are removed keys, and
/// their bytes.
fn files(keys: &str, values: &str, layout: Layout, pieces: &[(bool, &[u8])]) -> (Vec<u8>, Vec<u8>) {
    let (mut data, mut entries) = (Vec::new(), Vec::new());
    for (i, (removed, bytes)) in pieces.iter().enumerate().filter(|(_, (_, bytes))| !bytes.is_empty()) {
        let block = BlockId(i as u64 + 1);
        entries.push(Entry {
            seal: i as u64 + 1,
            table: TableId(1),
            contents: if *removed { Contents::Removed } else { Contents::Records { block, from: 0 } },
            offset: DATA_AT + data.len() as u64,
            length: bytes.len() as u32,
        });
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(16), 0);
    }
    data.resize(data.len().next_multiple_of(PAGE_BYTES), 0);
    let segment = SegmentId { store: 7, number: 0 };
    let sums: Vec<u32> = data.chunks(PAGE_BYTES).map(checksum).collect();
    let (tail, footer) = encode_tail(segment, &entries, &sums);
    let manifest = Manifest {
        store: 7,
        snapshot: 1,
        seal: pieces.len() as u64 + 1,
        key_groups: 0..128,
        max_parallelism: 128,
        states: vec![StateDeclaration {
            id: StateId(0),
            name: StateName::new("operator", "state"),
            keys: keys.into(),
            values: values.into(),
            layout,
        }],
        tables: vec![NeededTable {
            declaration: TableDeclaration { table: TableId(1), state: StateId(0), slice: 0 },
            live_keys: 3,
        }],
        segments: vec![NeededSegment {
            number: 0,
            length: footer.length,
            checksum: footer.checksum(),
            entries: footer.entries,
            live: Vec::new(),
            adopted: None,
        }],
    };
    (manifest.encode(), [encode_header(segment), data, tail].concat())
}

/// A disk with a snapshot's two files.
fn disk((manifest, segment): (&[u8], &[u8])) -> Arc<dyn Disk> {
    let disk = MemoryDisk::default();
    disk.put(&manifest_path(Path::new(DIRECTORY), 1), manifest);
    disk.put(&segment_path(Path::new(DIRECTORY), 0), segment);
    Arc::new(disk)
}

/// What a store makes of them: how many keys it has, if it does not refuse them. One that takes the files over makes the same
/// of them, and so does whoever is restored from what that one writes.
fn read<K: Key, V: Record>(disk: Arc<dyn Disk>) -> Result<usize, StateError> {
    let manifest = manifest_path(Path::new(DIRECTORY), 1);
    let own = |directory: &str| FileOptions {
        directory: directory.into(),
        store: 78,
        disk: Arc::clone(&disk),
        notify: None,
        writer: WriterKind::Here,
    };
    let plain = read_into::<K, V>(&disk, &manifest, None);
    let adopted = read_into::<K, V>(&disk, &manifest, Some(own("/adopted")));
    assert_eq!(plain.as_ref().ok(), adopted.as_ref().ok(), "{plain:?} and {adopted:?}");
    if adopted.is_ok() {
        let again = read_into::<K, V>(&disk, &manifest_path(Path::new("/adopted"), 2), Some(own("/again")));
        assert_eq!(plain.as_ref().ok(), again.as_ref().ok(), "{plain:?} and {again:?}");
    }
    plain
}

/// What a store makes of a snapshot; with files of its own, it takes one too.
fn read_into<K: Key, V: Record>(
    disk: &Arc<dyn Disk>,
    manifest: &Path,
    files: Option<FileOptions>,
) -> Result<usize, StateError> {
    static POOL: OnceLock<Arc<BlockPool>> = OnceLock::new();
    let pool = Arc::clone(POOL.get_or_init(|| BlockPool::new(false)));
    let options = StoreOptions { pool, files, ..StoreOptions::new() };
    let mut store = Store::restore(options, Arc::clone(disk), &[manifest.to_owned()])?;
    let state = store.open::<K, V>(StateName::new("operator", "state"), Vec::new())?;
    // A table unwinds with its error: see `fault`.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let slices = store.restored(state);
        let mut tables: Vec<_> = slices.into_iter().map(|slice| store.table::<K, V>(state, slice)).collect();
        let mut all = 0;
        for table in &mut tables {
            let mut keys = 0;
            let end = table.scan(0, |_, value| {
                keys += 1;
                let _ = restored::<V>(value);
                true
            });
            assert!(end.is_none() && keys == table.len(), "a scan passes every key");
            all += keys;
        }
        if store.has_files() {
            let mut sealing = store.begin_seal();
            tables.iter_mut().for_each(|table| table.seal(sealing.sealed()));
            let made = store.snapshot(2, sealing).and_then(|()| store.wait_for_snapshot());
            assert!(matches!(made, Ok(SnapshotEvent::Done { .. })), "{made:?}");
        }
        all
    }));
    read.map_err(|payload| match payload.downcast::<StateError>() {
        Ok(error) => *error,
        Err(bug) => resume_unwind(bug),
    })
}

/// Restores a state of these types from these pieces, and looks at the files in all other ways.
fn load<K: Key, V: Record>(pieces: &[(bool, &[u8])]) -> bool {
    let align = align_of::<V::Archived>().max(8);
    let value_len = size_of::<V::Archived>();
    let layout = if K::WIDTH.is_narrow() && V::FIXED {
        let stride = (align + value_len).next_multiple_of(align) as u32;
        Layout::Stride { stride, value_at: align as u32, value_len: value_len as u32 }
    } else {
        Layout::Sized { narrow: K::WIDTH.is_narrow(), align: align as u32 }
    };
    let (manifest, segment) = files(&K::stored_name(), &V::schema(), layout, pieces);
    let disk = disk((&manifest, &segment));
    let _ = inspect(&disk, Path::new(DIRECTORY));
    let _ = verify(&*disk, Path::new(DIRECTORY));
    match read::<K, V>(disk) {
        Ok(_) => true,
        Err(StateError::NoRecords { .. } | StateError::Record(_)) => false,
        Err(other) => panic!("files with all checksums right: {other}"),
    }
}

/// Records and removed keys as a store restores them: what does not have the state's types is refused. The first byte
/// says the types; then follow pieces, each with its length and, in the top bit, whether it is of removed keys.
pub fn loads(data: &[u8]) -> bool {
    let Some((kind, mut rest)) = data.split_first() else { return false };
    let mut pieces = Vec::new();
    while let Some((head, bytes)) = rest.split_first_chunk::<2>() {
        let head = u16::from_le_bytes(*head);
        let (piece, more) = bytes.split_at(bytes.len().min(usize::from(head & 0x7fff)));
        pieces.push((head & 0x8000 != 0, piece));
        rest = more;
    }
    match kind % 6 {
        0 => load::<u64, (u64, u64)>(&pieces),
        1 => load::<u64, [bool; 5]>(&pieces),
        2 => load::<String, String>(&pieces),
        3 => load::<u32, Vec<u128>>(&pieces),
        4 => load::<(String, u8), Option<Vec<String>>>(&pieces),
        _ => load::<Within<String, u32>, Page<String>>(&pieces),
    }
}

/// Records of texts by texts.
fn sound_texts() -> Vec<u8> {
    let text = |key: &str, value: &str| {
        let hash = key.to_owned().key_hash(&mut Vec::new());
        sized_record(hash, Some(key.as_bytes()), &archive(&value.to_owned()), 8)
    };
    [text("one", "1"), text("two", "long enough to be out of line")].concat()
}

fn sound_loads() -> Vec<Vec<u8>> {
    let piece = |removed: bool, bytes: Vec<u8>| {
        let head = bytes.len() as u16 | if removed { 0x8000 } else { 0 };
        [&head.to_le_bytes()[..], &bytes].concat()
    };
    let removed = |key: &str| {
        let hash = key.to_owned().key_hash(&mut Vec::new());
        [&hash.to_le_bytes()[..], &(key.len() as u32).to_le_bytes(), key.as_bytes()].concat()
    };
    let texts = sound_texts();
    let wide = |i: u32| {
        let hash = i.key_hash(&mut Vec::new());
        sized_record(hash, None, &archive(&vec![u128::from(i); i as usize]), 8)
    };
    let page = || {
        let within = Within::<String, u32>::new(&"key".to_owned(), &7);
        let mut bytes = Vec::new();
        within.encode(&mut bytes);
        let hash = within.key_hash(&mut Vec::new());
        sized_record(hash, Some(&bytes), &archive(&filled(["a".to_owned(), "b".repeat(30)])), 8)
    };
    vec![
        [vec![0], piece(false, (0..48).collect()), piece(true, vec![0; 12])].concat(),
        [vec![1], piece(false, [vec![9; 8], vec![1; 5], vec![0; 3]].concat())].concat(),
        [vec![2], piece(false, texts.clone()), piece(true, removed("one")), piece(false, texts)].concat(),
        [vec![3], piece(false, (0..4).flat_map(wide).collect())].concat(),
        [vec![5], piece(false, page())].concat(),
    ]
}

/// The two files of a snapshot, changed at will in what no checksum covers once it was put right: pairs of a place (two
/// bytes) and what is there (one). Places are those of the manifest, then of the segment's data and directory.
pub fn restore(data: &[u8]) -> bool {
    static SOUND: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (manifest, segment) = SOUND.get_or_init(|| {
        let layout = Layout::Sized { narrow: false, align: 8 };
        files("String", "String", layout, &[(false, &sound_texts()), (true, &[0; 12])])
    });
    let (mut manifest, mut segment) = (manifest.clone(), segment.clone());
    let data_len = segment.len() - PAGE_BYTES;
    let (of_manifest, of_segment) = (manifest.len() - 4, data_len - FOOTER_BYTES);
    for patch in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([patch[0], patch[1]])) % (of_manifest + of_segment);
        match at.checked_sub(of_manifest) {
            None => manifest[at] = patch[2],
            Some(at) => segment[PAGE_BYTES + at] = patch[2],
        }
    }
    // One page of data, a directory of two entries, the page's checksum, zeros, the footer.
    let directory = 2 * PAGE_BYTES..2 * PAGE_BYTES + 2 * ENTRY_BYTES;
    let footer = segment.len() - FOOTER_BYTES;
    let sum = checksum(&segment[PAGE_BYTES..2 * PAGE_BYTES]).to_le_bytes();
    segment[directory.end..directory.end + 4].copy_from_slice(&sum);
    let sums = [checksum(&segment[directory.clone()]), checksum(&segment[directory.end..footer])];
    segment[footer + 60..footer + 64].copy_from_slice(&sums[0].to_le_bytes());
    segment[footer + 64..footer + 68].copy_from_slice(&sums[1].to_le_bytes());
    seal(&mut segment[footer..]);
    // The segment's own checksum stands behind its number and length, before its counts.
    let sum = of_manifest - 16;
    let whole = segment[segment.len() - 4..].to_vec();
    manifest[sum..sum + 4].copy_from_slice(&whole);
    seal(&mut manifest);

    let disk = disk((&manifest, &segment));
    let _ = inspect(&disk, Path::new(DIRECTORY));
    let _ = verify(&*disk, Path::new(DIRECTORY));
    read::<String, String>(disk).is_ok()
}

fn sound_restores() -> Vec<Vec<u8>> {
    // The second says of some bytes of the manifest what they are.
    vec![Vec::new(), [[0, 0, b'T'], [1, 0, b'I'], [2, 0, b'D'], [3, 0, b'E']].concat()]
}

// -------------------------------------------------------------------------------------------------------- write-ahead logs

/// The only segment of a log.
const LOG_SEGMENT: &str = "state/segment-0000000000000000.wal";

/// Opens the log on a disk and reads all of it; how many records it has.
fn read_log(disk: MemoryDisk) -> Result<u64, LogError> {
    let options = LogOptions { schema: "u64".to_owned(), number: 1, segment_bytes: 1 << 20 };
    let log = WriteAheadLog::open(Arc::new(disk), Path::new(DIRECTORY), options)?;
    let mut cursor = Cursor::at(&log, log.first())?;
    let mut records = 0;
    while let Some(mut chunk) = cursor.read(&log)? {
        if chunk.is_end() {
            break;
        }
        while let Some(record) = chunk.take() {
            assert!(record.len() < 1 << 24, "a record is no longer than its file");
            records += 1;
        }
    }
    assert_eq!(records, log.next() - log.first(), "the log knows what it has");
    Ok(records)
}

/// A segment of a write-ahead log, with all checksums right: is read to its end or refused.
pub fn wal(data: &[u8]) -> bool {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as usize)
    };
    let mut bytes = data.to_vec();
    let mut groups_at = bytes.len();
    if let Some(end) =
        word(&bytes, 16).and_then(|length| length.checked_add(20)).filter(|end| *end <= bytes.len())
    {
        let sum = checksum(&[&bytes[8..12], &bytes[16..end]].concat()).to_le_bytes();
        bytes[12..16].copy_from_slice(&sum);
        groups_at = end.next_multiple_of(8);
    }
    while let Some(length) = word(&bytes, groups_at + 32) {
        let Some(end) = groups_at.checked_add(40 + length).filter(|end| *end <= bytes.len()) else { break };
        let sum = checksum(&bytes[groups_at + 8..end]).to_le_bytes();
        bytes[groups_at + 4..groups_at + 8].copy_from_slice(&sum);
        groups_at = end.next_multiple_of(8);
    }
    let disk = MemoryDisk::default();
    disk.put(Path::new(LOG_SEGMENT), &bytes);
    read_log(disk).is_ok_and(|records| records > 0)
}

fn sound_wals() -> Vec<Vec<u8>> {
    let disk = MemoryDisk::default();
    let options = LogOptions { schema: "u64".to_owned(), number: 1, segment_bytes: 1 << 20 };
    let written =
        WriteAheadLog::open(Arc::new(disk.clone()), Path::new(DIRECTORY), options).and_then(|mut log| {
            for records in [1, 3, 2] {
                let mut group = Group::default();
                (0..records).for_each(|record| group.push(&[7; 19][..record * 9]));
                log.append(&group)?;
            }
            log.end()
        });
    let segment = written.ok().and_then(|()| disk.contents(Path::new(LOG_SEGMENT)));
    segment.into_iter().collect()
}
