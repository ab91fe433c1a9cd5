//! The commands about checkpoints and savepoints as a user runs them, on a job in this process and on what it leaves in directories and
//! remote stores.
#![allow(clippy::unwrap_used)]

mod command_kit;

use std::{
    fs,
    path::{Path, PathBuf},
};

use command_kit::{done, refused, text, tidemill};
use tempfile::TempDir;
use tidemill::{
    control::handle::JobHandle, model::savepoint::SavepointPlace, operators::source::from_parallel_iter,
    platform::remote::RemoteConfig, prelude::*,
};

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A directory that is there, as a URL.
    fn url(&self, name: &str) -> String {
        fs::create_dir_all(self.path(name)).unwrap();
        format!("file://{}", self.path(name).display())
    }

    /// A job that does not end by itself, with its checkpoints in `job` and in the remote store `store`.
    fn start(&self, savepoint: Option<SavepointPlace>) -> JobHandle {
        let checkpoints = CheckpointConfig {
            interval_ms: 3_600_000,
            remote: savepoint.is_none().then(|| RemoteConfig::new(self.url("store"))),
            savepoint,
            ..CheckpointConfig::new(self.path("job"))
        };
        let env = StreamEnvironment::new()
            .name("orders")
            .parallelism(1)
            .max_parallelism(128)
            .checkpoints(checkpoints);
        let numbers = from_parallel_iter(|subtask, _| subtask as u64..);
        env.from_source("numbers", numbers, WatermarkStrategy::none())
            .uid("numbers")
            .key_by(|number| number % 5)
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .uid("counts")
            .for_each(|_| {});
        env.start().unwrap()
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let inside = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    inside.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_job_is_asked_for_savepoints_in_remote_stores_and_they_are_listed_and_verified() {
    let place = Place::new();
    let job = place.start(None);
    let directory = place.path("job");
    let directory = directory.to_str().unwrap();
    let (first, last, store) = (place.url("first"), place.url("last"), place.url("store"));
    assert_eq!(done(&["savepoint", directory, &first]), format!("{first}\n"));
    let said = refused(&["savepoint", directory, &first]);
    assert!(said.contains(&format!("{first} holds a savepoint already")), "{said}");
    assert!(refused(&["savepoint", directory, &store]).contains("holds the checkpoints of a job"));
    assert!(refused(&["savepoint", directory, "gs://bucket"]).contains("s3://BUCKET/PREFIX"));
    let unmounted = refused(&["savepoint", directory, &format!("{first}/missing")]);
    assert!(unmounted.contains("cannot take a savepoint in"), "{unmounted}");
    assert!(unmounted.contains("Mount or make the directory"), "{unmounted}");
    let nowhere = refused(&["savepoint", directory, ""]);
    assert!(nowhere.contains("the place of the savepoint is empty"), "{nowhere}");
    assert_eq!(done(&["stop", directory, "--savepoint", &last]), format!("{last}\n"));
    job.wait().unwrap();

    let listed = done(&["checkpoints", &store]);
    assert_eq!(listed, done(&["checkpoints", directory]), "the store and the directory hold the same");
    assert!(listed.starts_with("checkpoint 1 of `orders`"), "{listed}");
    let listed = done(&["checkpoints", &last]);
    assert!(listed.starts_with("savepoint 2 of `orders`") && listed.contains("counts"), "{listed}");
    let verified = done(&["state", "verify", &store]);
    assert!(verified.starts_with("sound: checkpoint 2\nsound: checkpoint 1\n"), "{verified}");
    assert!(done(&["state", "verify", &last]).starts_with("sound: savepoint 2\n"));
    let report = done(&["state", "verify", "--json", &last]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["sound"], &report["savepoint"]["checkpoint"]), (&true.into(), &2.into()));

    fs::remove_dir_all(directory).unwrap();
    let job = place.start(Some(last.as_str().into()));
    assert_eq!(job.metrics().checkpoints.restored_from, Some(2));
    job.cancel();
    let _ = job.wait();
}

#[test]
fn what_is_damaged_is_named_and_the_exit_code_says_so() {
    let place = Place::new();
    let job = place.start(None);
    let (savepoint, store) = (place.url("savepoint"), place.url("store"));
    job.monitor().checkpoint().unwrap();
    job.monitor().stop_with_savepoint(&savepoint, false).unwrap();
    job.wait().unwrap();
    damage(&files_in(&place.path("savepoint/savepoint-blocks"))[0]);
    done(&["checkpoints", &savepoint]);
    let output = tidemill(&["state", "verify", &savepoint]);
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    assert!(shown.contains("damaged: savepoint: the checksum of savepoint-blocks/"), "{shown}");
    damage(&place.path("savepoint/savepoint"));
    for command in [&["checkpoints", &savepoint][..], &["state", "verify", &savepoint]] {
        let output = tidemill(command);
        assert_eq!(output.status.code(), Some(1));
        let shown = text(&output.stdout);
        assert!(shown.contains(&format!("{savepoint}/savepoint")), "{shown}");
    }
    let entries = files_in(&place.path("store/log"));
    damage(entries.iter().min().unwrap());
    let output = tidemill(&["checkpoints", &store]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("unusable: ") && shown.contains(&store), "{shown}");
    assert!(shown.contains("checkpoint 2 of `orders`"), "{shown}");
}

#[test]
fn a_directory_is_verified_checkpoint_by_checkpoint() {
    let place = Place::new();
    let job = place.start(None);
    let savepoint = place.path("savepoint");
    job.monitor().checkpoint().unwrap();
    job.monitor().savepoint(&savepoint).unwrap();
    job.monitor().suspend().unwrap();
    job.wait().unwrap();
    let directory = place.path("job");
    let (directory, savepoint) = (directory.to_str().unwrap(), savepoint.to_str().unwrap());
    let listed = done(&["checkpoints", directory]);
    let heads: Vec<_> = listed.lines().filter(|line| line.starts_with("checkpoint ")).collect();
    let (newest, older) = heads.split_last().unwrap();
    assert!(newest.ends_with("; the job goes on from this one"), "{listed}");
    assert!(!older.iter().any(|head| head.contains("goes on")), "{listed}");
    let number = |head: &str| head.split(' ').nth(1).unwrap().to_owned();
    let verified = done(&["state", "verify", directory]);
    for head in &heads {
        assert!(verified.contains(&format!("sound: checkpoint {}\n", number(head))), "{verified}");
    }
    assert!(verified.contains("parts of state with"), "{verified}");
    assert!(done(&["state", "verify", savepoint]).starts_with("sound: savepoint "));
    done(&["state", "inspect", directory]);

    // A byte that is wrong is found by who reads all of them, a file that is gone by who looks whether they are there.
    let of = |kind: &str| {
        let files = files_in(&place.path("job").join("state")).into_iter();
        files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(kind)).max().unwrap()
    };
    let segment = of("segment-");
    damage(&segment);
    let output = tidemill(&["state", "verify", directory]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    let line = shown.lines().find(|line| line.starts_with("damaged: checkpoint ")).unwrap();
    assert!(line.contains(segment.to_str().unwrap()), "{shown}");
    let output = tidemill(&["state", "verify", "--json", directory]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["sound"], report["damaged"].as_array().unwrap().is_empty()), (&false.into(), false));
    fs::remove_file(&segment).unwrap();
    let output = tidemill(&["checkpoints", directory]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("unusable: ") && shown.contains(segment.to_str().unwrap()), "{shown}");

    let missing = place.path("missing");
    assert!(refused(&["checkpoints", missing.to_str().unwrap()]).contains("there is no directory"));
}

#[test]
fn what_is_beside_below_and_gone_is_told_apart() {
    let place = Place::new();
    let job = place.start(None);
    job.monitor().checkpoint().unwrap();
    job.monitor().savepoint(place.path("savepoint")).unwrap();
    job.monitor().suspend().unwrap();
    job.wait().unwrap();
    let (above, directory, savepoint) = (place.path(""), place.path("job"), place.path("savepoint"));
    let (above, directory) = (above.to_str().unwrap(), directory.to_str().unwrap());
    // What is in a directory above was not looked at, and is named.
    for command in [&["checkpoints"][..], &["state", "verify"]] {
        let said = refused(&[command, &[above]].concat());
        assert!(said.contains(&format!("there are no checkpoints in {above} itself")), "{said}");
        for below in ["job", "savepoint"] {
            assert!(said.contains(place.path(below).to_str().unwrap()), "{said}");
        }
    }
    let output = tidemill(&["state", "verify", "--json", above]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["sound"]), (Some(1), &false.into()));

    // A savepoint and checkpoints in one directory are both looked at.
    fs::copy(savepoint.join("savepoint"), place.path("job/savepoint")).unwrap();
    for state in files_in(&savepoint.join("state")) {
        let to = place.path("job").join(state.strip_prefix(&savepoint).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&state, to).unwrap();
    }
    let verified = done(&["state", "verify", directory]);
    assert!(verified.contains("sound: savepoint ") && verified.contains("sound: checkpoint "), "{verified}");
    let listed = done(&["checkpoints", directory]);
    assert!(listed.contains("savepoint ") && listed.starts_with("checkpoint "), "{listed}");
    fs::remove_file(place.path("job/savepoint")).unwrap();

    // Without manifests there is still known that there were some.
    files_in(&place.path("job/checkpoints")).iter().for_each(|file| fs::remove_file(file).unwrap());
    for emptied in [true, false] {
        if !emptied {
            fs::remove_dir(place.path("job/checkpoints")).unwrap();
        }
        for command in [&["checkpoints"][..], &["state", "verify"]] {
            let said = refused(&[command, &[directory]].concat());
            assert!(said.contains("the job has completed checkpoint "), "{said}");
            assert!(said.contains("bring back what was there"), "{said}");
        }
    }
}

#[test]
fn a_store_that_is_not_there_or_holds_nothing_is_said_to_be_so_in_one_line() {
    let place = Place::new();
    let empty = place.url("empty");
    for command in [&["checkpoints"][..], &["state", "verify"]] {
        let of = |url: &str| refused(&[command, &[url]].concat());
        assert!(of(&empty).contains(&format!("there are no checkpoints in {empty}")));
        assert!(of(&format!("{empty}/missing")).contains("Mount or make the directory"));
        assert!(of("s3://").contains("names no remote store"));
        #[cfg(not(feature = "object-store"))]
        assert!(of("s3://bucket/prefix").contains("the feature `object-store`"));
    }
}
