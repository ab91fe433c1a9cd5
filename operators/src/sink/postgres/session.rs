//! A connection that is made anew when it breaks, and the statements that go over it.

use std::{sync::mpsc, time::Duration};

use ::postgres::{Client, Config, Error, NoTls, error::SqlState, types::Type};
use tidemill_engine::model::connections::Connection;

use super::{PostgresError, PostgresValue, lock};
use crate::sink::DeliveryGuarantee;

/// The first pause before a connection is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often it is said that the server is still tried.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a statement waits for a lock before it is told what is in its way and tried again. As [`SETTINGS`] has it.
const LOCK_TIME: Duration = Duration::from_secs(5);
/// Of every session. A machine that vanished says nothing: without an answer for so long (10 s, and three times 5 s) its session is
/// ended. Nothing waits for a lock without a word.
const SETTINGS: &str = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
    SET lock_timeout = '5s'";
/// Has the server look each second whether the client of a session that works or waits is there yet: one whose process was killed holds
/// its locks no longer. Servers before the 14th do not know it, nor those of some systems.
const NOTICE_DEATH: &str = "\
    SELECT set_config(name, '1s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'";
/// By then the server has noticed that a process on its machine, or on one that is there, was killed.
const DEATH_NOTICED: Duration = Duration::from_secs(3);
/// Who has sessions and locks that keep a row from being written, and what they do. Of a prepared transaction there is no session.
const IN_THE_WAY: &str = "\
    SELECT COALESCE(string_agg(DISTINCT CASE WHEN pid IS NULL THEN format('the prepared transaction %s', gid) \
        ELSE format('session %s (application %s, %s%s): %s', pid, COALESCE(NULLIF(application_name, ''), 'unnamed'), mode, \
            CASE WHEN granted THEN '' ELSE ', waiting' END, COALESCE(left(query, 100), 'unknown')) END, '; '), \
        'another transaction that writes the same key, or nobody any more') \
    FROM pg_locks LEFT JOIN pg_stat_activity USING (pid) \
        LEFT JOIN pg_prepared_xacts ON virtualtransaction = '-1/' || transaction \
    WHERE relation = to_regclass($1) AND pid IS DISTINCT FROM pg_backend_pid() \
        AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";
/// Values that one statement may have.
const VALUES_MAX: usize = 32_000;
/// Rows of one statement.
const ROWS_MAX: usize = 256;

/// What is done with rows.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    table: String,
    columns: Vec<String>,
    /// Rows with the same values there replace each other.
    key: Option<Vec<String>>,
    /// What `insert` promises.
    guarantee: DeliveryGuarantee,
}

/// A name as the server reads it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Statement {
    pub(super) fn insert(table: String, columns: Vec<String>) -> Self {
        assert!(!columns.is_empty(), "a row has at least one column");
        Self { table, columns, key: None, guarantee: DeliveryGuarantee::default() }
    }

    pub(super) fn upsert(table: String, columns: Vec<String>, key: Vec<String>) -> Self {
        assert!(!key.is_empty(), "a key has at least one column");
        Self { key: Some(key), ..Self::insert(table, columns) }
    }

    pub(super) fn promise(&mut self, guarantee: DeliveryGuarantee) {
        self.guarantee = guarantee;
    }

    /// Whether it runs in prepared transactions.
    pub(super) fn is_transactional(&self) -> bool {
        self.key.is_none() && self.guarantee == DeliveryGuarantee::ExactlyOnce
    }

    /// Rows that go into one statement. Two rows of the same key may not stand in one.
    fn rows_max(&self) -> usize {
        if self.key.is_some() { 1 } else { (VALUES_MAX / self.columns.len()).clamp(1, ROWS_MAX) }
    }

    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The name of its table, as the server reads it.
    pub(super) fn table(&self) -> String {
        self.table.split('.').map(quoted).collect::<Vec<_>>().join(".")
    }

    /// Its text for this many rows.
    pub(super) fn text(&self, rows: usize) -> String {
        let table = self.table();
        let columns = self.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
        let width = self.columns.len();
        let row = |row: usize| {
            let values: Vec<_> = (1..=width).map(|column| format!("${}", row * width + column)).collect();
            format!("({})", values.join(", "))
        };
        let rows = (0..rows).map(row).collect::<Vec<_>>().join(", ");
        let mut text = format!("INSERT INTO {table} ({columns}) VALUES {rows}");
        if let Some(key) = &self.key {
            let others: Vec<_> = self.columns.iter().filter(|column| !key.contains(column)).collect();
            let keys = key.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
            let set = |column: &&String| format!("{0} = EXCLUDED.{0}", quoted(column));
            let change = match others.as_slice() {
                [] => "NOTHING".to_owned(),
                others => format!("UPDATE SET {}", others.iter().map(set).collect::<Vec<_>>().join(", ")),
            };
            text += &format!(" ON CONFLICT ({keys}) DO {change}");
        }
        text
    }

    /// Sends rows over an open connection.
    pub(super) fn send(&self, client: &mut Client, rows: &[Vec<PostgresValue>]) -> Result<(), Failure> {
        for rows in rows.chunks(self.rows_max()) {
            let width = self.columns.len();
            if let Some(row) = rows.iter().find(|row| row.len() != width) {
                return Err(Failure::Ours(PostgresError::Columns { expected: width, found: row.len() }));
            }
            let prepared = self.ready(client, rows.len())?;
            let values: Vec<_> = rows
                .iter()
                .flatten()
                .map(|value| -> &(dyn ::postgres::types::ToSql + Sync) { &**value })
                .collect();
            client.execute(&prepared, &values).map_err(|error| {
                let unfit = unfit_parameter(&error).map(|at| self.unfit(prepared.params(), at, &error));
                unfit.map_or_else(|| self.failure(client, error), Failure::Ours)
            })?;
        }
        Ok(())
    }

    /// Has the server read it, for which it needs a lock on the table.
    pub(super) fn ready(&self, client: &mut Client, rows: usize) -> Result<::postgres::Statement, Failure> {
        client.prepare(&self.text(rows)).map_err(|error| self.failure(client, error))
    }

    /// Of a value that does not fit the column that it is for.
    fn unfit(&self, types: &[Type], parameter: usize, error: &Error) -> PostgresError {
        PostgresError::Value {
            table: self.table(),
            column: self.columns[parameter % self.columns.len()].clone(),
            expected: types.get(parameter).map(ToString::to_string).unwrap_or_default(),
            cause: std::error::Error::source(error).map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// Why it failed, as exactly as can be found out. A transaction that waited for a lock is rolled back.
    fn failure(&self, client: &mut Client, error: Error) -> Failure {
        if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return error.into();
        }
        let asked = client
            .batch_execute("ROLLBACK")
            .and_then(|()| client.query_one(IN_THE_WAY, &[&self.table()])?.try_get::<_, String>(0));
        match asked {
            Ok(holders) => Failure::Locked(format!("a lock on {}: {holders}", self.table())),
            Err(error) => error.into(),
        }
    }
}

/// Why something failed.
pub(super) enum Failure {
    /// As the server or the connection says.
    Theirs(Error),
    /// Another session holds the lock, which these words name.
    Taken(String),
    /// A statement waited for a lock, which these words tell, for [`LOCK_TIME`]. The connection holds, without a transaction.
    Locked(String),
    /// Not a matter of the server.
    Ours(PostgresError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Theirs(error)
    }
}

/// What is waited for.
enum Obstacle {
    /// The server, which cannot be reached for this reason.
    Unreachable(String),
    /// The lock of this job and sink, which this session holds.
    Taken(String),
    /// A lock on the table, as these words tell.
    Locked(String),
}

impl Obstacle {
    fn words(&self) -> String {
        match self {
            Self::Unreachable(cause) => cause.clone(),
            Self::Taken(holder) => format!("{holder} holds the lock of this job and sink"),
            Self::Locked(what) => format!("it waits for {what}"),
        }
    }

    /// For how long it is waited for at least: a session that has the lock may be one that a killed process has left.
    fn time_min(&self) -> Duration {
        if let Self::Taken(_) = self { DEATH_NOTICED } else { Duration::ZERO }
    }

    /// What it is called when it was waited for long enough.
    fn error(self, doing: &'static str, after: Duration) -> PostgresError {
        match self {
            Self::Unreachable(cause) => PostgresError::Unreachable { doing, after, cause },
            Self::Taken(holder) => PostgresError::Taken { holder, after },
            Self::Locked(what) => PostgresError::Locked { doing, after, what },
        }
    }
}

/// Whether another try may succeed: the server is down, restarts, is full, or the connection broke.
fn is_passing(error: &Error) -> bool {
    let Some(code) = error.code() else { return error.is_closed() || is_io(error) };
    let full = [
        &SqlState::TOO_MANY_CONNECTIONS,
        &SqlState::T_R_SERIALIZATION_FAILURE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::LOCK_NOT_AVAILABLE,
    ];
    code.code().starts_with("08") || code.code().starts_with("57P") || full.contains(&code)
}

/// Whether the role is not let in, or the database is not there: by the server, or by the driver before it asks for a password that it has
/// not.
fn is_refusal(error: &Error) -> bool {
    match error.code() {
        Some(code) => code.code().starts_with("28") || code == &SqlState::INVALID_CATALOG_NAME,
        None => {
            ["invalid configuration", "authentication"].iter().any(|word| error.to_string().contains(word))
        }
    }
}

/// The number of the parameter whose value could not be sent, of which the driver tells in words only.
fn unfit_parameter(error: &Error) -> Option<usize> {
    error.to_string().strip_prefix("error serializing parameter ")?.split(':').next()?.parse().ok()
}

fn is_io(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<std::io::Error>() {
            return true;
        }
        source = error.source();
    }
    // The driver says only in words that connecting timed out.
    let text = error.to_string();
    text.contains("connect") || text.contains("timeout") || text.contains("timed out")
}

/// All that the server said.
pub(super) fn words(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// A connection to one server.
pub(super) struct Session {
    config: Config,
    /// Where it tells how it is.
    connection: Connection,
    client: Option<Client>,
    /// How many connections there were.
    connections: u64,
    /// The server's process of the last one, and when that began.
    backend: Option<(i32, String)>,
    /// The lock that every connection takes before anything is done over it.
    lock: Option<i64>,
    give_up_after: Duration,
    /// Says that nobody wants an answer any more.
    is_unwanted: Box<dyn Fn() -> bool + Send>,
    /// Never says anything; it is waited on to pause.
    pause: mpsc::Receiver<()>,
    _keep: mpsc::Sender<()>,
}

impl Session {
    pub(super) fn new(
        config: Config,
        connection: Connection,
        give_up_after: Duration,
        is_unwanted: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let (keep, pause) = mpsc::channel();
        Self {
            config,
            connection,
            client: None,
            connections: 0,
            backend: None,
            lock: None,
            give_up_after,
            is_unwanted: Box::new(is_unwanted),
            pause,
            _keep: keep,
        }
    }

    /// Takes a lock with every connection; as long as another session has it, this one waits as for a server that is down.
    pub(super) fn holding(mut self, lock: i64) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Pauses, unless nobody waits any more; for how long it has.
    fn pause_for(&self, time: Duration) -> Duration {
        let mut left = time;
        while !left.is_zero() && !self.is_given_up() {
            let part = left.min(PAUSE_MIN);
            self.wait(part);
            left -= part;
        }
        time - left
    }

    fn wait(&self, time: Duration) {
        // There is no sender that says anything: it times out.
        let _ = self.pause.recv_timeout(time);
    }

    /// Whether nobody wants an answer any more.
    fn is_given_up(&self) -> bool {
        (self.is_unwanted)() || self.connection.is_unwanted()
    }

    /// Ends the connection, and with it a transaction that is open.
    pub(super) fn disconnect(&mut self) {
        self.client = None;
    }

    /// Makes a connection. What the one before was doing is over then: it may hold locks.
    fn connect(&mut self) -> Result<Client, Failure> {
        let mut client = self.config.connect(NoTls)?;
        if let Some((pid, since)) = &self.backend {
            client.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2",
                &[pid, since],
            )?;
        }
        client.batch_execute(SETTINGS)?;
        match client.batch_execute(NOTICE_DEATH) {
            Err(error) if error.as_db_error().is_none() => return Err(error.into()),
            // As well as this server can.
            _ => {}
        }
        let own = client.query_one(
            "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()",
            &[],
        )?;
        self.backend = Some((own.try_get(0)?, own.try_get(1)?));
        if let Some(key) = self.lock {
            lock::take(&mut client, key)?;
        }
        self.connections += 1;
        Ok(client)
    }

    /// Does something over the connection, and again over another one when that breaks. `act` is told the number of the
    /// connection, and has to do nothing twice.
    ///
    /// # Errors
    /// When the server refuses, or was not reached, or another session had the lock, for too long.
    pub(super) fn run<R>(
        &mut self,
        doing: &'static str,
        mut act: impl FnMut(&mut Client, u64) -> Result<R, Failure>,
    ) -> Result<R, PostgresError> {
        let (mut waited, mut pause, mut said) = (Duration::ZERO, PAUSE_MIN, Duration::ZERO);
        loop {
            let connected = match self.client.take().filter(|client| !client.is_closed()) {
                Some(client) => Ok(client),
                None => self.connect(),
            };
            let done = connected.and_then(|client| {
                let number = self.connections;
                act(self.client.insert(client), number)
            });
            let obstacle = match done {
                Ok(done) => {
                    if self.connection.works() {
                        tracing::info!(doing, "PostgreSQL is reached again");
                    }
                    return Ok(done);
                }
                Err(Failure::Ours(error)) => return Err(error),
                Err(Failure::Theirs(error)) if is_refusal(&error) => {
                    self.client = None;
                    return Err(PostgresError::NotAdmitted { cause: words(&error) });
                }
                Err(Failure::Theirs(error)) if !is_passing(&error) => {
                    self.client = None;
                    return Err(PostgresError::Refused { doing, cause: words(&error) });
                }
                Err(Failure::Theirs(error)) => Obstacle::Unreachable(words(&error)),
                Err(Failure::Taken(holder)) => Obstacle::Taken(holder),
                Err(Failure::Locked(what)) => Obstacle::Locked(what),
            };
            if let Obstacle::Locked(_) = obstacle {
                waited += LOCK_TIME;
            } else {
                // What was begun is rolled back.
                self.client = None;
            }
            let cause = obstacle.words();
            if self.connection.failed(&cause) || waited >= said + SAID_AGAIN_AFTER {
                said = waited;
                let for_s = waited.as_secs();
                tracing::warn!(doing, cause, for_s, "PostgreSQL cannot be used for now and is tried again");
            }
            let give_up_after = self.give_up_after.max(obstacle.time_min());
            if waited >= give_up_after || self.is_given_up() {
                return Err(obstacle.error(doing, waited));
            }
            waited += self.pause_for(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Pauses until `done` says so, for `at_most`; whether it did.
    pub(super) fn wait_until(
        &mut self,
        at_most: Duration,
        mut done: impl FnMut(&mut Self) -> Result<bool, PostgresError>,
    ) -> Result<bool, PostgresError> {
        let mut waited = Duration::ZERO;
        while !done(self)? {
            if waited >= at_most {
                return Ok(false);
            }
            self.wait(PAUSE_MIN);
            waited += PAUSE_MIN;
        }
        Ok(true)
    }
}

/// A text in a statement that takes no parameters.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidemill_engine::model::connections::Connections;
    use tidemill_postgres_server::PostgresServer;

    use super::*;

    #[test]
    fn a_session_ends_with_its_client_though_it_waits() {
        let Some(server) = PostgresServer::start_if_installed(0).unwrap() else { return };
        let connections = Arc::<Connections>::default();
        let config = server.connection().parse().unwrap();
        let mut session = Session::new(config, connections.open(), Duration::from_secs(60), || false);
        let said = session.run("ask", |client, _| {
            let row = client.query_one("SHOW client_connection_check_interval", &[])?;
            Ok(row.try_get::<_, String>(0)?)
        });
        assert_eq!(said.unwrap(), "1s");
    }

    #[test]
    fn statements_quote_names_and_number_values() {
        let columns = vec!["id".to_owned(), "a\"b".to_owned()];
        let insert = Statement::insert("shop.orders".to_owned(), columns.clone());
        let text = insert.text(2);
        assert_eq!(text, r#"INSERT INTO "shop"."orders" ("id", "a""b") VALUES ($1, $2), ($3, $4)"#);
        let upsert = Statement::upsert("t".to_owned(), columns, vec!["id".to_owned()]).text(1);
        assert!(
            upsert.ends_with(r#" ON CONFLICT ("id") DO UPDATE SET "a""b" = EXCLUDED."a""b""#),
            "{upsert}"
        );
        let keys = Statement::upsert("t".to_owned(), vec!["id".to_owned()], vec!["id".to_owned()]).text(1);
        assert!(keys.ends_with(r#" ON CONFLICT ("id") DO NOTHING"#), "{keys}");
    }
}
