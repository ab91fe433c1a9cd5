//! A check of files that a simulated job writes rows into as they come.
//!
//! What follows the newest complete checkpoint comes and goes. What that checkpoint knows of the files may not: it is compared with what was
//! there when the checkpoint was first seen, whenever something on the disk has changed, and behind each power cut. A checkpoint that a power
//! cut takes itself is forgotten.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidemill_engine::{control::manifest::JobManifest, model::source::BoxError, platform::Random};
use tidemill_storage::snapshot::disk::{Disk, memory::MemoryDisk};

use super::{
    Counts, difference,
    files::{add, read},
    life::DIRECTORY,
    outside::{Act, Outside, when_changed},
};
use crate::{api::environment::StreamEnvironment, sink::known_bytes};

/// The last roll of what a power cut takes.
const LAST_CUT: u64 = 1;

/// What the newest complete checkpoint knows.
#[derive(Default)]
struct Known {
    /// Its manifest.
    newest: Option<PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// What was wrong first.
    wrong: Option<String>,
}

impl Known {
    fn look(&mut self, disk: &MemoryDisk) {
        let newest = newest(disk);
        if newest >= self.newest {
            self.compare(disk);
        }
        if newest != self.newest {
            self.files = newest.as_ref().map(|newest| self.of(disk, newest)).unwrap_or_default();
            self.newest = newest;
        }
    }

    /// What a checkpoint knows, as it is there now.
    fn of(&mut self, disk: &MemoryDisk, manifest: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let read = disk.contents(manifest).unwrap_or_default();
        // One that is damaged is not gone on from.
        let Ok(manifest) = JobManifest::decode(&read, Path::new("")) else { return BTreeMap::new() };
        let checkpoint = manifest.checkpoint;
        let subtasks = manifest.operators.values().flat_map(|operator| &operator.subtasks);
        let mut files = BTreeMap::<PathBuf, Vec<u8>>::new();
        for (path, bytes) in subtasks.flat_map(|subtask| &subtask.committables).filter_map(known_bytes) {
            let contents = disk.contents(&path).unwrap_or_default();
            match contents.get(..bytes as usize) {
                // What was carried over from one that failed knows less.
                Some(known) if files.get(&path).is_none_or(|other| other.len() < known.len()) => {
                    files.insert(path, known.to_owned());
                }
                Some(_) => {}
                None => self.is_wrong(format!(
                    "checkpoint {checkpoint} knows {bytes} bytes of {}, which has {}",
                    path.display(),
                    contents.len()
                )),
            }
        }
        files
    }

    /// Whether what is known is there still.
    fn compare(&mut self, disk: &MemoryDisk) {
        let is_lost = |(path, known): &(&PathBuf, &Vec<u8>)| {
            !disk.contents(path).is_some_and(|contents| contents.starts_with(known))
        };
        let lost = self.files.iter().find(is_lost).map(|(path, known)| {
            let (path, bytes) = (path.display(), known.len());
            format!("{path} has changed within the {bytes} bytes that a complete checkpoint knows")
        });
        lost.into_iter().for_each(|lost| self.is_wrong(lost));
    }

    fn is_wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }
}

/// The manifest of the newest complete checkpoint. The job has kept them in another directory behind each savepoint that it has begun with.
fn newest(disk: &MemoryDisk) -> Option<PathBuf> {
    let directories = disk.list(Path::new("/")).unwrap_or_default();
    let own = directories.into_iter().filter(|path| path.to_string_lossy().starts_with(DIRECTORY));
    let manifests = own.flat_map(|own| disk.list(&own.join("checkpoints")).unwrap_or_default());
    // What is being written has another name.
    manifests.filter(|path| path.extension().is_none()).max()
}

/// The files under a directory, with the job that writes there.
pub(super) struct InPlace<'a, R, D> {
    disk: MemoryDisk,
    directory: PathBuf,
    known: Arc<Mutex<Known>>,
    /// Says what one file holds.
    rows: &'a R,
    expected: &'a Counts,
    describe: &'a D,
}

impl<'a, R, D> InPlace<'a, R, D> {
    pub(super) fn new(
        disk: MemoryDisk,
        directory: &Path,
        rows: &'a R,
        expected: &'a Counts,
        describe: &'a D,
    ) -> Self {
        Self { disk, directory: directory.to_owned(), known: Arc::default(), rows, expected, describe }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All files but hidden ones.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = self.disk.files();
        files.retain(|path, _| {
            let is_hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
            path.strip_prefix(&self.directory).is_ok_and(|inside| !inside.components().any(is_hidden))
        });
        files
    }
}

impl<R, D> Outside for InPlace<'_, R, D>
where
    R: Fn(&[u8]) -> Result<Counts, BoxError>,
    D: Fn(&StreamEnvironment),
{
    fn describe(&self, environment: &StreamEnvironment) {
        (self.describe)(environment);
    }

    fn onlooker(&self) -> Option<Act> {
        Some(when_changed(&self.disk, &self.known, Known::look))
    }

    fn is_on_the_machine(&self) -> bool {
        true
    }

    fn life_is_over(&self, _: bool) {
        self.lock().look(&self.disk);
    }

    fn recover_from_crash(&self, _: &mut Random) {
        self.lock().look(&self.disk);
    }

    fn wrong(&self) -> Option<String> {
        self.disk.crash(LAST_CUT);
        let mut known = self.lock();
        known.look(&self.disk);
        if known.wrong.is_some() {
            return known.wrong.clone();
        }
        let mut found = Counts::new();
        for (path, contents) in self.contents() {
            match read(self.rows, &path, &contents) {
                Ok(rows) => add(&mut found, rows),
                Err(error) => return Some(error),
            }
        }
        difference(self.expected, &found)
    }

    fn files(&self) -> u64 {
        self.contents().len() as u64
    }
}

#[cfg(test)]
mod tests {
    use tidemill_engine::{
        control::manifest::ManifestKind,
        model::checkpoint::{CheckpointId, OperatorState, SubtaskState},
    };

    use super::{
        super::{counted, json_rows},
        *,
    };

    /// What is said of a job that does this, and looks in between.
    fn wrong(act: impl Fn(&MemoryDisk, &dyn Fn())) -> Option<String> {
        let disk = MemoryDisk::default();
        let expected = counted([1_u64, 2]);
        let describe = |_: &StreamEnvironment| {};
        let rows = |file: &[u8]| json_rows::<u64>(file).map(counted);
        let files = InPlace::new(disk.clone(), Path::new("/out"), &rows, &expected, &describe);
        let look = files.onlooker().unwrap();
        act(&disk, &*look);
        files.life_is_over(true);
        files.wrong()
    }

    /// Writes on in a file; durably, if it is to be.
    fn write(disk: &MemoryDisk, path: &str, bytes: &[u8], is_durable: bool) {
        let path = Path::new(path);
        disk.append(path).unwrap().write(bytes).unwrap();
        if is_durable {
            disk.sync_file(path).unwrap();
            disk.sync_directory(path.parent().unwrap()).unwrap();
        }
    }

    /// Completes a checkpoint that knows so many bytes of a file.
    fn complete(disk: &MemoryDisk, directory: &str, checkpoint: CheckpointId, path: &str, bytes: u64) {
        let known = format!(r#"{{"part":0,"bytes":{bytes},"path":"{path}"}}"#).into_bytes();
        let subtask = SubtaskState { committables: vec![known], ..SubtaskState::default() };
        let operator = OperatorState { name: "out".to_owned(), subtasks: vec![subtask] };
        let manifest = JobManifest {
            job: "job".to_owned(),
            checkpoint,
            kind: ManifestKind::Checkpoint,
            wall_millis: 0,
            max_parallelism: 1,
            beginning: None,
            operators: [("out".to_owned(), operator)].into(),
        };
        let path = format!("{directory}/checkpoints/{checkpoint:020}");
        disk.put(Path::new(&path), &manifest.encode(Path::new(directory)));
        // That counts as no operation.
        disk.write_whole(Path::new("/something"), b"").unwrap();
    }

    #[test]
    fn rows_that_come_and_go_behind_a_checkpoint_are_not_looked_at() {
        let goes_back = |disk: &MemoryDisk, look: &dyn Fn()| {
            write(disk, "/out/a", b"1\n", true);
            complete(disk, "/checkpoints", 1, "/out/a", 2);
            look();
            write(disk, "/out/a", b"1\n3", false);
            write(disk, "/out/.hidden", b"4", true);
            look();
            disk.cut(Path::new("/out/a"), 2).unwrap();
            look();
            write(disk, "/out/part/b", b"2\n", true);
        };
        assert_eq!(wrong(goes_back), None);
    }

    #[test]
    fn what_is_missing_twice_torn_or_not_durable_in_the_end_is_said() {
        let ends =
            |bytes: &'static [u8], is_durable| wrong(move |disk, _| write(disk, "/out/a", bytes, is_durable));
        assert_eq!(ends(b"1\n2\n", true), None);
        assert!(ends(b"1\n", true).unwrap().contains("2: 0 times instead of 1"));
        assert!(ends(b"1\n2\n1\n", true).unwrap().contains("1: 2 times instead of 1"));
        assert!(ends(b"1\n2", true).unwrap().contains("cut off"));
        assert!(ends(b"1\n2\n", false).is_some());
    }

    #[test]
    fn what_a_checkpoint_knows_may_not_change_also_where_another_follows() {
        for follows in [None, Some("/checkpoints"), Some("/checkpoints-1")] {
            let begins_anew = |disk: &MemoryDisk, look: &dyn Fn()| {
                write(disk, "/out/a", b"1\n", true);
                complete(disk, "/checkpoints", 9, "/out/a", 2);
                look();
                disk.cut(Path::new("/out/a"), 0).unwrap();
                write(disk, "/out/a", b"2\n1\n", true);
                if let Some(directory) = follows {
                    complete(disk, directory, 10, "/out/a", 4);
                }
                look();
            };
            let said = wrong(begins_anew).unwrap();
            assert!(said.contains("/out/a has changed within the 2 bytes"), "{said}");
        }
        let knows_too_much = |disk: &MemoryDisk, look: &dyn Fn()| {
            write(disk, "/out/a", b"1\n2\n", true);
            complete(disk, "/checkpoints", 1, "/out/a", 5);
            look();
        };
        assert!(wrong(knows_too_much).unwrap().contains("knows 5 bytes of /out/a, which has 4"));
    }

    #[test]
    fn a_checkpoint_that_a_power_cut_takes_is_forgotten() {
        let lost = |disk: &MemoryDisk, look: &dyn Fn()| {
            write(disk, "/out/a", b"2\n", true);
            complete(disk, "/checkpoints", 1, "/out/a", 2);
            look();
            disk.remove(Path::new("/checkpoints/checkpoints/00000000000000000001")).unwrap();
            disk.cut(Path::new("/out/a"), 0).unwrap();
            look();
            write(disk, "/out/a", b"1\n2\n", true);
        };
        assert_eq!(wrong(lost), None);
    }
}
