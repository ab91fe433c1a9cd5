//! The PostgreSQL sink against a real server, which is started here, stopped and killed: every row once.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

mod source_kit;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use source_kit::context;
use tidemill_engine::{
    control::handle::JobMonitor,
    model::{
        checkpoint::Committable,
        checkpoint_config::{CheckpointConfig, RestartStrategy},
        config::JobConfig,
        connections::{ConnectionStats, Connections},
        error::Error,
        sink::{CommitContext, Committer, Sink, SinkWriter},
        watermark::WatermarkStrategy,
    },
};
use tidemill_operators::{
    api::environment::StreamEnvironment,
    sink::{DeliveryGuarantee, PostgresSink, PostgresSinkWriter, sql_value},
    source::{WriteAheadChannel, WriteAheadFeeder},
};
use tidemill_postgres_server::{Client, PostgresServer, ServerError};

/// What does not happen in this time will not.
const PATIENCE: Duration = Duration::from_secs(120);
/// Failed tries after which a server comes back: several pauses have passed, each longer than the one before.
const TRIES: u64 = 3;

/// How a server goes away: by `SIGKILL`, and with a word to its sessions.
type GoDown = fn(&mut PostgresServer) -> Result<(), ServerError>;
const WAYS_DOWN: [GoDown; 2] = [PostgresServer::kill, PostgresServer::stop];

/// Starts a server with a table; `None`, with a word about it, where there is none to start.
fn server(prepared_max: usize, table: &str) -> Option<PostgresServer> {
    let server = PostgresServer::start_if_installed(prepared_max).unwrap()?;
    server.execute(table).unwrap();
    Some(server)
}

const WITH_KEY: &str = "CREATE TABLE numbers (number bigint PRIMARY KEY)";
const WITHOUT_KEY: &str = "CREATE TABLE numbers (number bigint)";

fn numbers(server: &PostgresServer) -> Vec<i64> {
    let rows = server.query("SELECT number FROM numbers ORDER BY number").unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn prepared(server: &PostgresServer) -> i64 {
    server.prepared_transactions().unwrap()
}

/// Looks until something holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::yield_now();
    }
}

fn inserting(server: &PostgresServer) -> PostgresSink<i64> {
    PostgresSink::insert(server.connection(), "numbers", ["number"], |number: &i64| vec![sql_value(*number)])
        .give_up_after(PATIENCE)
}

fn committing(connections: &Arc<Connections>) -> CommitContext {
    let (disk, connections) = (context(0, 1, false).disk, Arc::clone(connections));
    CommitContext { job: "job".into(), operator: "numbers".into(), disk, connections }
}

/// As [`inserting`], of rows that may come twice.
fn inserting_at_least_once(server: &PostgresServer) -> PostgresSink<i64> {
    inserting(server).delivery_guarantee(DeliveryGuarantee::AtLeastOnce)
}

type Process = (Box<dyn Committer>, PostgresSinkWriter<i64>);

/// A process that writes: its committer, recovered, and one writer.
fn begin(
    sink: &mut PostgresSink<i64>,
    committables: &[Committable],
    connections: &Arc<Connections>,
) -> Process {
    sink.prepare(1).unwrap();
    let mut committer = sink.committer(&committing(connections)).unwrap().unwrap();
    committer.recover(committables).unwrap();
    let writer = sink.open(&context(0, 1, false)).unwrap();
    (committer, writer)
}

fn prepare(writer: &mut PostgresSinkWriter<i64>, numbers: std::ops::Range<i64>) -> Vec<Committable> {
    numbers.for_each(|number| writer.write(number, 0).unwrap());
    writer.pre_commit(1).unwrap()
}

/// Does what needs the server while that is down. It comes up once it was tried in vain some times since `before`.
fn while_down<R: Send>(
    server: &mut PostgresServer,
    connections: &Connections,
    before: &ConnectionStats,
    act: impl FnOnce() -> R + Send,
) -> R {
    let done = thread::scope(|scope| {
        let acting = scope.spawn(act);
        until("tries that fail", || {
            let stats = connections.stats();
            stats.down > 0 && stats.retries >= before.retries + TRIES
        });
        assert!(!acting.is_finished(), "done without the server");
        server.up().unwrap();
        acting.join().unwrap()
    });
    let after = connections.stats();
    assert_eq!(after.down, 0);
    assert!(after.last_failure.is_some());
    done
}

#[test]
fn a_process_that_dies_between_any_two_steps_commits_every_row_once() {
    let Some(server) = server(64, WITH_KEY) else { return };
    let connections = Arc::default();
    let mut at = 0;
    let mut next = || {
        at += 1000;
        at - 1000..at
    };
    // Before it is prepared: nothing of it is there, and nothing keeps its locks.
    let mut sink = inserting(&server);
    let (committer, mut writer) = begin(&mut sink, &[], &connections);
    let lost = next();
    lost.clone().for_each(|number| writer.write(number, 0).unwrap());
    writer.flush().unwrap();
    drop((committer, writer));
    // Prepared, but in no checkpoint: rolled back.
    let (mut committer, mut writer) = begin(&mut sink, &[], &connections);
    let secured = prepare(&mut writer, lost.clone());
    committer.secure(&secured).unwrap();
    assert_eq!((prepared(&server), numbers(&server).len()), (1, 0), "nobody sees it before it is committed");
    drop((committer, writer));
    // In a checkpoint, and not committed: committed by the next.
    let (mut committer, mut writer) = begin(&mut sink, &[], &connections);
    assert_eq!(prepared(&server), 0);
    let secured = prepare(&mut writer, lost.clone());
    committer.secure(&secured).unwrap();
    drop((committer, writer));
    let mut sink = inserting(&server);
    let (mut committer, writer) = begin(&mut sink, &secured, &connections);
    assert_eq!(numbers(&server), lost.clone().collect::<Vec<_>>());
    // Committed already: no harm.
    committer.commit(&secured).unwrap();
    drop((committer, writer));
    let (mut committer, mut writer) = begin(&mut sink, &secured, &connections);
    // No row, nothing to commit.
    assert_eq!(writer.pre_commit(2).unwrap().len(), 0);
    let more = prepare(&mut writer, next());
    committer.secure(&more).unwrap();
    committer.commit(&more).unwrap();
    assert_eq!(numbers(&server), (0..at).collect::<Vec<_>>());
    assert_eq!(prepared(&server), 0);
}

/// A process that cannot begin: why.
fn refused(mut sink: PostgresSink<i64>, connections: &Arc<Connections>) -> String {
    let opened = sink.prepare(1).and_then(|()| sink.committer(&committing(connections)).map(drop));
    opened.unwrap_err().to_string()
}

#[test]
fn a_second_process_with_the_same_name_and_sink_is_refused_and_ends_nothing() {
    let Some(server) = server(64, WITH_KEY) else { return };
    let connections = Arc::default();
    let mut sink = inserting(&server);
    let (mut committer, mut writer) = begin(&mut sink, &[], &connections);
    let secured = prepare(&mut writer, 0..10);
    committer.secure(&secured).unwrap();
    let second = inserting(&server).give_up_after(Duration::from_millis(200));
    let message = refused(second, &Arc::default());
    let holder = "SELECT pid::bigint FROM pg_locks WHERE locktype = 'advisory'";
    let holder = format!("session {} (application tidemill:job:", server.figure(holder).unwrap());
    assert!(message.contains(&holder) && message.contains(".uid("), "{message}");
    committer.commit(&secured).unwrap();
    assert_eq!(numbers(&server), (0..10).collect::<Vec<_>>());
    // A sink of another name has nothing to do with it.
    let mut other = inserting(&server);
    other.prepare(1).unwrap();
    let context = CommitContext { operator: "others".into(), ..committing(&connections) };
    other.committer(&context).unwrap().unwrap().recover(&[]).unwrap();
    // The first is over: the place is free.
    drop((committer, writer));
    begin(&mut inserting(&server), &secured, &connections);
}

/// Waits until sessions wait for locks on the server, as many as these.
fn until_waiting(server: &PostgresServer, sessions: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    until("sessions that wait for a lock", || server.figure(waiting).unwrap() == sessions);
}

/// Executes statements that wait, in a session of their own; joins it.
fn aside(server: &PostgresServer, statements: &'static str) -> thread::JoinHandle<Result<(), ServerError>> {
    let mut session = server.session().unwrap();
    thread::spawn(move || Ok(session.batch_execute(statements)?))
}

#[test]
fn a_process_ends_what_was_prepared_before_though_a_change_of_the_table_waits_behind_that() {
    let Some(server) = server(64, WITH_KEY) else { return };
    let (mut committer, mut writer) = begin(&mut inserting(&server), &[], &Arc::default());
    let secured = prepare(&mut writer, 0..10);
    committer.secure(&secured).unwrap();
    drop((committer, writer));
    let change = aside(&server, "ALTER TABLE numbers ADD COLUMN name text");
    until_waiting(&server, 1);
    let mut sink = inserting(&server);
    let next = thread::spawn(move || drop(begin(&mut sink, &secured, &Arc::default())));
    until("the start behind what was prepared", || next.is_finished());
    next.join().unwrap();
    change.join().unwrap().unwrap();
    assert_eq!((numbers(&server), prepared(&server)), ((0..10).collect(), 0));
}

#[test]
fn a_lock_on_the_table_is_waited_for_in_words_and_given_up() {
    let Some(server) = server(64, WITH_KEY) else { return };
    let mut locking = server.session().unwrap();
    let pid: i32 = locking.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    locking.batch_execute("BEGIN; LOCK TABLE numbers").unwrap();
    let session = format!("session {pid} (application unnamed, AccessExclusiveLock)");
    // At the start, for good.
    let mut sink = inserting(&server).give_up_after(Duration::ZERO);
    sink.prepare(1).unwrap();
    let mut committer = sink.committer(&committing(&Arc::default())).unwrap().unwrap();
    let message = committer.recover(&[]).unwrap_err().to_string();
    assert!(message.contains(&session) && message.contains("prepare the statement"), "{message}");
    drop((committer, sink));
    // While it writes, for a while.
    drop(locking);
    let connections = Arc::<Connections>::default();
    let (mut committer, mut writer) = begin(&mut inserting(&server), &[], &connections);
    let mut locking = server.session().unwrap();
    locking.batch_execute("BEGIN; LOCK TABLE numbers").unwrap();
    let secured = prepare(&mut writer, 0..700);
    until("a try in vain", || connections.stats().down == 1);
    let said = connections.stats().last_failure.unwrap();
    assert!(said.contains("AccessExclusiveLock): BEGIN; LOCK TABLE numbers"), "{said}");
    drop(locking);
    committer.secure(&secured).unwrap();
    committer.commit(&secured).unwrap();
    assert_eq!(numbers(&server), (0..700).collect::<Vec<_>>());
}

#[test]
fn a_process_waits_for_one_with_its_name_that_is_about_to_end() {
    let Some(server) = server(64, WITH_KEY) else { return };
    let mut sink = inserting(&server);
    let (mut committer, mut writer) = begin(&mut sink, &[], &Arc::default());
    let secured = prepare(&mut writer, 0..10);
    committer.secure(&secured).unwrap();
    let connections = Arc::<Connections>::default();
    thread::scope(|scope| {
        // It waits for a dead one to be noticed, however soon it gives up.
        let mut next = inserting(&server).give_up_after(Duration::ZERO);
        let (then, tried) = (&secured, &connections);
        let next = scope.spawn(move || drop(begin(&mut next, then, tried)));
        until("tries that fail", || connections.stats().retries >= TRIES);
        assert!(
            !next.is_finished() && prepared(&server) == 1,
            "the first one's transaction is not to be touched"
        );
        // It dies.
        drop((committer, writer));
        next.join().unwrap();
    });
    assert_eq!((numbers(&server), prepared(&server)), ((0..10).collect(), 0));
}

#[test]
fn a_process_that_lost_its_connection_to_another_one_does_not_take_what_was_rolled_back_for_committed() {
    let Some(mut server) = server(64, WITH_KEY) else { return };
    let mut sink = inserting(&server).give_up_after(Duration::from_millis(200));
    let (mut committer, mut writer) = begin(&mut sink, &[], &Arc::default());
    let secured = prepare(&mut writer, 0..10);
    committer.secure(&secured).unwrap();
    // Before it is there again, another one begins that knows nothing of what is prepared.
    server.kill().unwrap();
    server.up().unwrap();
    let other = begin(&mut inserting(&server), &[], &Arc::default());
    assert_eq!(prepared(&server), 0);
    let message = committer.commit(&secured).unwrap_err().to_string();
    assert!(message.contains("still has their lock"), "{message}");
    drop(other);
    let gid = String::from_utf8(secured[0].clone()).unwrap();
    let lost = |error: tidemill_engine::model::source::BoxError| {
        let message = error.to_string();
        assert!(message.contains(&gid) && message.contains("aborted"), "{message}");
    };
    lost(committer.commit(&secured).unwrap_err());
    // Nor when the job goes on from that checkpoint.
    drop(writer);
    lost(committer.recover(&secured).unwrap_err());
}

#[test]
fn a_commit_whose_answer_was_lost_is_one() {
    let Some(server) = server(64, WITH_KEY) else { return };
    let mut sink = inserting(&server);
    let (mut committer, mut writer) = begin(&mut sink, &[], &Arc::default());
    let secured = prepare(&mut writer, 0..10);
    committer.secure(&secured).unwrap();
    // The server does it, and the process does not hear of it.
    let gid = String::from_utf8(secured[0].clone()).unwrap();
    server.execute(&format!("COMMIT PREPARED '{gid}'")).unwrap();
    committer.commit(&secured).unwrap();
    // And once more.
    committer.commit(&secured).unwrap();
    assert_eq!(numbers(&server), (0..10).collect::<Vec<_>>());
    // What it never prepared is nothing that it may take for committed.
    let unknown = format!("{gid}0").into_bytes();
    let message = committer.commit(&[unknown]).unwrap_err().to_string();
    assert!(message.contains("this process has not prepared"), "{message}");
}

#[test]
fn a_server_that_is_down_at_any_step_loses_and_doubles_nothing() {
    let Some(mut server) = server(64, WITH_KEY) else { return };
    let connections = Arc::<Connections>::default();
    let mut at = 0;
    for go_down in WAYS_DOWN {
        let (first, then) = (at..at + 700, at + 700..at + 1000);
        at += 1000;
        // At the start.
        let mut sink = inserting(&server);
        let before = connections.stats();
        go_down(&mut server).unwrap();
        let begun = while_down(&mut server, &connections, &before, || begin(&mut sink, &[], &connections));
        let (mut committer, mut writer) = begun;
        // Within a transaction and before it is prepared: its rows are written again.
        first.for_each(|number| writer.write(number, 0).unwrap());
        writer.flush().unwrap();
        until("rows in an open transaction", || {
            let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tidemill:%' \
                 AND state = 'idle in transaction' AND query LIKE 'INSERT%'";
            server.figure(open).unwrap() == 1
        });
        let before = connections.stats();
        go_down(&mut server).unwrap();
        let secured = prepare(&mut writer, then);
        while_down(&mut server, &connections, &before, || committer.secure(&secured)).unwrap();
        assert_eq!(prepared(&server), 1);
        // Before it is committed.
        let before = connections.stats();
        go_down(&mut server).unwrap();
        while_down(&mut server, &connections, &before, || committer.commit(&secured)).unwrap();
        assert!(numbers(&server) == (0..at).collect::<Vec<_>>(), "{} rows", numbers(&server).len());
        assert_eq!(prepared(&server), 0);
    }
}

#[test]
fn a_server_that_stays_down_is_a_clear_error() {
    let Some(mut server) = server(64, WITH_KEY) else { return };
    let connections = Arc::<Connections>::default();
    let mut sink = inserting(&server).give_up_after(Duration::from_millis(200));
    let (mut committer, mut writer) = begin(&mut sink, &[], &connections);
    server.stop().unwrap();
    let lost = prepare(&mut writer, 0..1);
    let error = committer.secure(&lost).unwrap_err().to_string();
    assert!(error.contains("could not be reached"), "{error}");
    let stats = connections.stats();
    assert!(stats.retries > 0 && stats.last_failure.is_some_and(|cause| error.contains(&cause)), "{error}");
}

#[test]
fn a_commit_that_nobody_waits_for_any_more_ends_though_the_server_stays_down() {
    let Some(mut server) = server(64, WITH_KEY) else { return };
    let connections = Arc::<Connections>::default();
    let mut sink = inserting(&server).give_up_after(3 * PATIENCE);
    let (mut committer, mut writer) = begin(&mut sink, &[], &connections);
    let secured = prepare(&mut writer, 0..10);
    committer.secure(&secured).unwrap();
    let mut commit_until = |server: &mut PostgresServer, enough: &dyn Fn()| {
        server.kill().unwrap();
        let before = connections.stats().retries;
        thread::scope(|scope| {
            let committing = scope.spawn(|| committer.commit(&secured));
            until("tries that fail", || connections.stats().retries >= before + TRIES);
            enough();
            until("the end of the commit", || committing.is_finished());
            assert!(committing.join().unwrap().is_err());
        });
        server.up().unwrap();
    };
    // Somebody who waits for the job to stop has waited for long enough, and for the next time another one has not.
    let hurry = std::cell::Cell::new(None);
    commit_until(&mut server, &|| hurry.set(Some(connections.hurry())));
    drop(hurry);
    commit_until(&mut server, &|| connections.give_up());
    // What was not committed is there.
    assert_eq!((numbers(&server).len(), prepared(&server)), (0, 1));
}

/// Of jobs that do not stay down.
const RESTARTED: RestartStrategy = RestartStrategy::FixedDelay { attempts_max: 10_000, delay_ms: 10 };

/// A job that writes what it is fed.
struct Fed {
    feeder: WriteAheadFeeder<i64>,
    monitor: JobMonitor,
    /// Joins the job.
    ended: thread::JoinHandle<Result<(), Error>>,
    sent: i64,
}

impl Fed {
    fn start(server: &PostgresServer, directory: &std::path::Path, give_up_after: Duration) -> Self {
        Self::start_with(directory, inserting(server).give_up_after(give_up_after), false)
    }

    /// With this sink, and one operator more if the job has been changed.
    fn start_with(directory: &std::path::Path, sink: PostgresSink<i64>, is_changed: bool) -> Self {
        let checkpoints =
            CheckpointConfig { interval_ms: 20, ..CheckpointConfig::new(directory.join("checkpoints")) };
        Self::start_as(directory, sink, is_changed, checkpoints, RESTARTED)
    }

    /// With this sink, and this time for a checkpoint.
    fn start_within(directory: &std::path::Path, sink: PostgresSink<i64>, timeout_ms: u64) -> Self {
        let checkpoints = CheckpointConfig::new(directory.join("checkpoints"));
        let checkpoints = CheckpointConfig { interval_ms: 20, timeout_ms, ..checkpoints };
        Self::start_as(directory, sink, false, checkpoints, RESTARTED)
    }

    fn start_as(
        directory: &std::path::Path,
        sink: PostgresSink<i64>,
        is_changed: bool,
        checkpoints: CheckpointConfig,
        restart: RestartStrategy,
    ) -> Self {
        let config =
            JobConfig { parallelism: 2, checkpoints: Some(checkpoints), restart, ..JobConfig::default() };
        let environment = StreamEnvironment::with_config(config);
        let (feeder, source) = WriteAheadChannel::new(directory.join("log")).open(&environment).unwrap();
        let numbers = environment.from_source("numbers", source, WatermarkStrategy::none()).rebalance();
        if is_changed {
            numbers.filter(|_| true).sink("rows", sink);
        } else {
            numbers.sink("rows", sink);
        }
        let job = environment.start().unwrap();
        let monitor = job.monitor();
        let ended = thread::spawn(move || job.wait().map(drop));
        Self { feeder, monitor, ended, sent: 0 }
    }

    fn send(&mut self) {
        let numbers: Vec<_> = (self.sent..self.sent + 1000).collect();
        self.feeder.send_all(&numbers).unwrap();
        self.sent += 1000;
    }

    fn connections(&self) -> ConnectionStats {
        self.monitor.metrics().operator("rows").unwrap().connections.clone()
    }

    fn wait_for_rows(&self, server: &PostgresServer) {
        until("rows that are committed", || {
            server.figure("SELECT count(*) FROM numbers").unwrap() >= self.sent
        });
        until("connections that work", || self.connections().down == 0);
    }

    /// Stops behind a checkpoint; returns how much was sent.
    fn stop(self) -> i64 {
        self.monitor.suspend().unwrap();
        self.ended.join().unwrap().unwrap();
        self.sent
    }

    /// Ends at the end of what was sent; returns how much that was.
    fn close(self) -> i64 {
        self.feeder.close().unwrap().wait().unwrap();
        self.ended.join().unwrap().unwrap();
        self.sent
    }

    fn end(self, server: &PostgresServer) {
        let sent = self.close();
        assert!(numbers(server) == (0..sent).collect::<Vec<_>>(), "{} rows", numbers(server).len());
        assert_eq!(prepared(server), 0);
    }
}

#[test]
fn a_job_writes_every_row_once_though_the_server_goes_down_under_it() {
    let Some(mut server) = server(64, WITHOUT_KEY) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut job = Fed::start(&server, directory.path(), PATIENCE);
    for go_down in WAYS_DOWN.into_iter().cycle().take(4) {
        job.send();
        job.wait_for_rows(&server);
        job.send();
        let before = job.connections();
        go_down(&mut server).unwrap();
        job.send();
        until("tries in the metrics", || {
            let now = job.connections();
            now.down > 0 && now.retries >= before.retries + TRIES
        });
        server.up().unwrap();
        job.wait_for_rows(&server);
    }
    assert_eq!(job.monitor.metrics().checkpoints.restarts, 0);
    job.end(&server);
}

#[test]
fn a_job_with_an_operator_more_before_its_sink_goes_on_and_writes_every_row_once() {
    let Some(server) = server(64, WITHOUT_KEY) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut job = Fed::start(&server, directory.path(), PATIENCE);
    job.send();
    job.wait_for_rows(&server);
    job.send();
    let sent = job.stop();
    let mut job = Fed { sent, ..Fed::start_with(directory.path(), inserting(&server), true) };
    job.send();
    job.wait_for_rows(&server);
    job.end(&server);
}

#[test]
fn a_job_that_fails_without_the_server_goes_on_when_it_is_back() {
    let Some(mut server) = server(64, WITHOUT_KEY) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut job = Fed::start(&server, directory.path(), Duration::from_millis(60));
    for go_down in WAYS_DOWN {
        job.send();
        job.wait_for_rows(&server);
        job.send();
        let before = job.monitor.metrics().checkpoints.restarts;
        go_down(&mut server).unwrap();
        job.send();
        // One at least of these began while the server was down, and failed in its recovery.
        until("starts in vain", || job.monitor.metrics().checkpoints.restarts >= before + 3);
        assert!(job.connections().retries > 0);
        server.up().unwrap();
        job.wait_for_rows(&server);
    }
    job.end(&server);
}

#[test]
fn a_job_is_cancelled_though_the_server_stays_down() {
    let Some(mut server) = server(64, WITHOUT_KEY) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut job = Fed::start(&server, directory.path(), 3 * PATIENCE);
    job.send();
    job.wait_for_rows(&server);
    server.kill().unwrap();
    job.send();
    until("a connection that is down", || job.connections().down > 0);
    job.monitor.cancel();
    until("the end of the job", || job.ended.is_finished());
    assert!(matches!(job.ended.join().unwrap(), Err(Error::Cancelled)));
}

#[test]
fn a_job_stops_in_the_time_of_a_checkpoint_though_the_server_stays_down() {
    let Some(mut server) = server(64, WITHOUT_KEY) else { return };
    let directory = tempfile::tempdir().unwrap();
    let start = |server: &PostgresServer| {
        Fed::start_within(directory.path(), inserting(server).give_up_after(3 * PATIENCE), 500)
    };
    let mut job = start(&server);
    job.send();
    job.wait_for_rows(&server);
    // What is under way is being prepared or committed.
    job.send();
    server.kill().unwrap();
    job.send();
    until("a connection that is down", || job.connections().down > 0);
    let Fed { feeder, monitor, ended, sent } = job;
    let stopping = thread::spawn(move || monitor.stop());
    until("the end of the job", || ended.is_finished());
    let stopped = stopping.join().unwrap();
    assert!(matches!(stopped, Ok(()) | Err(Error::Checkpoint(_))), "{stopped:?}");
    drop((feeder, ended));
    server.up().unwrap();
    let mut job = Fed { sent, ..start(&server) };
    job.send();
    job.end(&server);
}

#[test]
fn what_is_wrong_with_role_database_table_and_values_is_told_as_what_it_is() {
    let Some(server) = server(3, WITH_KEY) else { return };
    let connections = Arc::default();
    let to = |connection: String, column: &str| {
        PostgresSink::insert(connection, "numbers", [column], |number: &i64| vec![sql_value(*number as i32)])
            .give_up_after(PATIENCE)
    };
    let at = |from: &str, to: &str| server.connection().replace(from, to);
    for (connection, cause) in [
        (at("user=postgres", "user=nobody"), "role \"nobody\" does not exist"),
        (at("dbname=postgres", "dbname=nowhere"), "database \"nowhere\" does not exist"),
    ] {
        let message = refused(to(connection, "number"), &connections);
        assert!(message.contains("does not let the job in") && message.contains(cause), "{message}");
    }
    let message = refused(to(server.connection(), "Number"), &connections);
    assert!(message.contains("\"numbers\" has no column \"Number\"; it has number."), "{message}");
    server.execute("CREATE ROLE guest LOGIN").unwrap();
    let message = refused(to(at("user=postgres", "user=guest"), "number"), &connections);
    assert!(message.contains("role guest may not write to column \"number\""), "{message}");
    // Three are enough for three subtasks without checkpoints, and not for four.
    let mut wide = to(server.connection(), "number");
    wide.prepare(4).unwrap();
    let message = wide.committer(&committing(&connections)).err().unwrap().to_string();
    assert!(message.contains("takes 3 prepared") && message.contains("needs 4"), "{message}");
    // What a function makes of a record shows with the first.
    let (mut committer, mut writer) = begin(&mut to(server.connection(), "number"), &[], &connections);
    let unfit = prepare(&mut writer, 0..1);
    let message = committer.secure(&unfit).unwrap_err().to_string();
    let said = ["column \"number\"", "`i32`", "`int8`"];
    assert!(said.iter().all(|word| message.contains(word)), "{message}");
}

#[test]
fn a_process_that_goes_for_good_leaves_nothing_prepared() {
    let Some(server) = server(64, WITH_KEY) else { return };
    let (mut committer, mut writer) = begin(&mut inserting(&server), &[], &Arc::default());
    let named = prepare(&mut writer, 0..10);
    committer.secure(&named).unwrap();
    (10..20).for_each(|number| writer.write(number, 0).unwrap());
    committer.secure(&writer.pre_commit(2).unwrap()).unwrap();
    assert_eq!(prepared(&server), 2);
    // A transaction that is open, too.
    (20..30).for_each(|number| writer.write(number, 0).unwrap());
    writer.flush().unwrap();
    drop(writer);
    committer.leave(&named).unwrap();
    assert_eq!((numbers(&server), prepared(&server)), ((0..10).collect(), 0));
    // And when all of it is committed.
    committer.leave(&named).unwrap();
    assert_eq!((numbers(&server), prepared(&server)), ((0..10).collect(), 0));
}

/// Ends a job of which one subtask has prepared its transaction, while the other waits for somebody else's row, whose session this is.
fn end_between_two_transactions(
    server: &PostgresServer,
    retain_on_cancel: bool,
    restart: RestartStrategy,
    end: impl FnOnce(&Fed, Client),
) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = CheckpointConfig::new(directory.path().join("checkpoints"));
    let checkpoints = CheckpointConfig { interval_ms: 20, retain_on_cancel, ..checkpoints };
    let mut job = Fed::start_as(directory.path(), inserting(server), false, checkpoints, restart);
    job.send();
    job.wait_for_rows(server);
    let mut other = server.session().unwrap();
    other.batch_execute(&format!("BEGIN; INSERT INTO numbers VALUES ({})", job.sent)).unwrap();
    job.send();
    until("a transaction that is prepared, and one that waits", || prepared(server) == 1);
    until_waiting(server, 1);
    end(&job, other);
    assert!(job.ended.join().unwrap().is_err());
    directory
}

#[test]
fn a_job_that_ends_before_its_time_leaves_nothing_prepared() {
    let Some(server) = server(64, WITH_KEY) else { return };
    let cancel = |job: &Fed, other: Client| {
        job.monitor.cancel();
        until("the end of the job", || job.ended.is_finished());
        drop(other);
    };
    for retain_on_cancel in [false, true] {
        server.execute("TRUNCATE numbers").unwrap();
        end_between_two_transactions(&server, retain_on_cancel, RESTARTED, cancel);
        assert_eq!((numbers(&server), prepared(&server)), ((0..1000).collect(), 0));
    }
    // The other one's row is there: the job fails.
    server.execute("TRUNCATE numbers").unwrap();
    let fail = |_: &Fed, mut other: Client| other.batch_execute("COMMIT").unwrap();
    let directory = end_between_two_transactions(&server, true, RestartStrategy::None, fail);
    assert_eq!((numbers(&server), prepared(&server)), ((0..=1000).collect(), 0));
    // It goes on from its checkpoint.
    server.execute("DELETE FROM numbers WHERE number = 1000").unwrap();
    let job = Fed { sent: 2000, ..Fed::start(&server, directory.path(), PATIENCE) };
    job.end(&server);
}

#[test]
fn rows_that_may_come_twice_are_committed_as_they_come_without_prepared_transactions() {
    let Some(server) = server(0, WITHOUT_KEY) else { return };
    let connections = Arc::default();
    let mut sink = inserting_at_least_once(&server);
    let (mut committer, mut writer) = begin(&mut sink, &[], &connections);
    // A batch that is full does not wait for the barrier.
    (0..512).for_each(|number| writer.write(number, 0).unwrap());
    until("rows of a full batch", || numbers(&server).len() == 512);
    // The others do not wait for the checkpoint.
    let secured = prepare(&mut writer, 512..700);
    committer.secure(&secured).unwrap();
    assert_eq!(numbers(&server), (0..700).collect::<Vec<_>>());
    // It dies before that is complete: they come again. Behind one that is complete, nothing is missing.
    drop((committer, writer));
    let (mut committer, mut writer) = begin(&mut sink, &[], &connections);
    let secured = prepare(&mut writer, 0..700);
    committer.secure(&secured).unwrap();
    drop((committer, writer));
    let (mut committer, _writer) = begin(&mut sink, &secured, &connections);
    committer.commit(&secured).unwrap();
    let mut rows = numbers(&server);
    assert_eq!(rows.len(), 1400);
    rows.dedup();
    assert_eq!(rows, (0..700).collect::<Vec<_>>());
}

#[test]
fn what_was_prepared_is_committed_though_rows_may_come_twice_from_now_on() {
    let Some(server) = server(64, WITH_KEY) else { return };
    let connections = Arc::default();
    let (mut committer, mut writer) = begin(&mut inserting(&server), &[], &connections);
    let secured = prepare(&mut writer, 0..10);
    committer.secure(&secured).unwrap();
    drop((committer, writer));
    begin(&mut inserting_at_least_once(&server), &secured, &connections);
    assert_eq!((numbers(&server), prepared(&server)), ((0..10).collect(), 0));
}

#[test]
fn a_job_whose_rows_may_come_twice_loses_none_though_the_server_goes_down_under_it() {
    let Some(mut server) = server(0, WITHOUT_KEY) else { return };
    let directory = tempfile::tempdir().unwrap();
    // It fails with the server, again and again, and goes on from its checkpoints.
    let give_up_after = Duration::from_millis(60);
    let mut job = Fed::start_with(
        directory.path(),
        inserting_at_least_once(&server).give_up_after(give_up_after),
        false,
    );
    let is_there = |server: &PostgresServer, sent: i64| {
        server.figure("SELECT count(DISTINCT number) FROM numbers").unwrap() >= sent
    };
    for go_down in WAYS_DOWN {
        job.send();
        until("rows that are committed", || is_there(&server, job.sent));
        job.send();
        let before = job.monitor.metrics().checkpoints.restarts;
        go_down(&mut server).unwrap();
        job.send();
        until("starts in vain", || job.monitor.metrics().checkpoints.restarts >= before + 3);
        server.up().unwrap();
        until("rows that are committed", || is_there(&server, job.sent));
    }
    let sent = job.close();
    let mut rows = numbers(&server);
    rows.dedup();
    assert!(rows == (0..sent).collect::<Vec<_>>(), "{} different rows", rows.len());
}

#[test]
fn rows_with_a_key_replace_each_other_and_bad_settings_are_told() {
    let table = "CREATE TABLE numbers (number bigint PRIMARY KEY, name text)";
    let Some(server) = server(0, table) else { return };
    let connections = Arc::default();
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
        let (mut committer, mut writer) = begin(&mut sink, &[], &connections);
        let prepared = prepare(&mut writer, 0..10);
        committer.secure(&prepared).unwrap();
        committer.commit(&prepared).unwrap();
    }
    let seconds = server.figure("SELECT count(*) FROM numbers WHERE name = 'second'");
    assert_eq!(seconds.unwrap(), 10);

    let open = |sink: PostgresSink<i64>| refused(sink, &connections);
    let message = open(inserting(&server));
    assert!(message.contains("max_prepared_transactions") && message.contains("takes 0"), "{message}");
    let no_table = PostgresSink::upsert(server.connection(), "nowhere", ["a"], ["a"], |_: &i64| Vec::new());
    assert!(open(no_table).contains("\"nowhere\" does not exist"));
    let secret = PostgresSink::insert("password=secret nonsense", "t", ["a"], |_: &i64| Vec::new());
    assert!(!format!("{secret:?}").contains("secret"));
    assert!(!open(secret).contains("secret"));
}
