//! What a job begins with: never silently with nothing where it had something, and never with something else than it was told.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tidemill_engine::{
    control::list_checkpoints,
    model::{
        checkpoint_config::CheckpointConfig, config::JobConfig, error::Error, metrics::JobMetrics,
        watermark::WatermarkStrategy,
    },
    platform::SimPlatform,
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sink::FileSink,
    source::{from_parallel_iter, from_vec},
};
use tidemill_storage::snapshot::disk::{
    Disk,
    memory::{Faults, MemoryDisk},
    os::OsDisk,
};

use super::recovery::Place;

/// What is logged on this thread while `act` runs.
fn logged<T>(act: impl FnOnce() -> T) -> (T, String) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::fmt().with_writer(Arc::new(Writer(Arc::clone(&log)))).finish();
    let done = tracing::subscriber::with_default(subscriber, act);
    let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    (done, text)
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl io::Write for &Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn contains(text: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
}

/// The settings of a job with its checkpoints in this directory, which begins with this savepoint.
fn config(place: &Place, directory: &str, savepoint: Option<&Path>) -> JobConfig {
    let mut config = place.config();
    let checkpoints = config.checkpoints.as_mut().unwrap();
    checkpoints.directory = place.0.path().join(directory);
    checkpoints.savepoint = savepoint.map(Into::into);
    config
}

/// Runs the endless job, stopped behind a savepoint.
fn stop_with(place: &Place, config: JobConfig, savepoint: &Path) {
    let job = place.describe_endless(config).start().unwrap();
    job.monitor().checkpoint().unwrap();
    job.monitor().stop_with_savepoint(savepoint, false).unwrap();
    job.wait().unwrap();
}

fn refused(place: &Place, config: JobConfig, parts: &[&str]) {
    let rows = place.check_endless();
    contains(&place.run_for_a_while(config).unwrap_err().to_string(), parts);
    assert_eq!(place.check_endless(), rows);
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let inside = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        inside.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

#[test]
fn a_directory_on_a_disk_that_is_not_mounted_is_refused_and_not_made() {
    let place = Place::new();
    let mount = place.0.path().join("mount");
    let fails = |config: JobConfig, rows: &Path| {
        let env = StreamEnvironment::with_config(config);
        env.from_source("numbers", from_vec(vec![1_u64]), WatermarkStrategy::none())
            .sink("rows", FileSink::csv(rows));
        env.execute().map(drop).map_err(|error| error.to_string())
    };
    let (rows, above) = (place.0.path().join("rows"), mount.to_str().unwrap());
    let message = fails(config(&place, "mount/orders", None), &rows).unwrap_err();
    contains(&message, &["mount/orders", &format!("{above} is not there"), "mount that", "mkdir -p"]);
    assert!(!mount.exists());
    let message = fails(config(&place, "orders", None), &mount.join("rows")).unwrap_err();
    contains(&message, &["`rows`", &format!("{above} is not there"), "mount that", "mkdir -p"]);
    assert!(!mount.exists());
    fs::create_dir(&mount).unwrap();
    fails(config(&place, "mount/orders", None), &mount.join("rows")).unwrap();
}

#[test]
fn a_mount_point_without_its_disk_is_no_fresh_start_where_the_job_has_committed_files() {
    let place = Place::new();
    let (mount, disk) = (place.0.path().join("mount"), place.0.path().join("disk"));
    let own = || config(&place, "mount/orders", None);
    fs::create_dir(&mount).unwrap();
    place.run_for_a_while(own()).unwrap();
    // The disk is not mounted, and the mount point is there.
    fs::rename(&mount, &disk).unwrap();
    fs::create_dir(&mount).unwrap();
    let rows = place.0.path().join("rows");
    let before = files_in(&rows);
    let parts = ["cannot start `rows`", rows.to_str().unwrap(), "part-", "is the disk", "mounted", "append"];
    for _ in 0..2 {
        refused(&place, own(), &parts);
    }
    assert_eq!(files_in(&rows), before);
    fs::remove_dir_all(&mount).unwrap();
    fs::rename(&disk, &mount).unwrap();
    assert!(place.run_for_a_while(own()).unwrap().checkpoints.restored_from.is_some());
    place.check_endless();
}

#[test]
fn a_job_without_checkpoints_that_is_run_again_is_refused_unless_its_files_are_to_be_added_to() {
    let place = Place::new();
    let rows = place.0.path().join("numbers");
    let run = |sink: FileSink| {
        let env = StreamEnvironment::with_config(JobConfig::default());
        env.from_source("numbers", from_vec(vec![1_u64]), WatermarkStrategy::none()).sink("rows", sink);
        env.execute().map(drop).map_err(|error| error.to_string())
    };
    let parts = || files_in(&rows).iter().filter(|file| file.extension().is_some()).count();
    run(FileSink::json_lines(&rows)).unwrap();
    contains(&run(FileSink::json_lines(&rows)).unwrap_err(), &["`rows`", "1 committed file", "append"]);
    assert_eq!(parts(), 1);
    run(FileSink::json_lines(&rows).append()).unwrap();
    assert_eq!(parts(), 2);
}

#[test]
fn checkpoints_that_are_gone_are_no_fresh_start_until_all_of_the_directory_is() {
    let place = Place::new();
    place.run_for_a_while(place.config()).unwrap();
    let (directory, manifests) = (place.checkpoints(), place.checkpoints().join("checkpoints"));
    let newest =
        place.manifests().pop().unwrap().file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let saved = place.0.path().join("saved");
    let complete = format!("has completed checkpoint {newest},");
    let parts =
        [&complete, directory.to_str().unwrap(), "Nothing was changed", "name a savepoint", "begin afresh"];
    // The directory of the manifests is gone, and then it is there and empty.
    fs::rename(&manifests, &saved).unwrap();
    let before = files_in(&directory);
    refused(&place, place.config(), &parts);
    refused(&place, place.config(), &parts);
    assert_eq!(files_in(&directory), before);
    // Brought back.
    fs::remove_dir(&manifests).unwrap();
    fs::rename(&saved, &manifests).unwrap();
    let metrics = place.run_for_a_while(place.config()).unwrap();
    assert_eq!(metrics.checkpoints.restored_from, Some(newest));
    place.check_endless();
    // As the message says.
    fs::remove_dir_all(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    let rows = place.0.path().join("rows");
    refused(&place, place.config(), &["committed files of an earlier run", "move the files away"]);
    fs::rename(&rows, place.0.path().join("rows before")).unwrap();
    assert_eq!(place.run_for_a_while(place.config()).unwrap().checkpoints.restored_from, None);
}

#[test]
fn a_newest_manifest_that_is_gone_is_missed_and_its_number_is_not_given_again() {
    let place = Place::new();
    place.run_for_a_while(place.config()).unwrap();
    let number = |path: &Path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let [.., before, newest] = &place.manifests()[..] else { panic!("there are several") };
    fs::remove_file(newest).unwrap();
    let (metrics, log) = logged(|| place.run_for_a_while(place.config()).unwrap());
    contains(&log, &["its manifest is gone", &format!("lost={}", number(newest)), "can come twice"]);
    assert_eq!(metrics.checkpoints.restored_from, Some(number(before)));
    place.check_gapless();
    assert!(place.manifests().iter().all(|path| path != newest));
    // It is said once.
    let (_, log) = logged(|| place.run_for_a_while(place.config()).unwrap());
    assert!(!log.contains("its manifest is gone"), "{log}");
}

#[test]
fn what_a_job_goes_on_from_is_in_the_log() {
    let place = Place::new();
    let (_, log) = logged(|| place.run_for_a_while(place.config()).unwrap());
    contains(&log, &["INFO", "begins anew: no checkpoint in ", "parallelism=2", "counting"]);
    assert_eq!(log.matches("INFO").count(), 1, "{log}");
    let (metrics, log) = logged(|| place.run_for_a_while(place.config()).unwrap());
    let from = format!("goes on from checkpoint {}, complete ", metrics.checkpoints.restored_from.unwrap());
    contains(&log, &["INFO", &from, "parallelism=2", place.checkpoints().to_str().unwrap()]);
}

#[test]
fn a_savepoint_is_begun_with_once_and_another_one_is_refused() {
    let place = Place::new();
    let [one, other] = ["one", "other"].map(|name| place.0.path().join(name));
    stop_with(&place, config(&place, "first", None), &one);
    // It began with nothing.
    let parts =
        ["with the savepoint", "/one", "/first has checkpoint", "began with nothing", "name no savepoint"];
    refused(&place, config(&place, "first", Some(&one)), &parts);
    // What is committed behind the savepoint is there once: nothing goes back to it.
    stop_with(&place, config(&place, "second", Some(&one)), &other);
    for _ in 0..2 {
        let (rows, same) = (place.check_endless(), format!("{}/", one.display()));
        let (metrics, log) =
            logged(|| place.run_for_a_while(config(&place, "second", Some(Path::new(&same)))).unwrap());
        contains(
            &log,
            &["goes on from checkpoint", "not from the savepoint", "/one, which it began with before"],
        );
        assert!(place.check_endless() > rows && metrics.checkpoints.restored_from.is_some());
    }
    let parts = ["with the savepoint", "/other", "began with the savepoint", "/one", "without checkpoints"];
    refused(&place, config(&place, "second", Some(&other)), &parts);
    place.run_for_a_while(config(&place, "second", None)).unwrap();
    place.check_endless();
    // It still began with that one.
    refused(&place, config(&place, "second", Some(&other)), &["began with the savepoint"]);
}

#[test]
fn a_job_whose_beginning_is_not_known_any_more_is_not_taken_back_to_a_savepoint() {
    let place = Place::new();
    let one = place.0.path().join("one");
    let second = || config(&place, "second", Some(&one));
    stop_with(&place, config(&place, "checkpoints", None), &one);
    place.run_for_a_while(second()).unwrap();
    place.check_endless();
    // The names of files are there, and what was in them is not: so a file system may come back from a crash.
    let directory = place.0.path().join("second");
    let files = |directory: &Path| fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_record = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("complete-");
    for file in files(&directory.join("checkpoints")).chain(files(&directory).filter(is_record)) {
        fs::write(file, "").unwrap();
    }
    let place_of_it = one.to_str().unwrap();
    refused(
        &place,
        second(),
        &["none of the checkpoints", "not known any more", place_of_it, "move the directory away"],
    );
    fs::rename(&directory, place.0.path().join("away")).unwrap();
    place.run_for_a_while(second()).unwrap();
}

#[test]
fn where_no_checkpoint_can_be_used_a_savepoint_helps_but_not_the_one_that_they_began_with() {
    for are_gone in [false, true] {
        let place = Place::new();
        let lose = || {
            for manifest in place.manifests() {
                if are_gone { fs::remove_file(manifest) } else { fs::write(manifest, "damaged") }.unwrap();
            }
        };
        let [one, other] = ["one", "other"].map(|name| place.0.path().join(name));
        stop_with(&place, config(&place, "checkpoints", None), &one);
        lose();
        let (metrics, log) =
            logged(|| place.run_for_a_while(config(&place, "checkpoints", Some(&one))).unwrap());
        contains(&log, &["WARN", "begins with the savepoint instead", "can come twice", "/one"]);
        assert!(metrics.checkpoints.restored_from.is_some());
        // The savepoint was the last that the first one did.
        place.check_endless();
        stop_with(&place, config(&place, "checkpoints", Some(&one)), &other);
        place.check_endless();
        lose();
        let message = ["none of the checkpoints", "has completed checkpoint"][usize::from(are_gone)];
        let parts = [message, "another than the job began with before"];
        refused(&place, config(&place, "checkpoints", Some(&one)), &parts);
        place.run_for_a_while(config(&place, "checkpoints", Some(&other))).unwrap();
        place.check_endless();
    }
}

#[test]
fn a_checkpoint_that_was_kept_is_begun_with_in_another_directory() {
    let place = Place::new();
    place.run_for_a_while(config(&place, "first", None)).unwrap();
    let first = place.0.path().join("first");
    let newest = list_checkpoints(&first).unwrap().pop().unwrap().unwrap().checkpoint;
    let manifest = first.join(format!("checkpoints/{newest:020}"));
    // Named loosely, or missing.
    let parts = ["no savepoint in", "directory of a job", manifest.to_str().unwrap()];
    refused(&place, config(&place, "second", Some(&first)), &parts);
    let missing = first.join("checkpoints/00000000000000009999");
    refused(&place, config(&place, "second", Some(&missing)), &["no savepoint in", "9999", "Check the path"]);
    // While the job runs whose checkpoint it is, it could go away at any time.
    let running = OsDisk::default().lock(&first).unwrap();
    refused(&place, config(&place, "second", Some(&manifest)), &["in use", first.to_str().unwrap()]);
    drop(running);
    let rows = place.check_endless();
    let config_of = |parallelism| JobConfig { parallelism, ..config(&place, "second", Some(&manifest)) };
    let metrics = place.run_for_a_while(config_of(3)).unwrap();
    assert_eq!(metrics.checkpoints.restored_from, Some(newest));
    assert!(place.check_endless() > rows);
    // It has what it needs.
    fs::remove_dir_all(&first).unwrap();
    place.run_for_a_while(config_of(1)).unwrap();
    place.check_endless();
}

/// Runs a simulated job over a checkpoint, and stops it.
fn simulated(disk: &MemoryDisk, seed: u64) -> Result<JobMetrics, Error> {
    let platform = SimPlatform::new(seed).disk(Arc::new(disk.clone())).open_world().turn_ns_max(20_000);
    let config = JobConfig {
        parallelism: 2,
        step_records_max: 2,
        checkpoints: Some(CheckpointConfig { interval_ms: 1, ..CheckpointConfig::new("/checkpoints") }),
        ..JobConfig::default()
    };
    let env = StreamEnvironment::on(Arc::new(platform), config);
    env.from_source("numbers", from_parallel_iter(|subtask, _| subtask as u64..), WatermarkStrategy::none())
        .key_by(|number| number % 7)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .sink("rows", FileSink::csv("/rows").header(false));
    let job = env.start()?;
    let taken = job.monitor().checkpoint().and_then(|_| job.monitor().suspend());
    let metrics = job.wait()?;
    taken.map(|_| metrics)
}

#[test]
fn a_disk_that_cannot_be_written_is_no_fresh_start() {
    let disk = MemoryDisk::default();
    let set = |read_only| disk.set_faults(Faults { read_only, ..Faults::default() });
    set(true);
    contains(&simulated(&disk, 1).unwrap_err().to_string(), &["cannot ", "read-only"]);
    set(false);
    simulated(&disk, 1).unwrap();
    let before = disk.list("/checkpoints/state".as_ref()).unwrap();
    set(true);
    contains(&simulated(&disk, 2).unwrap_err().to_string(), &["cannot ", "read-only"]);
    assert_eq!(disk.list("/checkpoints/state".as_ref()).unwrap(), before);
    set(false);
    assert!(simulated(&disk, 3).unwrap().checkpoints.restored_from.is_some());
}

#[test]
fn what_is_known_apart_from_manifests_never_keeps_a_job_from_starting_that_has_lost_nothing() {
    for operation in 0..90 {
        let disk = MemoryDisk::default();
        disk.set_faults(Faults { dead_from: Some(operation), ..Faults::default() });
        let _ = simulated(&disk, operation);
        disk.crash(operation);
        let has_some = !disk.list("/checkpoints/checkpoints".as_ref()).unwrap().is_empty();
        let metrics =
            simulated(&disk, operation).unwrap_or_else(|error| panic!("operation {operation}: {error}"));
        assert!(
            metrics.checkpoints.restored_from.is_some() || !has_some,
            "operation {operation}: it began anew"
        );
    }
}

#[test]
fn the_directory_of_a_savepoint_and_none_at_all_are_no_place_for_checkpoints() {
    let place = Place::new();
    let savepoint = place.0.path().join("savepoint");
    stop_with(&place, place.config(), &savepoint);
    let parts = ["/savepoint holds a savepoint", "`CheckpointConfig::savepoint`"];
    refused(&place, config(&place, "savepoint", None), &parts);
    let mut without = place.config();
    without.checkpoints.as_mut().unwrap().directory = PathBuf::new();
    refused(&place, without, &["checkpoints.directory is empty", "name one"]);
    // The savepoint is as it was.
    place.run_for_a_while(config(&place, "other", Some(&savepoint))).unwrap();
    place.check_endless();
}
