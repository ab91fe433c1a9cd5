//! Bit rot: between two lives of a process a byte of its newest checkpoint has changed on the disk.
//!
//! What the next life may do follows from where the byte is. The manifest, and the parts of the state that it names, are read
//! before anything else happens: the checkpoint before is gone on from, or, if there is none, the job refuses to start and names the file.
//! Other files may be needed by both, or the byte by neither. Where a remote store has the checkpoint too, it is brought back from there, and
//! nothing else changes.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tidemill_engine::{
    model::{checkpoint::CheckpointId, checkpoint_error::CheckpointError, error::Error},
    platform::Random,
};
use tidemill_storage::snapshot::disk::{Disk, memory::MemoryDisk};

/// A byte of the newest checkpoint that has changed.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    file: PathBuf,
    offset: u64,
    bits: u8,
    /// The checkpoint.
    pub(super) newest: CheckpointId,
    /// The one before, if it is kept.
    before: Option<CheckpointId>,
    /// Whether every start reads the byte, of this checkpoint alone.
    is_plain: bool,
    /// Whether a remote store has the checkpoint, too.
    has_copy: bool,
}

/// What a life did that began with a damaged checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dealt {
    /// It went on from the one before.
    WentBack(CheckpointId),
    /// It refused to start.
    Refused,
    /// It went on as if nothing were damaged: the file was brought back.
    BroughtBack,
    /// The same, and perhaps nobody has read the byte yet.
    NotSeen,
    /// It was over before that was known.
    Unknown,
}

impl Damage {
    /// Damages the newest checkpoint in a job's directory, if there is one. Those of `rotten` are damaged already.
    pub(super) fn draw(
        disk: &MemoryDisk,
        directory: &Path,
        rotten: &BTreeSet<CheckpointId>,
        has_copy: bool,
        random: &mut Random,
    ) -> Option<Self> {
        let mut manifests = manifests(disk, directory);
        manifests.retain(|(checkpoint, _)| !rotten.contains(checkpoint));
        let (newest, manifest) = manifests.pop()?;
        let parts = parts(disk, directory, &manifest);
        let older: BTreeSet<PathBuf> =
            manifests.iter().flat_map(|(_, manifest)| self::parts(disk, directory, manifest)).collect();
        let one_of = |files: &[PathBuf], random: &mut Random| {
            let at = (!files.is_empty()).then(|| random.below(files.len() as u64))?;
            files.get(at as usize).cloned()
        };
        let part = one_of(&parts, random);
        let (file, is_plain) = match (random.below(4), part) {
            (0, Some(part)) => {
                let is_plain = !older.contains(&part);
                (part, is_plain)
            }
            (1, Some(part)) => {
                let store = disk.list(part.parent().unwrap_or(directory)).unwrap_or_default();
                let others: Vec<PathBuf> = store.into_iter().filter(|file| !parts.contains(file)).collect();
                (one_of(&others, random)?, false)
            }
            _ => (manifest, true),
        };
        let length = disk.contents(&file)?.len() as u64;
        let offset = (length > 0).then(|| random.below(length))?;
        let bits = 1 << random.below(8);
        let before = manifests.last().map(|(before, _)| *before);
        disk.rot(&file, offset, bits).then_some(Self {
            file,
            offset,
            bits,
            newest,
            before,
            is_plain,
            has_copy,
        })
    }

    /// Gives the byte back, as somebody does who has a copy.
    pub(super) fn mend(&self, disk: &MemoryDisk) {
        disk.rot(&self.file, self.offset, self.bits);
    }

    /// What happened, in words.
    pub(super) fn story(&self) -> String {
        let Self { file, offset, newest, .. } = self;
        format!("a byte of checkpoint {newest} has changed on the disk: {}, at {offset}", file.display())
    }

    /// What the next life did about it, which went on from `restored_from` and ended like this.
    ///
    /// # Errors
    /// In words, when it may not.
    pub(super) fn judge(
        &self,
        restored_from: Option<CheckpointId>,
        outcome: &Result<(), Error>,
    ) -> Result<Dealt, String> {
        let Self { newest, before, is_plain, has_copy, .. } = self;
        let file = self.file.display();
        if let Err(Error::Checkpoint(error)) = outcome
            && matches!(**error, CheckpointError::NoneWhole { .. })
        {
            return match before {
                _ if *has_copy => {
                    Err(format!("it refused to start, though the remote store has checkpoint {newest}"))
                }
                Some(before) if *is_plain => {
                    Err(format!("it refused to start, though checkpoint {before} is whole"))
                }
                // What is taken over at a restart has a name more.
                _ if *is_plain && !error.to_string().contains(&*file.to_string()) => {
                    Err(format!("it refused to start, and did not name {file}, which is damaged: {error}"))
                }
                _ => Ok(Dealt::Refused),
            };
        }
        match restored_from {
            None if outcome.is_ok() => Err(format!("{file} was damaged, and the job began anew")),
            None => Ok(Dealt::Unknown),
            Some(from) if *has_copy && from < *newest => {
                Err(format!("it went on from checkpoint {from}, though the remote store has {newest}"))
            }
            Some(from) if *is_plain && from < *newest && Some(from) != *before => Err(format!(
                "it went on from checkpoint {from}, and {before:?} is the one before the damaged"
            )),
            Some(from) if *is_plain && !*has_copy && from >= *newest => {
                Err(format!("it went on from checkpoint {from}, though {file} is damaged"))
            }
            Some(from) if from < *newest => Ok(Dealt::WentBack(from)),
            Some(_) if *is_plain => Ok(Dealt::BroughtBack),
            Some(_) => Ok(Dealt::NotSeen),
        }
    }
}

/// The manifests of a directory by the numbers of their checkpoints, the oldest first.
fn manifests(disk: &MemoryDisk, directory: &Path) -> Vec<(CheckpointId, PathBuf)> {
    let files = disk.list(&directory.join("checkpoints")).unwrap_or_default();
    let numbered = files.into_iter().filter_map(|file| {
        let number = file.file_name()?.to_str()?.parse().ok()?;
        Some((number, file))
    });
    numbered.collect()
}

/// The parts of keyed state that a manifest names.
fn parts(disk: &MemoryDisk, directory: &Path, manifest: &Path) -> Vec<PathBuf> {
    let text = disk.contents(manifest).unwrap_or_default();
    let json = text.split(|byte| *byte == b'\n').skip(1).collect::<Vec<_>>().join(&b'\n');
    let manifest: Value = serde_json::from_slice(&json).unwrap_or_default();
    let each = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let subtasks = each(&manifest, "operators").into_iter().flat_map(|operator| each(&operator, "subtasks"));
    subtasks.filter_map(|subtask| Some(directory.join(subtask["state"].as_str()?))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What is said of a life behind the damage of checkpoint 7, which has 5 before it or nothing.
    fn judged(
        damage: (Option<CheckpointId>, bool, bool),
        from: Option<CheckpointId>,
        refuses: Option<&str>,
    ) -> Result<Dealt, String> {
        let (before, is_plain, has_copy) = damage;
        let file = PathBuf::from("/checkpoints/7");
        let damage = Damage { file, offset: 0, bits: 1, newest: 7, before, is_plain, has_copy };
        let outcome = refuses.map_or(Ok(()), |reasons| {
            let none =
                CheckpointError::NoneWhole { directory: "/checkpoints".into(), reasons: reasons.to_owned() };
            Err(Error::Checkpoint(Arc::new(none)))
        });
        damage.judge(from, &outcome)
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over_or_refused_by_name_and_never_a_fresh_start() {
        let named = Some("/checkpoints/7 is damaged");
        let with_one_before = (Some(5), true, false);
        assert_eq!(judged(with_one_before, Some(5), None), Ok(Dealt::WentBack(5)));
        for (from, refuses) in
            [(None, None), (Some(4), None), (Some(7), None), (Some(8), None), (None, named)]
        {
            assert!(judged(with_one_before, from, refuses).is_err(), "{from:?}, {refuses:?}");
        }
        let alone = (None, true, false);
        assert_eq!(judged(alone, None, named), Ok(Dealt::Refused));
        for (from, refuses) in
            [(None, None), (Some(5), None), (Some(7), None), (None, Some("some file is damaged"))]
        {
            assert!(judged(alone, from, refuses).is_err(), "{from:?}, {refuses:?}");
        }
        let with_a_copy = (Some(5), true, true);
        assert_eq!(judged(with_a_copy, Some(7), None), Ok(Dealt::BroughtBack));
        for (from, refuses) in [(None, None), (Some(5), None), (None, named)] {
            assert!(judged(with_a_copy, from, refuses).is_err(), "{from:?}, {refuses:?}");
        }
        // A file that both need, or a byte that nobody does.
        let shared = (Some(5), false, false);
        assert_eq!(judged(shared, None, named), Ok(Dealt::Refused));
        assert_eq!(judged(shared, Some(5), None), Ok(Dealt::WentBack(5)));
        assert_eq!(judged(shared, Some(7), None), Ok(Dealt::NotSeen));
        assert!(judged(shared, None, None).is_err());
    }
}
