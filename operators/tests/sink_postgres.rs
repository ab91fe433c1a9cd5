//! The PostgreSQL sink against a real server, which is started here, stopped and killed: every row once.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

mod source_kit;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use postgres::{Client, NoTls};
use source_kit::context;
use tempfile::TempDir;
use tidemill_engine::model::{
    checkpoint::Committable,
    checkpoint_config::{CheckpointConfig, RestartStrategy},
    config::JobConfig,
    sink::{CommitContext, Committer, Sink, SinkWriter},
    watermark::WatermarkStrategy,
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sink::{PostgresSink, PostgresSinkWriter, sql_value},
    source::from_vec,
};

/// A server in a directory of its own, reached by a socket there.
struct Server {
    directory: TempDir,
    bin: PathBuf,
}

impl Server {
    /// Starts one; `None`, with a word about it, where there is none to start.
    fn start(prepared_max: usize) -> Option<Self> {
        let installed = fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten();
        let places = installed.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
        let Some(bin) = places.filter(|bin| bin.join("initdb").exists()).max() else {
            eprintln!(
                "skipped: there is no PostgreSQL server in /usr/lib/postgresql (apt-get install postgresql)"
            );
            return None;
        };
        let server = Self { directory: tempfile::tempdir().unwrap(), bin };
        // The server refuses to run as root.
        let owned = Command::new("chown").arg("postgres").arg(server.directory.path()).status().unwrap();
        assert!(owned.success() || !is_root());
        server.run(&format!("initdb -D {0}/data -U postgres -A trust", server.place()));
        let settings = format!(
            "max_prepared_transactions = {prepared_max}\nlisten_addresses = ''\nfsync = off\nunix_socket_directories = '{}'\n",
            server.place()
        );
        let file = server.directory.path().join("data/postgresql.conf");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text + &settings).unwrap();
        server.up();
        Some(server)
    }

    fn place(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    fn run(&self, command: &str) {
        let command = format!("{}/{command}", self.bin.display());
        let mut process = if is_root() {
            let mut su = Command::new("su");
            su.args(["postgres", "-s", "/bin/sh", "-c", &command]);
            su
        } else {
            let mut shell = Command::new("sh");
            shell.args(["-c", &command]);
            shell
        };
        let output = process.current_dir("/").output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn up(&self) {
        self.run(&format!("pg_ctl -D {0}/data -l {0}/data/log -w start > {0}/data/out 2>&1", self.place()));
    }

    fn down(&self, mode: &str) {
        self.run(&format!("pg_ctl -D {}/data -m {mode} -w stop", self.place()));
    }

    fn connection(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.place())
    }

    fn client(&self) -> Client {
        Client::connect(&self.connection(), NoTls).unwrap()
    }

    fn numbers(&self) -> Vec<i64> {
        let rows = self.client().query("SELECT number FROM numbers ORDER BY number", &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    fn prepared(&self) -> i64 {
        self.client().query_one("SELECT count(*) FROM pg_prepared_xacts", &[]).unwrap().get(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = format!("{}/pg_ctl -D {}/data -m immediate stop", self.bin.display(), self.place());
        let stop = if is_root() { format!("su postgres -s /bin/sh -c '{stop}'") } else { stop };
        let _ = Command::new("sh").args(["-c", &stop]).current_dir("/").output();
    }
}

fn is_root() -> bool {
    Path::new("/root").metadata().is_ok_and(|_| fs::read_dir("/root").is_ok())
}

fn inserting(server: &Server) -> PostgresSink<i64> {
    PostgresSink::insert(server.connection(), "numbers", ["number"], |number: &i64| vec![sql_value(*number)])
        .give_up_after(Duration::from_secs(20))
}

/// A process that writes: its committer, recovered, and one writer.
fn begin(
    sink: &mut PostgresSink<i64>,
    committables: &[Committable],
) -> (Box<dyn Committer>, PostgresSinkWriter<i64>) {
    sink.prepare(1).unwrap();
    let disk = context(0, 1, false).disk;
    let committing = CommitContext { job: "job".into(), operator: "numbers".into(), disk };
    let mut committer = sink.committer(&committing).unwrap().unwrap();
    committer.recover(committables).unwrap();
    let writer = sink.open(&context(0, 1, false)).unwrap();
    (committer, writer)
}

fn prepare(writer: &mut PostgresSinkWriter<i64>, numbers: std::ops::Range<i64>) -> Vec<Committable> {
    numbers.for_each(|number| writer.write(number, 0).unwrap());
    writer.pre_commit(1).unwrap()
}

#[test]
fn a_process_that_dies_between_any_two_steps_commits_every_row_once() {
    let Some(server) = Server::start(64) else { return };
    server.client().batch_execute("CREATE TABLE numbers (number bigint PRIMARY KEY)").unwrap();
    let mut at = 0;
    let mut next = || {
        at += 1000;
        at - 1000..at
    };
    // Before it is prepared: nothing of it is there, and nothing keeps its locks.
    let mut sink = inserting(&server);
    let (committer, mut writer) = begin(&mut sink, &[]);
    let lost = next();
    lost.clone().for_each(|number| writer.write(number, 0).unwrap());
    writer.flush().unwrap();
    drop((committer, writer));
    // Prepared, but in no checkpoint: rolled back.
    let (mut committer, mut writer) = begin(&mut sink, &[]);
    let prepared = prepare(&mut writer, lost.clone());
    committer.secure(&prepared).unwrap();
    assert_eq!((server.prepared(), server.numbers().len()), (1, 0), "nobody sees it before it is committed");
    drop((committer, writer));
    // In a checkpoint, and not committed: committed by the next.
    let (mut committer, mut writer) = begin(&mut sink, &[]);
    assert_eq!(server.prepared(), 0);
    let prepared = prepare(&mut writer, lost.clone());
    committer.secure(&prepared).unwrap();
    drop((committer, writer));
    let mut sink = inserting(&server);
    let (mut committer, writer) = begin(&mut sink, &prepared);
    assert_eq!(server.numbers(), lost.clone().collect::<Vec<_>>());
    // Committed already: no harm.
    committer.commit(&prepared).unwrap();
    drop((committer, writer));
    let (mut committer, mut writer) = begin(&mut sink, &prepared);
    // No row, nothing to commit.
    assert_eq!(writer.pre_commit(2).unwrap().len(), 0);
    let more = prepare(&mut writer, next());
    committer.secure(&more).unwrap();
    committer.commit(&more).unwrap();
    assert_eq!(server.numbers(), (0..at).collect::<Vec<_>>());
    assert_eq!(server.prepared(), 0);
}

#[test]
fn a_server_that_is_killed_at_any_step_loses_and_doubles_nothing() {
    let Some(server) = Server::start(64) else { return };
    server.client().batch_execute("CREATE TABLE numbers (number bigint PRIMARY KEY)").unwrap();
    let mut sink = inserting(&server);
    let (mut committer, mut writer) = begin(&mut sink, &[]);
    // Within a transaction: its rows are written again.
    (0..700).for_each(|number| writer.write(number, 0).unwrap());
    writer.flush().unwrap();
    thread::sleep(Duration::from_millis(300));
    server.down("immediate");
    let first = prepare(&mut writer, 700..1000);
    thread::sleep(Duration::from_millis(200));
    server.up();
    committer.secure(&first).unwrap();
    // Prepared, not committed: it is down when it is to be.
    server.down("immediate");
    let up = thread::scope(|scope| {
        let commit = scope.spawn(|| committer.commit(&first));
        thread::sleep(Duration::from_millis(300));
        server.up();
        commit.join().unwrap()
    });
    up.unwrap();
    assert_eq!(server.numbers(), (0..1000).collect::<Vec<_>>());
    // Down for good: a clear error.
    let mut sink = inserting(&server).give_up_after(Duration::from_millis(200));
    drop((committer, writer));
    let (mut committer, mut writer) = begin(&mut sink, &[]);
    server.down("fast");
    let lost = prepare(&mut writer, 1000..1001);
    let error = committer.secure(&lost).unwrap_err().to_string();
    assert!(error.contains("could not be reached"), "{error}");
    server.up();
}

#[test]
fn a_job_writes_every_row_once_though_the_server_restarts_under_it() {
    let Some(server) = Server::start(64) else { return };
    server.client().batch_execute("CREATE TABLE numbers (number bigint)").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let checkpoints =
        CheckpointConfig { interval_ms: 50, ..CheckpointConfig::new(directory.path().join("checkpoints")) };
    let config = JobConfig {
        parallelism: 2,
        checkpoints: Some(checkpoints),
        restart: RestartStrategy::FixedDelay { attempts_max: 20, delay_ms: 50 },
        ..JobConfig::default()
    };
    let environment = StreamEnvironment::with_config(config);
    environment
        .from_source("numbers", from_vec((0..200_000_i64).collect()), WatermarkStrategy::none())
        .sink("rows", inserting(&server));
    let job = environment.start().unwrap();
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(400));
        server.down("immediate");
        server.up();
    }
    job.wait().unwrap();
    assert!(server.numbers() == (0..200_000).collect::<Vec<_>>(), "{} rows", server.numbers().len());
    assert_eq!(server.prepared(), 0);
}

#[test]
fn rows_with_a_key_replace_each_other_and_bad_settings_are_told() {
    let Some(server) = Server::start(0) else { return };
    server.client().batch_execute("CREATE TABLE numbers (number bigint PRIMARY KEY, name text)").unwrap();
    let upserting = |name: &'static str| {
        PostgresSink::upsert(
            server.connection(),
            "numbers",
            ["number"],
            ["number", "name"],
            move |number: &i64| vec![sql_value(*number), sql_value(name)],
        )
    };
    for name in ["first", "second"] {
        let mut sink = upserting(name);
        let (mut committer, mut writer) = begin(&mut sink, &[]);
        let prepared = prepare(&mut writer, 0..10);
        committer.secure(&prepared).unwrap();
        committer.commit(&prepared).unwrap();
    }
    let names = "SELECT count(*) FROM numbers WHERE name = 'second'";
    assert_eq!(server.client().query_one(names, &[]).unwrap().get::<_, i64>(0), 10);

    let open = |mut sink: PostgresSink<i64>| {
        let disk = context(0, 1, false).disk;
        let committing = CommitContext { job: "job".into(), operator: "numbers".into(), disk };
        sink.prepare(1).and_then(|()| sink.committer(&committing).map(drop)).unwrap_err().to_string()
    };
    assert!(open(inserting(&server)).contains("max_prepared_transactions"));
    let no_table = PostgresSink::upsert(server.connection(), "nowhere", ["a"], ["a"], |_: &i64| Vec::new());
    assert!(open(no_table).contains("\"nowhere\" does not exist"));
    let secret = PostgresSink::insert("password=secret nonsense", "t", ["a"], |_: &i64| Vec::new());
    assert!(!format!("{secret:?}").contains("secret"));
    assert!(!open(secret).contains("secret"));
}
