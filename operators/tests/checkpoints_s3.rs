//! Checkpoints in S3, against a real server: jobs that are killed and lose their directory, and all that can be wrong with a store.
#![allow(clippy::unwrap_used)]

mod s3_kit;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use s3_kit::{Server, remote, with};
use tidemill_engine::{
    control::{
        archive,
        remote::{Ask, ask},
    },
    model::{
        checkpoint_config::CheckpointConfig, config::JobConfig, error::Error, metrics::JobMetrics,
        watermark::WatermarkStrategy,
    },
    platform::{
        GlommioPlatform,
        remote::{RemoteConfig, open},
    },
};
use tidemill_operators::{api::environment::StreamEnvironment, sink::FileSink, source::from_parallel_iter};

const KEYS: u64 = 17;
/// The variables that tell a child which server and which place are its.
const ENDPOINT: &str = "TIDEMILL_TEST_S3_ENDPOINT";
const PLACE: &str = "TIDEMILL_TEST_S3_PLACE";
/// Checkpoints that a child completes before it is killed.
const CHECKPOINTS: usize = 4;

fn config(place: &Path, remote: RemoteConfig, interval_ms: u64) -> JobConfig {
    let checkpoints = CheckpointConfig {
        interval_ms,
        remote: Some(remote),
        ..CheckpointConfig::new(place.join("checkpoints"))
    };
    JobConfig {
        name: "orders".to_owned(),
        parallelism: 2,
        max_parallelism: Some(128),
        checkpoints: Some(checkpoints),
        ..JobConfig::default()
    }
}

/// Counts numbers by key for ever, and commits each count to files.
fn describe(place: &Path, remote: RemoteConfig) -> StreamEnvironment {
    describe_with(place, config(place, remote, 20))
}

fn describe_with(place: &Path, config: JobConfig) -> StreamEnvironment {
    let env = StreamEnvironment::with_config(config);
    let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
    env.from_source("numbers", numbers, WatermarkStrategy::none())
        .uid("numbers")
        .key_by(|number| number % KEYS)
        .fold(0_u64, |count: &mut u64, _| *count += 1)
        .uid("counts")
        .sink("rows", FileSink::csv(place.join("rows")).header(false));
    env
}

/// Runs the job over some checkpoints, then stops it behind another one.
fn run_for_a_while(place: &Path, remote: RemoteConfig) -> Result<JobMetrics, Error> {
    let job = describe(place, remote).start()?;
    job.monitor().checkpoint()?;
    job.monitor().suspend()?;
    job.wait()
}

/// Fails unless the counts of every key are 1, 2, 3 and so on, each once; returns how many there are.
fn check(place: &Path) -> usize {
    let mut counts = BTreeMap::<u64, Vec<u64>>::new();
    let files = fs::read_dir(place.join("rows")).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.is_file()) {
        for line in fs::read_to_string(file).unwrap().lines() {
            let (key, count) = line.split_once(',').unwrap();
            counts.entry(key.parse().unwrap()).or_default().push(count.parse().unwrap());
        }
    }
    for (key, of_key) in &mut counts {
        of_key.sort_unstable();
        assert!(
            of_key.iter().copied().eq(1..=of_key.len() as u64),
            "a count of {key} is missing or there twice"
        );
    }
    counts.values().map(Vec::len).sum()
}

/// The part of a child; run as a test it has nothing to do.
#[test]
fn child() {
    let (Ok(endpoint), Ok(place)) = (env::var(ENDPOINT), env::var(PLACE)) else { return };
    let job = describe(Path::new(&place), remote(&endpoint)).start().unwrap();
    loop {
        job.monitor().checkpoint().unwrap();
        println!("complete");
    }
}

fn start_child(server: &Server, place: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).stdout(Stdio::piped());
    command.env(ENDPOINT, server.endpoint()).env(PLACE, place).spawn().unwrap()
}

#[test]
fn a_job_that_is_killed_and_loses_its_directory_goes_on_and_commits_each_row_once() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let server = Server::start(&place.join("s3"));
    let mut rows_before = 0;
    for _ in 0..3 {
        let mut child = start_child(&server, place);
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let complete = said.map(Result::unwrap).filter(|line| line.contains("complete")).take(CHECKPOINTS);
        assert_eq!(complete.count(), CHECKPOINTS, "the child has ended early");
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir_all(place.join("checkpoints")).unwrap();
        let metrics = run_for_a_while(place, remote(&server.endpoint())).unwrap();
        assert!(metrics.checkpoints.restored_from.is_some_and(|from| from >= CHECKPOINTS as u64));
        let rows = check(place);
        assert!(rows > rows_before);
        rows_before = rows;
        fs::remove_dir_all(place.join("checkpoints")).unwrap();
    }
    let store = open(&remote(&server.endpoint())).unwrap();
    let verified = archive::verify(&*store, &GlommioPlatform::new()).unwrap();
    assert_eq!((verified.whole.len(), verified.broken.len(), verified.unneeded), (2, 0, 0), "{verified:?}");
    // Two checkpoints are retained; all else was taken away.
    assert!(server.objects().keys().filter(|name| name.starts_with("log/")).count() <= 3);
}

/// A process that is started again takes its files over, and the store has what they hold.
#[test]
fn a_restart_sends_what_changed_and_not_the_state() {
    const TOUCHED_ONCE: u64 = 200_000;
    let place = tempfile::tempdir().unwrap();
    let server = Server::start(&place.path().join("s3"));
    let run = || {
        // None but those that are asked for, and the last.
        let config = config(place.path(), remote(&server.endpoint()), 3_600_000);
        let env = StreamEnvironment::with_config(config);
        let handled = Arc::new(AtomicU64::new(0));
        let numbers = from_parallel_iter(|subtask, parallelism| (subtask as u64..).step_by(parallelism));
        let counted = Arc::clone(&handled);
        env.from_source("numbers", numbers, WatermarkStrategy::none())
            .uid("numbers")
            .key_by(|number| (*number).min(TOUCHED_ONCE))
            .fold(0_u64, |count: &mut u64, _| *count += 1)
            .uid("counts")
            .for_each(move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
        let job = env.start().unwrap();
        while handled.load(Ordering::Relaxed) < 2 * TOUCHED_ONCE {
            std::thread::yield_now();
        }
        job.monitor().checkpoint().unwrap();
        job.monitor().suspend().unwrap();
        job.wait().unwrap().checkpoints.restored_from
    };
    assert_eq!(run(), None);
    let before = server.objects();
    let state: u64 = before.values().sum();
    assert!(state > TOUCHED_ONCE * 16, "{state} bytes of {TOUCHED_ONCE} keys with counts");
    assert!(run().is_some());
    let sent: u64 =
        server.objects().iter().filter(|(name, _)| !before.contains_key(*name)).map(|(_, bytes)| bytes).sum();
    assert!(0 < sent && sent < state / 10, "{sent} bytes were sent behind a restart, of a state of {state}");
}

#[test]
fn a_server_that_is_gone_for_a_while_fails_checkpoints_and_not_the_job() {
    let place = tempfile::tempdir().unwrap();
    let server = Server::start(&place.path().join("s3"));
    // None but those that are asked for.
    let config = config(place.path(), remote(&server.endpoint()), 3_600_000);
    let job = describe_with(place.path(), config).start().unwrap();
    job.monitor().checkpoint().unwrap();
    server.switch(false);
    let error = job.monitor().checkpoint().unwrap_err().to_string();
    for part in ["s3://checkpoints/jobs/orders", "Check that the store is up"] {
        assert!(error.contains(part), "{error}");
    }
    server.switch(true);
    job.monitor().checkpoint().unwrap();
    job.monitor().suspend().unwrap();
    let metrics = job.wait().unwrap();
    assert!(
        metrics.checkpoints.failed >= 1 && metrics.checkpoints.restarts == 0,
        "{:?}",
        metrics.checkpoints
    );
    assert!(check(place.path()) > 0);
}

#[test]
fn what_is_wrong_with_the_store_is_said_with_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let server = Server::start(&place.path().join("s3"));
    let endpoint = server.endpoint();
    let fails = |remote: RemoteConfig, parts: &[&str]| {
        let message = run_for_a_while(place.path(), remote).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(!message.contains("a-secret") && !message.contains("wrong-secret"), "{message}");
    };
    let secret = ["s3://checkpoints/jobs/orders", "Check the access key and its secret", "AWS_ACCESS_KEY_ID"];
    fails(with(&endpoint, "checkpoints", "wrong-secret"), &secret);
    fails(with(&endpoint, "no-such-bucket", "a-secret"), &["s3://no-such-bucket", "Make the bucket"]);
    server.switch(false);
    fails(remote(&endpoint), &["cannot list the log", "Check that the store is up"]);
}

/// A savepoint is asked for as the command does it, by a URL alone: the job knows how its server is reached.
#[test]
fn a_savepoint_in_s3_begins_a_job_that_has_nothing_else() {
    const URL: &str = "s3://checkpoints/savepoints/orders-1";
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let server = Server::start(&place.join("s3"));
    let own = remote(&server.endpoint());
    let job = describe(place, own.clone()).start().unwrap();
    let asked = |target: &str, stop| {
        let what = Ask::Savepoint { target: target.to_owned(), stop, drain: false };
        let said = serde_json::to_string(&what).unwrap();
        assert!(!said.contains("a-secret"), "{said}");
        ask(&place.join("checkpoints"), &what)
    };
    assert_eq!(asked(URL, false).unwrap(), URL);
    let message = asked(URL, true).unwrap_err();
    assert!(message.contains("s3://checkpoints/savepoints/orders-1 holds a savepoint already"), "{message}");
    let message = asked("s3://no-such-bucket/orders", true).unwrap_err();
    assert!(message.contains("Make the bucket") && !message.contains("a-secret"), "{message}");
    let last = "s3://checkpoints/savepoints/orders-2";
    assert_eq!(asked(last, true).unwrap(), last);
    job.wait().unwrap();
    let rows_before = check(place);
    fs::remove_dir_all(place.join("checkpoints")).unwrap();
    // The whole bucket of the job is lost; the savepoint has all that it needs.
    fs::remove_dir_all(place.join("s3/checkpoints/jobs")).unwrap();
    let mut config = config(place, own, 20);
    config.parallelism = 3;
    config.checkpoints.as_mut().unwrap().savepoint = Some(last.into());
    let job = describe_with(place, config).start().unwrap();
    assert!(job.metrics().checkpoints.restored_from.is_some());
    job.monitor().checkpoint().unwrap();
    job.monitor().suspend().unwrap();
    job.wait().unwrap();
    assert!(check(place) > rows_before);
    let there = RemoteConfig::new(last).endpoint(server.endpoint()).region("eu-central-1");
    let store = open(&there.credentials("a-key", "a-secret")).unwrap();
    let verified = archive::verify(&*store, &GlommioPlatform::new()).unwrap();
    assert!(matches!(verified.savepoint, Some(Ok(_))) && verified.unneeded == 0, "{verified:?}");
}
