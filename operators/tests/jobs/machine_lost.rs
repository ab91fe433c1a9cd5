//! Jobs on this machine that keep their checkpoints in another directory too, and lose their own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tidemill_engine::{
    model::{
        checkpoint_config::CheckpointConfig, config::JobConfig, error::Error, watermark::WatermarkStrategy,
    },
    platform::remote::RemoteConfig,
};
use tidemill_operators::{api::environment::StreamEnvironment, source::from_parallel_iter};

use super::recovery::Place;

fn remote(place: &Place) -> PathBuf {
    place.0.path().join("remote")
}

/// The settings of a job with a remote store.
fn config(place: &Place) -> JobConfig {
    fs::create_dir_all(remote(place)).unwrap();
    let mut config = place.config();
    let url = format!("file://{}", remote(place).display());
    config.checkpoints.as_mut().unwrap().remote = Some(RemoteConfig::new(url));
    config
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files_in(&path) } else { vec![path] }
        })
        .collect();
    files.sort();
    files
}

fn copy_tree(from: &Path, to: &Path) {
    for file in files_in(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        // What is not a plain file is the job's socket, which stays behind.
        let _copied = fs::copy(&file, target);
    }
}

/// Changes a byte of the records in each of these files.
fn damage(files: &[PathBuf]) {
    assert!(!files.is_empty());
    for file in files {
        let mut bytes = fs::read(file).unwrap();
        let at = (bytes.len() / 2).min(4096 + 20);
        bytes[at] ^= 1;
        fs::write(file, bytes).unwrap();
    }
}

#[test]
fn a_job_goes_on_elsewhere_when_its_machine_is_lost() {
    let place = Place::new();
    let mut rows_before = 0;
    for parallelism in [2, 3, 1, 4] {
        let metrics = place.run_for_a_while(JobConfig { parallelism, ..config(&place) }).unwrap();
        assert_eq!(metrics.checkpoints.restored_from.is_some(), rows_before > 0);
        let rows = place.check_endless();
        assert!(rows > rows_before);
        rows_before = rows;
        fs::remove_dir_all(place.checkpoints()).unwrap();
    }
    // What no checkpoint needs is gone: three are retained, each with its own or shared files.
    let entries = files_in(&remote(&place).join("log"));
    assert!(entries.len() <= 4, "{entries:?}");
    let attempts = fs::read_dir(remote(&place).join("blocks")).unwrap();
    let attempts = attempts.filter(|attempt| !files_in(&attempt.as_ref().unwrap().path()).is_empty());
    assert!(attempts.count() <= 2, "of the last attempt, and of the one that it went on from");
}

#[test]
fn an_older_directory_never_wins() {
    let place = Place::new();
    place.run_for_a_while(config(&place)).unwrap();
    let old = place.0.path().join("old");
    copy_tree(&place.checkpoints(), &old);
    let newest = place.run_for_a_while(config(&place)).unwrap().checkpoints.last;
    fs::remove_dir_all(place.checkpoints()).unwrap();
    fs::rename(&old, place.checkpoints()).unwrap();
    let metrics = place.run_for_a_while(config(&place)).unwrap();
    assert_eq!(metrics.checkpoints.restored_from, newest);
    place.check_endless();
    // While the store cannot be asked whether it has a newer one, the job does not start.
    let away = place.0.path().join("away");
    fs::rename(remote(&place), &away).unwrap();
    let mut unmounted = place.config();
    let url = format!("file://{}", remote(&place).display());
    unmounted.checkpoints.as_mut().unwrap().remote = Some(RemoteConfig::new(url));
    let message = place.run_for_a_while(unmounted).unwrap_err().to_string();
    assert!(message.contains("cannot list the log") && message.contains("Mount or make"), "{message}");
}

#[test]
fn what_is_damaged_here_is_brought_back() {
    let place = Place::new();
    let newest = place.run_for_a_while(config(&place)).unwrap().checkpoints.last;
    // One of them is found before the state is read, the other when it is.
    for kind in ["tmm", "tms"] {
        let mut files = files_in(&place.checkpoints().join("state"));
        files.retain(|file| file.extension().is_some_and(|extension| extension == kind));
        damage(&files);
    }
    let metrics = place.run_for_a_while(config(&place)).unwrap();
    assert_eq!(metrics.checkpoints.restored_from, newest);
    place.check_endless();
    let newest = metrics.checkpoints.last;
    let mut files = files_in(&place.checkpoints().join("state"));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "tms"));
    damage(&files);
    let metrics = place.run_for_a_while(config(&place)).unwrap();
    assert_eq!(metrics.checkpoints.restored_from, newest);
    place.check_endless();
}

#[test]
fn a_checkpoint_that_is_damaged_there_is_passed_over_and_all_of_them_are_no_fresh_start() {
    let place = Place::new();
    let newest = place.run_for_a_while(config(&place)).unwrap().checkpoints.last;
    fs::remove_dir_all(place.checkpoints()).unwrap();
    damage(&files_in(&remote(&place).join("blocks"))[..]);
    let message = place.run_for_a_while(config(&place)).unwrap_err().to_string();
    for part in ["none of the checkpoints", "checksum", "blocks/", "file://"] {
        assert!(message.contains(part), "{message}");
    }
    // Mended again, but for the newest entry of the log.
    damage(&files_in(&remote(&place).join("blocks"))[..]);
    let mut entries = files_in(&remote(&place).join("log"));
    entries.retain(|entry| fs::read_to_string(entry).unwrap().contains("\"checkpoint\""));
    damage(&entries[entries.len() - 1..]);
    let metrics = place.run_for_a_while(config(&place)).unwrap();
    // What was committed with the checkpoint that is lost is committed again.
    place.check_gapless();
    assert!(metrics.checkpoints.restored_from < newest && metrics.checkpoints.restored_from.is_some());
}

#[test]
fn a_job_that_gets_a_remote_store_later_goes_on_from_its_directory() {
    let place = Place::new();
    let newest = place.run_for_a_while(place.config()).unwrap().checkpoints.last;
    let metrics = place.run_for_a_while(config(&place)).unwrap();
    assert_eq!(metrics.checkpoints.restored_from, newest);
    fs::remove_dir_all(place.checkpoints()).unwrap();
    place.run_for_a_while(config(&place)).unwrap();
    place.check_endless();
}

/// An endless job that commits nothing, with its checkpoints in `own` and in the store of `place`.
fn endless(place: &Place, own: &str) -> StreamEnvironment {
    let mut config = config(place);
    let checkpoints = config.checkpoints.unwrap();
    config.checkpoints = Some(CheckpointConfig { directory: place.0.path().join(own), ..checkpoints });
    let env = StreamEnvironment::with_config(config);
    let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
    env.from_source("numbers", numbers, WatermarkStrategy::none())
        .uid("numbers")
        .key_by(|number| number % 7)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .uid("counts")
        .for_each(|_| {});
    env
}

#[test]
fn of_two_processes_with_one_store_the_later_goes_on_and_the_earlier_stops() {
    let place = Place::new();
    let first = endless(&place, "first").start().unwrap();
    first.monitor().checkpoint().unwrap();
    let second = endless(&place, "second").start().unwrap();
    let error = first.wait().unwrap_err().to_string();
    assert!(error.contains("another process runs the job `counting`"), "{error}");
    assert!(second.metrics().checkpoints.restored_from.is_some());
    second.monitor().checkpoint().unwrap();
    second.monitor().suspend().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_job_that_is_cancelled_leaves_nothing_if_it_is_told_so() {
    let place = Place::new();
    let mut config = config(&place);
    config.checkpoints.as_mut().unwrap().retain_on_cancel = false;
    let job = place.describe_endless(config).start().unwrap();
    job.monitor().checkpoint().unwrap();
    job.cancel();
    assert!(matches!(job.wait(), Err(Error::Cancelled)));
    let mut left = files_in(&remote(&place));
    left.retain(|file| !fs::read_to_string(file).is_ok_and(|text| text.contains("\"claim\"")));
    assert!(left.is_empty(), "{left:?}");
}
