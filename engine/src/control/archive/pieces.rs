//! The files of a checkpoint, cut into blocks on their way to a store.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
};

use tidemill_storage::snapshot::{
    disk::{Disk, read_whole},
    format::{
        checksum,
        manifest::{MANIFEST_BYTES_MAX as PART_BYTES_MAX, Manifest},
        segment_path,
    },
};

use super::entry::{BLOCK_BYTES_MAX, Block};
use crate::{control::manifest::JobManifest, model::checkpoint_error::CheckpointError};

/// Blocks that are put at once at most.
const BATCH_BLOCKS_MAX: usize = 8;
/// Bytes that are put at once, unless a single block has more.
const BATCH_BYTES_MAX: u64 = 2 * BLOCK_BYTES_MAX;

/// Bytes of a file that have to be put.
struct Piece {
    path: PathBuf,
    offset: u64,
    bytes: u64,
}

/// What of some files has to be put, in order.
#[derive(Default)]
pub(super) struct Pieces(VecDeque<Piece>);

/// Blocks that were read and are to be put at once.
pub(super) struct Batch {
    /// Each with its file.
    pub(super) blocks: Vec<(PathBuf, Block)>,
    /// The same as objects: names and bytes.
    pub(super) objects: Vec<(String, Vec<u8>)>,
}

/// Names the blocks that one attempt writes.
pub(super) struct Names<'a> {
    /// The attempt.
    pub(super) attempt: u64,
    /// The number of the next block.
    pub(super) next: &'a mut u64,
    /// What the object of a block is called.
    pub(super) key: &'a dyn Fn(&Block) -> String,
}

impl Pieces {
    /// Cuts files, each from that byte on to which `stored` says that it is in the store.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub(super) fn of(
        disk: &dyn Disk,
        files: &[PathBuf],
        stored: impl Fn(&Path) -> u64,
    ) -> Result<Self, CheckpointError> {
        let mut pieces = VecDeque::new();
        for path in files {
            let length = disk.open(path).and_then(|file| file.length());
            let length = length.map_err(|source| read_failed(path, source))?;
            let mut offset = stored(path);
            while offset < length {
                let bytes = (length - offset).min(BLOCK_BYTES_MAX);
                pieces.push_back(Piece { path: path.clone(), offset, bytes });
                offset += bytes;
            }
        }
        Ok(Self(pieces))
    }

    /// Reads the next blocks; `None` when all were read.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn read(
        &mut self,
        disk: &dyn Disk,
        names: Names<'_>,
    ) -> Result<Option<Batch>, CheckpointError> {
        let (mut blocks, mut objects, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(piece) = self.0.front()
            && blocks.len() < BATCH_BLOCKS_MAX
            && (blocks.is_empty() || bytes + piece.bytes <= BATCH_BYTES_MAX)
        {
            let mut contents = vec![0; piece.bytes as usize];
            let file = disk.open(&piece.path);
            let read = file.and_then(|file| file.read_at(piece.offset, &mut contents));
            read.map_err(|source| read_failed(&piece.path, source))?;
            let (attempt, number) = (names.attempt, *names.next);
            *names.next += 1;
            bytes += piece.bytes;
            let block = Block { attempt, number, bytes: piece.bytes, checksum: checksum(&contents) };
            objects.push(((names.key)(&block), contents));
            blocks.extend(self.0.pop_front().map(|piece| (piece.path, block)));
        }
        Ok((!blocks.is_empty()).then_some(Batch { blocks, objects }))
    }
}

fn read_failed(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { doing: "read, to bring it to the remote store,", file: path.to_owned(), source }
}

/// A manifest as text, with paths relative to `root`.
pub(super) fn text_of(manifest: &JobManifest, root: &Path) -> String {
    // JSON behind a line of text is text.
    String::from_utf8_lossy(&manifest.encode(root)).into_owned()
}

/// A path in the job's directory, as the store knows it.
///
/// # Errors
/// When it is not in `root`, or not text.
pub(super) fn relative(root: &Path, path: &Path) -> Result<String, CheckpointError> {
    let inside = path.strip_prefix(root).ok().and_then(Path::to_str);
    inside.map(str::to_owned).ok_or_else(|| {
        let what = "its name cannot be kept in a remote store: it is not text, or not in the job's directory";
        CheckpointError::Manifest { file: path.to_owned(), what: what.to_owned() }
    })
}

/// Every file that a checkpoint needs, but its own manifest: part manifests, and the segments that they name.
///
/// # Errors
/// When a part manifest cannot be read.
pub(super) fn files_of(disk: &dyn Disk, manifest: &JobManifest) -> Result<Vec<PathBuf>, CheckpointError> {
    let mut files = BTreeSet::new();
    for part in manifest.operators.values().flat_map(|operator| operator.manifests()) {
        let bytes = read_whole(disk, &part, PART_BYTES_MAX)?;
        let decoded = Manifest::decode(&bytes).map_err(|malformed| malformed.of(&part))?;
        let directory = part.parent().unwrap_or(Path::new(""));
        files.extend(decoded.segments.iter().map(|segment| segment_path(directory, segment.number)));
        files.insert(part);
    }
    Ok(files.into_iter().collect())
}
