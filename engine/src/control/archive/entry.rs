//! What is in the remote store, byte by byte:
//!
//! ```text
//! log/00000000000000000007                           an entry of the log: a claim, or a checkpoint
//! blocks/00000000000000000003/00000000000000000042   bytes of a file: the 42nd block of the third attempt
//! ```
//!
//! An entry is text, with a first line `tidemill-entry 1 CHECKSUM LENGTH` as manifests have it, and JSON behind it. Files are cut
//! into blocks of bounded length, so that nobody needs much memory or a request that takes for ever.

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

use serde::{Deserialize, Serialize};
use tidemill_storage::snapshot::format::checksum;

use crate::{
    control::{
        framed::{frame, unframe},
        manifest::Unreadable,
    },
    model::checkpoint::CheckpointId,
};

const MAGIC: &str = "tidemill-entry";
const VERSION: u32 = 1;

/// Where entries are.
pub(super) const LOG: &str = "log/";
/// Where blocks are.
pub(super) const BLOCKS: &str = "blocks/";
/// A block is not longer.
pub(super) const BLOCK_BYTES_MAX: u64 = 8 << 20;
/// A longer entry is not read.
pub(super) const ENTRY_BYTES_MAX: u64 = 1 << 30;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Name of the job.
    pub(super) job: String,
    /// The claim under which it was written: its number in the log.
    pub(super) claim: u64,
    /// The greatest attempt so far.
    pub(super) attempt: u64,
    /// A random number of the process that wrote it.
    pub(super) owner: String,
    /// The checkpoints before it that count.
    pub(super) earlier: Vec<Earlier>,
    /// What it says.
    #[serde(flatten)]
    pub(super) contents: Contents,
}

/// A checkpoint in the log that counts. Another entry of that number does not: its number was free again when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Earlier {
    /// The number of its entry.
    pub(super) entry: u64,
    /// The claim under which it was written.
    pub(super) claim: u64,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Contents {
    /// From here on the log is that process's.
    Claim,
    /// A checkpoint is complete.
    Checkpoint(Kept),
}

/// A checkpoint that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Its number.
    pub(super) checkpoint: CheckpointId,
    /// Every file that its manifest needs.
    pub(super) files: Vec<StoredFile>,
    /// The manifest, as it is on disk.
    pub(super) manifest: String,
}

/// A file in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredFile {
    /// Its path in the job's directory.
    pub(super) path: String,
    /// Its bytes, in order.
    pub(super) blocks: Vec<Block>,
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block {
    /// The attempt that wrote it; 0, and not written, in a savepoint, which has a name of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) attempt: u64,
    /// Its number in the attempt, or in the savepoint.
    pub(super) number: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// Its CRC-32C.
    pub(super) checksum: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Block {
    /// Whether these are its bytes.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        (bytes.len() as u64, checksum(bytes)) == (self.bytes, self.checksum)
    }

    /// Name of its object, if it is one of a checkpoint.
    pub(super) fn key(&self) -> String {
        format!("{BLOCKS}{:020}/{:020}", self.attempt, self.number)
    }
}

impl StoredFile {
    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.bytes).sum()
    }
}

impl Kept {
    /// The names of all blocks.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.blocks().map(Block::key).collect()
    }

    /// All blocks.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.files.iter().flat_map(|file| &file.blocks)
    }

    /// Whether all files and blocks are such as jobs have; the error says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        for file in &self.files {
            let inside = Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_)));
            if !inside || !file.path.starts_with("state/") {
                return Err(format!("it names the file `{}`, which no job has", file.path));
            }
            if file.blocks.iter().any(|block| block.bytes > BLOCK_BYTES_MAX) {
                return Err(format!("a block of `{}` is longer than blocks are", file.path));
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Its bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Strings, numbers and lists of them cannot fail to be written.
        frame(MAGIC, VERSION, &serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads an entry; the error says what is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let json = unframe(MAGIC, VERSION, bytes)?;
        let entry: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if let Contents::Checkpoint(kept) = &entry.contents {
            kept.check()?;
        }
        Ok(entry)
    }
}

/// Name of an entry.
pub(super) fn log_key(at: u64) -> String {
    format!("{LOG}{at:020}")
}

/// The number of the entry of this name.
pub(super) fn number_of(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(LOG)?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// The attempt that wrote the block of this name.
pub(super) fn attempt_of(key: &str) -> Option<u64> {
    key.strip_prefix(BLOCKS)?.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        let block = Block { attempt: 3, number: 42, bytes: 7, checksum: 5 };
        let files = vec![StoredFile { path: path.to_owned(), blocks: vec![block] }];
        Entry {
            job: "orders".to_owned(),
            claim: 6,
            attempt: 3,
            owner: "0f".to_owned(),
            earlier: vec![Earlier { entry: 5, claim: 4 }],
            contents: Contents::Checkpoint(Kept { checkpoint: 9, files, manifest: "text".to_owned() }),
        }
    }

    #[test]
    fn entries_come_back_and_no_changed_byte_is_believed() {
        let claim = Entry { contents: Contents::Claim, ..entry("state/1/a/0/part") };
        for entry in [entry("state/1/a/0/part"), claim] {
            let bytes = entry.encode();
            assert_eq!(Entry::decode(&bytes).unwrap(), entry);
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(Entry::decode(&changed).is_err(), "byte {at}");
                assert!(Entry::decode(&bytes[..at]).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn names_lead_back_to_numbers() {
        assert_eq!(number_of(&log_key(7)), Some(7));
        assert_eq!(number_of("log/7"), None);
        let block = Block { attempt: 3, number: 42, bytes: 7, checksum: 5 };
        assert_eq!(block.key(), "blocks/00000000000000000003/00000000000000000042");
        assert_eq!(attempt_of(&block.key()), Some(3));
    }

    #[test]
    fn no_entry_leads_out_of_the_jobs_directory() {
        for path in ["../x", "/etc/passwd", "state/../../x", "job", "state/1/../../../x"] {
            assert!(Entry::decode(&entry(path).encode()).is_err(), "{path}");
        }
    }
}
