//! A checkpoint's manifest: one file that says all there is to know of it and names the files of its keyed state.
//!
//! ```text
//! tidemill-checkpoint 1 <checksum: CRC-32C of the rest, 8 hexadecimal digits> <length of the rest>\n
//! { JSON }
//! ```
//!
//! It is text so that a person can read it; bytes of operators and sinks are in base64, and paths are relative to
//! the directory that the manifest's own directory is in.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tidemill_storage::snapshot::disk::{Disk, read_whole};

use super::framed::{frame, unframe};
use crate::model::{
    checkpoint::{ChannelEnd, CheckpointId, InFlight, OperatorState, Restored, SplitPart, SubtaskState},
    checkpoint_error::CheckpointError,
    time::Timestamp,
};

/// First word of every manifest.
const MAGIC: &str = "tidemill-checkpoint";
/// Version of the format.
const VERSION: u32 = 1;
/// A longer manifest is not read.
pub(super) const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// What a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManifestKind {
    /// Kept by the job, and given up by it.
    Checkpoint,
    /// Whole in a directory of its own, and the user's.
    Savepoint,
}

/// What a job began with, at the first of all the starts that led to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Beginning {
    /// With nothing.
    Nothing,
    /// With the savepoint in this place.
    Savepoint(String),
}

impl fmt::Display for Beginning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => formatter.write_str("nothing"),
            Self::Savepoint(place) => write!(formatter, "the savepoint {place}"),
        }
    }
}

/// Everything about one checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct JobManifest {
    /// Name of the job.
    pub job: String,
    /// Its number.
    pub checkpoint: CheckpointId,
    /// What it is.
    pub kind: ManifestKind,
    /// When it was complete, in milliseconds since the Unix epoch.
    pub wall_millis: i64,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// What the job began with; `None` if a version wrote it that did not note that.
    pub beginning: Option<Beginning>,
    /// What operators have in it, by stable id. Paths are those of the file system.
    pub operators: Restored,
}

#[derive(Serialize, Deserialize)]
struct StoredManifest {
    job: String,
    checkpoint: CheckpointId,
    kind: ManifestKind,
    wall_millis: i64,
    max_parallelism: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beginning: Option<Beginning>,
    operators: Vec<StoredOperator>,
}

#[derive(Serialize, Deserialize)]
struct StoredOperator {
    id: String,
    name: String,
    subtasks: Vec<StoredSubtask>,
}

#[derive(Serialize, Deserialize)]
struct StoredSubtask {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    splits: Option<Vec<StoredSplit>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    committables: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    in_flight: Vec<StoredInFlight>,
}

#[derive(Serialize, Deserialize)]
struct StoredInFlight {
    from: usize,
    to: usize,
    producers: usize,
    consumers: usize,
    end: ChannelEnd,
    schema: String,
    elements: String,
}

#[derive(Serialize, Deserialize)]
struct StoredSplit {
    newest: Timestamp,
    schema: String,
    split: String,
}

impl JobManifest {
    /// The file's bytes, with paths relative to `root`.
    pub fn encode(&self, root: &Path) -> Vec<u8> {
        let operators = self.operators.iter().map(|(id, operator)| StoredOperator {
            id: id.clone(),
            name: operator.name.clone(),
            subtasks: operator.subtasks.iter().map(|subtask| store(subtask, root)).collect(),
        });
        let stored = StoredManifest {
            job: self.job.clone(),
            checkpoint: self.checkpoint,
            kind: self.kind,
            wall_millis: self.wall_millis,
            max_parallelism: self.max_parallelism,
            beginning: self.beginning.clone(),
            operators: operators.collect(),
        };
        // Strings, numbers and lists of them cannot fail to be written.
        let json = serde_json::to_vec_pretty(&stored).unwrap_or_default();
        frame(MAGIC, VERSION, &json)
    }

    /// Reads the manifest in `file`, whose paths are relative to `root`.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is of a newer version.
    pub fn read(disk: &dyn Disk, file: &Path, root: &Path) -> Result<Self, CheckpointError> {
        let bytes = read_whole(disk, file, MANIFEST_BYTES_MAX)?;
        let file = file.to_owned();
        Self::decode(&bytes, root).map_err(|unreadable| match unreadable {
            Unreadable::Newer(found) => CheckpointError::NewerVersion { file, found, known: VERSION },
            Unreadable::Damaged(what) => CheckpointError::Manifest { file, what },
        })
    }

    /// Reads a manifest's bytes; the error says what is wrong.
    ///
    /// # Errors
    /// When they are damaged or of a newer version.
    pub fn decode(bytes: &[u8], root: &Path) -> Result<Self, Unreadable> {
        let json = unframe(MAGIC, VERSION, bytes)?;
        let stored: StoredManifest = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut operators = Restored::new();
        for StoredOperator { id, name, subtasks } in stored.operators {
            let subtasks =
                subtasks.into_iter().map(|subtask| restore(subtask, root)).collect::<Result<_, _>>()?;
            operators.insert(id, OperatorState { name, subtasks });
        }
        Ok(Self {
            job: stored.job,
            checkpoint: stored.checkpoint,
            kind: stored.kind,
            wall_millis: stored.wall_millis,
            max_parallelism: stored.max_parallelism,
            beginning: stored.beginning,
            operators,
        })
    }

    /// What its sinks have prepared, of one operator.
    pub fn committables(&self, operator: &str) -> Vec<Vec<u8>> {
        let subtasks = self.operators.get(operator).map(|state| &state.subtasks[..]).unwrap_or_default();
        subtasks.iter().flat_map(|subtask| subtask.committables.clone()).collect()
    }
}

/// Why a manifest cannot be read.
#[derive(Debug)]
pub enum Unreadable {
    /// What is wrong with it.
    Damaged(String),
    /// It has this version of the format.
    Newer(u32),
}

impl From<String> for Unreadable {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

fn store(subtask: &SubtaskState, root: &Path) -> StoredSubtask {
    let relative = |path: &PathBuf| path.strip_prefix(root).unwrap_or(path).to_owned();
    let split = |part: &SplitPart| StoredSplit {
        newest: part.newest,
        schema: part.schema.to_string(),
        split: STANDARD.encode(&part.bytes),
    };
    let in_flight = |part: &InFlight| StoredInFlight {
        from: part.from,
        to: part.to,
        producers: part.producers,
        consumers: part.consumers,
        end: part.end,
        schema: part.schema.to_string(),
        elements: STANDARD.encode(&part.bytes),
    };
    StoredSubtask {
        in_flight: subtask.in_flight.iter().map(in_flight).collect(),
        bytes: subtask.bytes.as_ref().map(|bytes| STANDARD.encode(bytes)),
        splits: subtask.splits.as_ref().map(|splits| splits.iter().map(split).collect()),
        committables: subtask.committables.iter().map(|bytes| STANDARD.encode(bytes)).collect(),
        state: subtask.manifest.as_ref().map(relative),
    }
}

fn restore(stored: StoredSubtask, root: &Path) -> Result<SubtaskState, String> {
    let bytes = |text: String| STANDARD.decode(text).map_err(|error| error.to_string());
    let split = |stored: StoredSplit| {
        let StoredSplit { newest, schema, split } = stored;
        Ok::<_, String>(SplitPart { newest, schema: schema.into(), bytes: bytes(split)? })
    };
    let in_flight = |stored: StoredInFlight| {
        let StoredInFlight { from, to, producers, consumers, end, schema, elements } = stored;
        let (schema, bytes) = (schema.into(), bytes(elements)?);
        Ok::<_, String>(InFlight { from, to, producers, consumers, end, schema, bytes })
    };
    Ok(SubtaskState {
        in_flight: stored.in_flight.into_iter().map(in_flight).collect::<Result<_, _>>()?,
        bytes: stored.bytes.map(bytes).transpose()?,
        splits: stored.splits.map(|splits| splits.into_iter().map(split).collect()).transpose()?,
        committables: stored.committables.into_iter().map(bytes).collect::<Result<_, _>>()?,
        manifest: stored.state.map(|path| root.join(path)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> JobManifest {
        let split = SplitPart { newest: -5, schema: "u64".into(), bytes: vec![1, 2, 3] };
        let source = SubtaskState { splits: Some(vec![split]), ..SubtaskState::default() };
        let in_flight = InFlight {
            from: 0,
            to: 1,
            producers: 2,
            consumers: 3,
            end: ChannelEnd::Sender,
            schema: "u64".into(),
            bytes: vec![3, 4],
        };
        let counter = SubtaskState {
            in_flight: vec![in_flight],
            bytes: Some(vec![0, 255]),
            committables: vec![b"file".to_vec(), Vec::new()],
            manifest: Some("/job/state/1/count/0/part-7.tmm".into()),
            ..SubtaskState::default()
        };
        let state = |name: &str, subtasks| OperatorState { name: name.to_owned(), subtasks };
        JobManifest {
            job: "orders".to_owned(),
            checkpoint: 7,
            kind: ManifestKind::Checkpoint,
            wall_millis: 1_577_836_800_000,
            max_parallelism: 128,
            beginning: Some(Beginning::Savepoint("s3://savepoints/orders".to_owned())),
            operators: [
                ("0-source".to_owned(), state("source", vec![source, SubtaskState::default()])),
                ("count".to_owned(), state("counts", vec![counter])),
            ]
            .into(),
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was_also_from_another_place() {
        let manifest = manifest();
        let bytes = manifest.encode(Path::new("/job"));
        assert_eq!(JobManifest::decode(&bytes, Path::new("/job")).unwrap(), manifest);
        let moved = JobManifest::decode(&bytes, Path::new("/elsewhere")).unwrap();
        let path = moved.operators["count"].subtasks[0].manifest.clone().unwrap();
        assert_eq!(path, Path::new("/elsewhere/state/1/count/0/part-7.tmm"));
    }

    #[test]
    fn a_manifest_that_does_not_say_what_the_job_began_with_is_read() {
        let older = JobManifest { beginning: None, ..manifest() };
        let bytes = older.encode(Path::new("/job"));
        assert!(!String::from_utf8_lossy(&bytes).contains("beginning"), "as the versions before wrote it");
        assert_eq!(JobManifest::decode(&bytes, Path::new("/job")).unwrap(), older);
    }

    #[test]
    fn no_changed_byte_and_no_cut_is_believed() {
        let bytes = manifest().encode(Path::new("/job"));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(JobManifest::decode(&changed, Path::new("/job")).is_err(), "byte {at}");
            assert!(JobManifest::decode(&bytes[..at], Path::new("/job")).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_in_words() {
        let text = String::from_utf8(manifest().encode(Path::new("/job"))).unwrap();
        let newer = text.replacen("tidemill-checkpoint 1", "tidemill-checkpoint 2", 1);
        let unreadable = JobManifest::decode(newer.as_bytes(), Path::new("/job")).unwrap_err();
        assert!(matches!(unreadable, Unreadable::Newer(2)), "{unreadable:?}");
    }
}
