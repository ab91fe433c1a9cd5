//! A reader of the files that a simulated job writes.
//!
//! It looks into the directory whenever something on the disk has changed, as one may that runs beside the job, and takes each
//! file once, when it first sees it. So a row is wrong that is in a file before its checkpoint is complete: a later life takes
//! the file back, or writes the row again to another one. A file may go away with a power cut, until the next life has begun.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::de::DeserializeOwned;
use tidemill_engine::{model::source::BoxError, platform::Random};
use tidemill_storage::snapshot::disk::{Disk, memory::MemoryDisk};

use super::{
    Counts, difference,
    outside::{Act, Outside, when_changed},
};
use crate::{api::environment::StreamEnvironment, sink::DeliveryGuarantee};

/// The rows of a CSV file with a header, as [`FileSink::csv`](crate::sink::FileSink::csv) writes them; for
/// [`Simulation::check_files`](super::Simulation::check_files).
///
/// # Errors
/// When the last line is cut off, or a row is none of a `T`.
pub fn csv_rows<T: DeserializeOwned>(file: &[u8]) -> Result<Vec<T>, BoxError> {
    whole_lines(file)?;
    let rows = csv::Reader::from_reader(file).into_deserialize().collect::<Result<_, _>>()?;
    Ok(rows)
}

/// The rows of a file of one JSON value per line, as [`FileSink::json_lines`](crate::sink::FileSink::json_lines) writes them; for
/// [`Simulation::check_files`](super::Simulation::check_files).
///
/// # Errors
/// When the last line is cut off, or a row is none of a `T`.
pub fn json_rows<T: DeserializeOwned>(file: &[u8]) -> Result<Vec<T>, BoxError> {
    whole_lines(file)?;
    let lines = file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let rows = lines.map(serde_json::from_slice).collect::<Result<_, _>>()?;
    Ok(rows)
}

fn whole_lines(file: &[u8]) -> Result<(), BoxError> {
    match file.last() {
        None | Some(b'\n') => Ok(()),
        Some(_) => Err("the last line is cut off".into()),
    }
}

/// What the reader has taken.
#[derive(Default)]
struct Taken {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// What was wrong first.
    wrong: Option<String>,
}

impl Taken {
    fn is_wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// Takes the files that were not there before.
    fn take_new(&mut self, disk: &MemoryDisk, directory: &Path) {
        let is_hidden =
            |path: &Path| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let paths = match disk.list(directory) {
            Ok(paths) => paths,
            Err(error) => return self.is_wrong(format!("{} cannot be read: {error}", directory.display())),
        };
        for path in paths.into_iter().filter(|path| !is_hidden(path)) {
            if let Entry::Vacant(new) = self.files.entry(path) {
                // Directories have no contents.
                let contents = disk.contents(new.key());
                contents.map(|contents| new.insert(contents));
            }
        }
    }

    /// Takes new files, and looks whether the others are as they were.
    fn look(&mut self, disk: &MemoryDisk, directory: &Path) {
        self.take_new(disk, directory);
        let changed = self.files.iter().find_map(|(path, taken)| {
            let contents = disk.contents(path).filter(|contents| contents != taken)?;
            let (path, before, now) = (path.display(), taken.len(), contents.len());
            Some(format!("{path} changed when a reader had it: {before} bytes, then {now}"))
        });
        changed.into_iter().for_each(|changed| self.is_wrong(changed));
    }

    fn missing(&self, disk: &MemoryDisk) -> Vec<&PathBuf> {
        self.files.keys().filter(|path| disk.contents(path).is_none()).collect()
    }
}

/// What is to be in the files.
pub(super) struct Wanted<'a, R> {
    /// Says what one file holds.
    pub(super) rows: &'a R,
    pub(super) expected: &'a Counts,
    pub(super) guarantee: DeliveryGuarantee,
}

impl<R> Clone for Wanted<'_, R> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

/// What a file holds; else what is wrong with it.
pub(super) fn read(
    rows: &impl Fn(&[u8]) -> Result<Counts, BoxError>,
    path: &Path,
    contents: &[u8],
) -> Result<Counts, String> {
    rows(contents).map_err(|error| {
        let text = String::from_utf8_lossy(contents);
        format!("{} cannot be read: {error}; it holds:\n{text}", path.display())
    })
}

/// Counts the rows of one more file.
pub(super) fn add(found: &mut Counts, rows: Counts) {
    rows.into_iter().for_each(|(row, count)| *found.entry(row).or_default() += count);
}

/// The reader of a directory, with the job that writes there.
pub(super) struct Files<'a, R, D> {
    disk: MemoryDisk,
    directory: PathBuf,
    taken: Arc<Mutex<Taken>>,
    wanted: Wanted<'a, R>,
    describe: &'a D,
}

impl<'a, R, D> Files<'a, R, D> {
    pub(super) fn new(disk: MemoryDisk, directory: &Path, wanted: Wanted<'a, R>, describe: &'a D) -> Self {
        let (directory, taken) = (directory.to_owned(), Arc::default());
        Self { disk, directory, taken, wanted, describe }
    }

    fn may_come_twice(&self) -> bool {
        self.wanted.guarantee == DeliveryGuarantee::AtLeastOnce
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R, D> Outside for Files<'_, R, D>
where
    R: Fn(&[u8]) -> Result<Counts, BoxError>,
    D: Fn(&StreamEnvironment),
{
    fn describe(&self, environment: &StreamEnvironment) {
        (self.describe)(environment);
    }

    fn onlooker(&self) -> Option<Act> {
        let directory = self.directory.clone();
        Some(when_changed(&self.disk, &self.taken, move |taken, disk| taken.take_new(disk, &directory)))
    }

    fn is_on_the_machine(&self) -> bool {
        true
    }

    fn life_is_over(&self, has_begun: bool) {
        let mut taken = self.lock();
        taken.look(&self.disk, &self.directory);
        // What a power cut took is there again when the next attempt has begun.
        let missing = taken.missing(&self.disk).first().map(|path| path.display().to_string());
        if let Some(path) = missing.filter(|_| has_begun && !self.may_come_twice()) {
            taken.is_wrong(format!("{path} is gone, which a reader had taken"));
        }
    }

    fn recover_from_crash(&self, _: &mut Random) {
        self.lock().look(&self.disk, &self.directory);
    }

    fn wrong(&self) -> Option<String> {
        let taken = self.lock();
        if taken.wrong.is_some() {
            return taken.wrong.clone();
        }
        let mut found = Counts::new();
        for (path, contents) in &taken.files {
            // Of those whose rows may come again only such count as are still there.
            let counts = !self.may_come_twice() || self.disk.contents(path).is_some();
            match read(self.wanted.rows, path, contents) {
                Ok(rows) if counts => add(&mut found, rows),
                Ok(_) => {}
                Err(error) => return Some(error),
            }
        }
        if self.may_come_twice() {
            // Rows that nobody expects are wrong however often they are there.
            let once = |(row, count): (String, u64)| {
                let count = self.wanted.expected.get(&row).map_or(count, |expected| count.min(*expected));
                (row, count)
            };
            found = found.into_iter().map(once).collect();
        }
        difference(self.wanted.expected, &found)
    }

    fn files(&self) -> u64 {
        self.lock().files.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{super::counted, *};

    #[test]
    fn rows_that_are_cut_off_are_none() {
        assert_eq!(csv_rows::<(u64, u64)>(b"a,b\n1,2\n3,4\n").unwrap(), [(1, 2), (3, 4)]);
        assert_eq!(json_rows::<(u64, u64)>(b"[1,2]\n[3,4]\n").unwrap(), [(1, 2), (3, 4)]);
        assert!(csv_rows::<(u64, u64)>(b"a,b\n1,2\n3,45").is_err());
        assert!(csv_rows::<(u64, u64)>(b"a,b\n1,2\n3\n").is_err());
        assert!(json_rows::<u64>(b"1\n2").is_err());
        assert!(json_rows::<(u64, u64)>(b"[1,2]\n[3,\n").is_err());
    }

    /// What a reader says who looks at a directory in which something is done wrong.
    fn wrong(act: impl Fn(&MemoryDisk, &dyn Fn())) -> Option<String> {
        wrong_under(DeliveryGuarantee::ExactlyOnce, act)
    }

    fn wrong_under(guarantee: DeliveryGuarantee, act: impl Fn(&MemoryDisk, &dyn Fn())) -> Option<String> {
        let disk = MemoryDisk::default();
        let expected = counted([1_u64, 2]);
        let describe = |_: &StreamEnvironment| {};
        let read = |file: &[u8]| json_rows::<u64>(file).map(counted);
        let wanted = Wanted { rows: &read, expected: &expected, guarantee };
        let files = Files::new(disk.clone(), Path::new("/out"), wanted, &describe);
        let look = files.onlooker().unwrap();
        act(&disk, &*look);
        files.life_is_over(true);
        files.wrong()
    }

    #[test]
    fn a_reader_sees_what_was_written_too_early_twice_or_in_part() {
        let (a, b) = (Path::new("/out/a"), Path::new("/out/b"));
        let put = |disk: &MemoryDisk, path: &Path, bytes: &[u8]| disk.write_whole(path, bytes).unwrap();
        assert_eq!(wrong(|disk, _| put(disk, a, b"1\n2\n")), None);
        let hidden = |disk: &MemoryDisk, _: &dyn Fn()| {
            put(disk, a, b"1\n2\n");
            put(disk, Path::new("/out/.part"), b"3");
            put(disk, Path::new("/out/.hidden/b"), b"4");
            put(disk, Path::new("/elsewhere/c"), b"5");
        };
        assert_eq!(wrong(hidden), None);
        let twice =
            |disk: &MemoryDisk, _: &dyn Fn()| [a, b].iter().for_each(|path| put(disk, path, b"1\n2\n"));
        assert!(wrong(twice).unwrap().contains("1: 2 times instead of 1"));
        assert!(wrong(|disk, _| put(disk, a, b"1\n")).unwrap().contains("2: 0 times instead of 1"));
        assert!(wrong(|disk, _| put(disk, a, b"1\n2")).unwrap().contains("cut off"));
        let grows = |disk: &MemoryDisk, look: &dyn Fn()| {
            put(disk, a, b"1\n");
            look();
            put(disk, a, b"1\n2\n");
        };
        assert!(wrong(grows).unwrap().contains("changed when a reader had it"));
        let taken_back = |disk: &MemoryDisk, look: &dyn Fn()| {
            put(disk, a, b"1\n");
            look();
            disk.remove(a).unwrap();
            put(disk, b, b"1\n2\n");
        };
        assert!(wrong(taken_back).unwrap().contains("is gone"));

        let at_least =
            |act: &dyn Fn(&MemoryDisk, &dyn Fn())| wrong_under(DeliveryGuarantee::AtLeastOnce, act);
        assert_eq!(at_least(&twice), None);
        assert_eq!(at_least(&taken_back), None);
        assert!(at_least(&grows).unwrap().contains("changed when a reader had it"));
        let gone = |disk: &MemoryDisk, look: &dyn Fn()| {
            put(disk, a, b"1\n2\n");
            look();
            disk.remove(a).unwrap();
        };
        assert!(at_least(&gone).unwrap().contains("1: 0 times instead of 1"));
        let other = |disk: &MemoryDisk, _: &dyn Fn()| put(disk, a, b"1\n2\n3\n");
        assert!(at_least(&other).unwrap().contains("3: 1 times instead of 0"));
    }
}
