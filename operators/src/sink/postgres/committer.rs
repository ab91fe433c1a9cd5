//! Commits the transactions that a checkpoint has, and rolls back those that none has.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    time::Duration,
};

use ::postgres::{Client, Config, error::SqlState};
use tidemill_engine::{
    model::{checkpoint::Committable, sink::Committer, source::BoxError},
    platform::files::IoThreads,
};

use super::{
    Limits, PostgresError, Shared, SharedState, lock,
    session::{Failure, Session, Statement, literal},
};

/// How long a transaction may take to be prepared, beyond the time for which the server is tried.
const PREPARE_TIME: Duration = Duration::from_secs(60);
/// How long they may take where no attempt follows.
const LEAVE_TIME: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile whether anybody waits for it yet.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// How long it may take once nobody does.
const UNWANTED_TIME: Duration = Duration::from_secs(1);
/// How long sessions of an earlier attempt may take to end.
const END_TIME: Duration = Duration::from_secs(60);

/// Commits what the threads of all subtasks have prepared. Its own work is done on an I/O thread, too: the driver is not to be
/// called on a thread that runs asynchronous tasks, as the one that starts a job may be.
pub(super) struct PostgresCommitter {
    work: Option<Work>,
    threads: IoThreads,
}

impl PostgresCommitter {
    pub(super) fn open(
        config: Config,
        prefix: String,
        statement: Arc<Statement>,
        limits: Limits,
        shared: Arc<Shared>,
        threads: IoThreads,
    ) -> Result<Self, PostgresError> {
        let opened = away(&threads, move || Work::new(config, prefix, statement, limits, shared))??;
        Ok(Self { work: Some(opened), threads })
    }

    fn work<R: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Work) -> Result<R, PostgresError> + Send + 'static,
    ) -> Result<R, BoxError> {
        let mut work = self.work.take().ok_or(PostgresError::ThreadLost)?;
        let (work, done) = away(&self.threads, move || {
            let done = act(&mut work);
            (work, done)
        })?;
        self.work = Some(work);
        Ok(done?)
    }
}

impl Drop for PostgresCommitter {
    fn drop(&mut self) {
        // Closing the connection is the driver's work as well.
        let work = self.work.take();
        let _ = away(&self.threads, move || drop(work));
    }
}

/// Does something on a thread of its own, and waits for it.
fn away<R: Send + 'static>(
    threads: &IoThreads,
    act: impl FnOnce() -> R + Send + 'static,
) -> Result<R, PostgresError> {
    let (done, answer) = mpsc::channel();
    threads.spawn("tidemill-pg".into(), move || drop(done.send(act())));
    answer.recv().map_err(|_| PostgresError::ThreadLost)
}

/// Who may have ended a transaction that is not there any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// This process: it has prepared it, and committed it or not.
    Own,
    /// An earlier process, too, of which nothing is known but its checkpoint.
    AnyProcess,
}

/// What is done on the thread.
struct Work {
    session: Session,
    prefix: String,
    statement: Arc<Statement>,
    limits: Limits,
    shared: Arc<Shared>,
    /// What was committed last.
    committed: BTreeSet<String>,
}

impl Work {
    fn new(
        config: Config,
        prefix: String,
        statement: Arc<Statement>,
        limits: Limits,
        shared: Arc<Shared>,
    ) -> Result<Self, PostgresError> {
        let connection = shared.lock().connections.open();
        let mut session =
            Session::new(config, connection, limits.give_up_after, || false).holding(lock::key(&prefix));
        let is_transactional = statement.is_transactional();
        // One per subtask at the end of a job without checkpoints; with them there are those of one that is being committed, and of the next.
        let needed = limits.parallelism;
        let usual = 2 * needed;
        // Nothing here may need a lock on the table: whoever waits for one behind what an earlier process has prepared, waits until
        // that is ended, and is in the way of all who come later.
        session.run("look at the table", |client, _| {
            let most = "SELECT current_setting('max_prepared_transactions')::bigint";
            let found: i64 = client.query_one(most, &[])?.try_get(0)?;
            if is_transactional && found < needed as i64 {
                return Err(Failure::Ours(PostgresError::TooFewPreparedTransactions { needed, found }));
            }
            if is_transactional && found < usual as i64 {
                tracing::warn!(found, usual, "the PostgreSQL server takes fewer prepared transactions than a job with checkpoints needs");
            }
            check_table(client, &statement)
        })?;
        Ok(Self { session, prefix, statement, limits, shared, committed: BTreeSet::new() })
    }

    fn gids(&self, committables: &[Committable]) -> Result<Vec<String>, PostgresError> {
        let gid = |committable: &Committable| {
            let gid = String::from_utf8_lossy(committable).into_owned();
            if gid.starts_with(&self.prefix) { Ok(gid) } else { Err(PostgresError::OtherCommittable { gid }) }
        };
        committables.iter().map(gid).collect()
    }

    /// Ends a prepared transaction one way or the other; whether it was there.
    fn end(&mut self, doing: &'static str, command: &str, gid: &str) -> Result<bool, PostgresError> {
        let text = format!("{command} {}", literal(gid));
        self.session.run(doing, |client, _| match client.batch_execute(&text) {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(false),
            other => Ok(other.map(|()| true)?),
        })
    }

    /// Commits these, or makes sure that they were: what is not there any more may have been committed by this process, whose
    /// answer was lost, by an earlier one, or may have been rolled back by somebody else.
    fn commit_all(&mut self, gids: Vec<String>, whose: Whose) -> Result<(), PostgresError> {
        for gid in &gids {
            let was_there = self.end("commit a transaction", "COMMIT PREPARED", gid)?;
            if !was_there && !self.committed.contains(gid) {
                self.find_committed(gid, whose)?;
            }
            self.committed.insert(gid.clone());
        }
        // What was committed before these is not asked for again.
        self.forget(&gids);
        self.committed = gids.into_iter().collect();
        Ok(())
    }

    /// Nobody asks any more what became of these.
    fn forget(&self, gids: &[String]) {
        let mut state = self.shared.lock();
        gids.iter().for_each(|gid| drop(state.prepared.remove(gid)));
    }

    /// Fails unless a transaction that is not prepared any more was committed.
    fn find_committed(&mut self, gid: &str, whose: Whose) -> Result<(), PostgresError> {
        let lost = |status: String| PostgresError::TransactionLost { gid: gid.to_owned(), status };
        let numbers = match self.shared.lock().prepared.get(gid) {
            Some(Ok(numbers)) => numbers.clone(),
            _ => Vec::new(),
        };
        if numbers.is_empty() {
            return match whose {
                Whose::AnyProcess => Ok(()),
                Whose::Own => Err(lost("one that this process has not prepared".to_owned())),
            };
        }
        let found = self.session.run("ask what became of a transaction", |client, _| {
            let status = "SELECT COALESCE(txid_status($1), 'too old to be known')";
            let status = |number: &i64| -> Result<String, Failure> {
                Ok(client.query_one(status, &[number])?.try_get(0)?)
            };
            numbers.iter().map(status).collect::<Result<Vec<_>, _>>()
        })?;
        if found.iter().any(|status| status == "committed") { Ok(()) } else { Err(lost(found.join(", "))) }
    }

    /// Waits until no thread or session of an earlier attempt is there: one might prepare something later.
    fn end_old_sessions(&mut self, at_most: Duration) -> Result<(), PostgresError> {
        let old = || PostgresError::OldSessions { application: self.prefix.clone() };
        let none_left = self.shared.wait(at_most, |state| (state.threads == 0).then_some(()));
        none_left.ok_or_else(old)?;
        let failed = old();
        let prefix = self.prefix.clone();
        let ended = self.session.wait_until(at_most, |session| end_sessions(session, &prefix))?;
        if ended { Ok(()) } else { Err(failed) }
    }

    /// Rolls back what is prepared for this sink and is not one of these.
    fn roll_back_others(&mut self, named: &[String]) -> Result<(), PostgresError> {
        let prefix = self.prefix.clone();
        let left = self.session.run("list prepared transactions", |client, _| {
            let left = client.query(
                "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, $1) AND database = current_database()",
                &[&prefix],
            )?;
            Ok(left.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?)
        })?;
        for gid in left.iter().filter(|gid| !named.contains(gid)) {
            self.end("roll a transaction back", "ROLLBACK PREPARED", gid)?;
        }
        Ok(())
    }
}

/// Ends the sessions of the threads; whether there were none.
fn end_sessions(session: &mut Session, prefix: &str) -> Result<bool, PostgresError> {
    session.run("end sessions of an earlier attempt", |client, _| {
        let ended = client.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()",
            &[&prefix],
        )?;
        Ok(ended.is_empty())
    })
}

/// Its columns, and those of them that the role may not write to. The server's catalogue says so without a lock on the table.
const COLUMNS: &str = "\
    SELECT to_regclass($1) IS NOT NULL, current_database()::text, current_user::text, \
        COALESCE(array_agg(attname::text ORDER BY attnum), '{}'), \
        COALESCE(array_agg(attname::text) FILTER (WHERE NOT has_column_privilege(attrelid, attnum, 'INSERT')), '{}') \
    FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

/// Fails unless the table has the columns of a statement, and the role may write to them.
fn check_table(client: &mut Client, statement: &Statement) -> Result<(), Failure> {
    let ours = |error| Err(Failure::Ours(error));
    let (table, columns) = (statement.table(), statement.columns());
    let row = client.query_one(COLUMNS, &[&table])?;
    if !row.try_get(0)? {
        return ours(PostgresError::NoTable { table, database: row.try_get(1)? });
    }
    let (has, barred): (Vec<String>, Vec<String>) = (row.try_get(3)?, row.try_get(4)?);
    if let Some(column) = columns.iter().find(|column| !has.contains(column)) {
        return ours(PostgresError::NoColumn { table, column: column.clone(), has: has.join(", ") });
    }
    match columns.iter().find(|column| barred.contains(column)) {
        Some(column) => ours(PostgresError::NoRight { role: row.try_get(2)?, table, column: column.clone() }),
        None => Ok(()),
    }
}

impl Committer for PostgresCommitter {
    fn secure(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        let committables = committables.to_vec();
        self.work(move |work| work.secure(&committables))
    }

    fn commit(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        let committables = committables.to_vec();
        self.work(move |work| work.commit(&committables))
    }

    fn is_patient(&self) -> bool {
        true
    }

    fn abort(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        let committables = committables.to_vec();
        self.work(move |work| work.abort(&committables))
    }

    fn recover(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        let committables = committables.to_vec();
        self.work(move |work| work.recover(&committables))
    }

    fn leave(&mut self, committables: &[Committable]) -> Result<(), BoxError> {
        let committables = committables.to_vec();
        self.work(move |work| match work.leave(&committables) {
            // The connection may be an old one.
            Err(PostgresError::Unreachable { .. }) => work.leave(&committables),
            left => left,
        })
    }
}

impl Work {
    fn secure(&mut self, committables: &[Committable]) -> Result<(), PostgresError> {
        let after = self.limits.give_up_after.saturating_add(PREPARE_TIME);
        for gid in self.gids(committables)? {
            let prepared = self.wait_for(&gid, after);
            let prepared = prepared.ok_or(PostgresError::NotPreparedInTime { gid, after })?;
            prepared.map_err(PostgresError::Thread)?;
        }
        Ok(())
    }

    /// Waits until a thread says what became of a transaction that was handed to it, for `at_most`, and not for long once nobody waits.
    fn wait_for(&self, gid: &str, at_most: Duration) -> Option<Result<Vec<i64>, Arc<PostgresError>>> {
        let look = |state: &mut SharedState| {
            let lost = || (state.threads == 0).then(|| Err(Arc::new(PostgresError::ThreadLost)));
            state.prepared.get(gid).cloned().or_else(lost)
        };
        let mut left = at_most;
        while !left.is_zero() && !self.shared.lock().connections.is_unwanted() {
            let time = left.min(LOOK_AFTER);
            if let Some(prepared) = self.shared.wait(time, look) {
                return Some(prepared);
            }
            left -= time;
        }
        self.shared.wait(left.min(UNWANTED_TIME), look)
    }

    fn commit(&mut self, committables: &[Committable]) -> Result<(), PostgresError> {
        let gids = self.gids(committables)?;
        if self.statement.is_transactional() {
            return self.commit_all(gids, Whose::Own);
        }
        // Their rows have been in the table since `secure`.
        self.forget(&gids);
        Ok(())
    }

    fn abort(&mut self, committables: &[Committable]) -> Result<(), PostgresError> {
        for gid in self.gids(committables)? {
            if self.statement.is_transactional() {
                self.end("roll a transaction back", "ROLLBACK PREPARED", &gid)?;
            }
        }
        Ok(())
    }

    fn recover(&mut self, committables: &[Committable]) -> Result<(), PostgresError> {
        self.end_old_sessions(END_TIME)?;
        let gids = self.gids(committables)?;
        // Also where rows are written in other ways by now: the sink may have been another before.
        self.commit_all(gids, Whose::AnyProcess)?;
        self.roll_back_others(&[])?;
        let attempt = self.session.run("name an attempt", |client, _| {
            Ok(client.query_one("SELECT gen_random_uuid()::text", &[])?.try_get(0)?)
        })?;
        // What keeps it from being written to is told now, and not with the first row.
        let statement = Arc::clone(&self.statement);
        self.session.run("prepare the statement", |client, _| statement.ready(client, 1).map(drop))?;
        let mut state = self.shared.lock();
        state.prepared.clear();
        state.attempt = attempt;
        Ok(())
    }

    fn leave(&mut self, committables: &[Committable]) -> Result<(), PostgresError> {
        if !self.statement.is_transactional() {
            return Ok(());
        }
        // What threads wait for there is over: they end sooner so.
        end_sessions(&mut self.session, &self.prefix)?;
        self.end_old_sessions(LEAVE_TIME)?;
        let gids = self.gids(committables)?;
        self.roll_back_others(&gids)?;
        self.commit_all(gids, Whose::AnyProcess)
    }
}
