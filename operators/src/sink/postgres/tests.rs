//! What is kept of transactions and batches in memory, which no table shows.

use tidemill_engine::{
    model::sink::SinkWriter,
    platform::{Platform, SimPlatform, Wake},
};
use tidemill_postgres_server::PostgresServer;

use super::*;

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// What is remembered of checkpoints when the last of some is complete.
fn remembered(server: &PostgresServer, mut sink: PostgresSink<i64>) -> usize {
    server
        .execute("CREATE TABLE IF NOT EXISTS numbers (number bigint PRIMARY KEY); TRUNCATE numbers")
        .unwrap();
    sink.prepare(1).unwrap();
    let platform = SimPlatform::new(0);
    let context = CommitContext {
        job: "job".into(),
        operator: "numbers".into(),
        disk: Platform::disk(&platform),
        connections: Arc::default(),
    };
    let mut committer = sink.committer(&context).unwrap().unwrap();
    committer.recover(&[]).unwrap();
    let subtask = SubtaskContext {
        subtask: 0,
        parallelism: 1,
        inline_io: false,
        disk: Platform::disk(&platform),
        clock: platform.clock(),
        waker: Arc::new(NoWake),
    };
    let mut writer = sink.open(&subtask).unwrap();
    for checkpoint in 1..=20 {
        writer.write(checkpoint as i64, 0).unwrap();
        let prepared = writer.pre_commit(checkpoint).unwrap();
        committer.secure(&prepared).unwrap();
        committer.commit(&prepared).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(server.figure("SELECT count(*) FROM numbers").unwrap(), 20);
    sink.shared.lock().prepared.len()
}

#[test]
fn nothing_is_remembered_of_a_checkpoint_that_is_complete() {
    let Some(server) = PostgresServer::start_if_installed(2).unwrap() else { return };
    let row = |number: &i64| vec![sql_value(*number)];
    let insert = || PostgresSink::insert(server.connection(), "numbers", ["number"], row);
    let upsert = PostgresSink::upsert(server.connection(), "numbers", ["number"], ["number"], row);
    let at_least_once = insert().delivery_guarantee(DeliveryGuarantee::AtLeastOnce);
    for (how, sink) in [("exactly once", insert()), ("at least once", at_least_once), ("by key", upsert)] {
        assert_eq!(remembered(&server, sink), 0, "{how}");
    }
}
