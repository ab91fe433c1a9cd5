//! The frozen format on disk: how segment files and part manifests lie, byte by byte. The page
//! `docs/internals/state_format.md` is its specification.
//!
//! Everything is little-endian and written by hand, so that no library decides what the bytes are. Decoders take any
//! bytes whatsoever: they never panic, and they check every count against the bytes that are there before they
//! allocate anything for it.

pub mod adopted;
pub mod bytes;
pub mod manifest;
pub mod segment;

use std::path::{Path, PathBuf};

pub use segment::DATA_AT;

use crate::state::StateError;

/// The version of segments, and of manifests that name only segments of their own store.
pub const VERSION: u32 = 1;
/// The version of manifests that name segments of other stores.
pub const VERSION_ADOPTING: u32 = 2;
/// Size of the pages that segment files are made of, and that data checksums cover.
pub const PAGE_BYTES: usize = 4096;

/// Bytes that are not what they should be: where, and what is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Distance from the beginning of the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl Malformed {
    /// At an offset of the file.
    pub fn at(offset: u64, what: impl Into<String>) -> Self {
        Self { offset, what: what.into() }
    }

    /// As an error that names the file.
    pub fn of(self, file: &Path) -> StateError {
        StateError::Damaged { file: file.to_owned(), offset: self.offset, what: self.what }
    }
}

/// CRC-32C (Castagnoli, as in iSCSI): of everything in this format.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Checks a magic number and the version behind it, which is at most `newest`; the version.
fn check_kind(
    reader: &mut bytes::Reader<'_>,
    magic: [u8; 8],
    kind: &str,
    newest: u32,
) -> Result<u32, Malformed> {
    let at = reader.offset();
    if reader.take(8)? != magic {
        return Err(Malformed::at(at, format!("this is no {kind} of a Tidemill state store")));
    }
    let at = reader.offset();
    match reader.u32()? {
        0 => Err(Malformed::at(at, "format version 0, which never was")),
        version if version <= newest => Ok(version),
        newer => Err(Malformed::at(
            at,
            format!("format version {newer}, and this release reads up to {newest}; use a newer release"),
        )),
    }
}

/// Path of a segment.
pub fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("segment-{number:016x}.tms"))
}

/// Path of a part manifest.
pub fn manifest_path(directory: &Path, snapshot: u64) -> PathBuf {
    directory.join(format!("part-{snapshot:016x}.tmm"))
}

/// What a file of a store's directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A segment with its number.
    Segment(u64),
    /// A part manifest with its snapshot.
    Manifest(u64),
    /// A manifest that was not finished.
    Unfinished,
}

/// What a file is by its name, or `None` if it is none of ours.
pub fn kind_of(path: &Path) -> Option<FileKind> {
    let name = path.file_name()?.to_str()?;
    let number = |name: &str| {
        let plain = name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if plain { u64::from_str_radix(name, 16).ok() } else { None }
    };
    if let Some(name) = name.strip_prefix("segment-").and_then(|name| name.strip_suffix(".tms")) {
        return number(name).map(FileKind::Segment);
    }
    let name = name.strip_prefix("part-")?;
    if let Some(name) = name.strip_suffix(".tmm") {
        return number(name).map(FileKind::Manifest);
    }
    number(name.strip_suffix(".tmm.new")?).map(|_| FileKind::Unfinished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_frozen() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(&[0; PAGE_BYTES]), 0x98f9_4189);
    }

    #[test]
    fn names_and_kinds_agree() {
        let directory = Path::new("state");
        assert_eq!(kind_of(&segment_path(directory, 0xab)), Some(FileKind::Segment(0xab)));
        assert_eq!(kind_of(&manifest_path(directory, u64::MAX)), Some(FileKind::Manifest(u64::MAX)));
        assert_eq!(manifest_path(directory, 1), directory.join("part-0000000000000001.tmm"));
        assert_eq!(kind_of(Path::new("part-0000000000000001.tmm.new")), Some(FileKind::Unfinished));
        for other in ["lock", "segment-1.tms", "segment-000000000000000G.tms", "part-+000000000000001.tmm"] {
            assert_eq!(kind_of(Path::new(other)), None, "{other}");
        }
    }
}
