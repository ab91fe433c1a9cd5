//! Tables of PostgreSQL: by a prepared transaction per checkpoint and subtask, by key, or at least once.
//!
//! ```text
//!  data core        I/O thread of the subtask              coordinator
//!  rows ──batches──▶ BEGIN, INSERT …
//!  barrier ────────▶ PREPARE TRANSACTION 'gid' ──────────▶ secure: waits until it is prepared
//!                                                          checkpoint written
//!                                                          commit: COMMIT PREPARED 'gid'
//! ```
//!
//! The name of a transaction (its *gid*) begins with what is common to this job and sink, and is never given twice: behind that
//! stand an identifier that the server made for the attempt, and numbers. One process at a time ends transactions with this
//! beginning: its committer holds a [`lock`]. Before an attempt begins, all sessions of earlier attempts are ended, so that none of
//! them prepares anything later; then what the checkpoint has is committed and the rest rolled back. **Nothing needs a lock on the
//! table before that**: what waits for one behind an earlier process's transactions would be in the way. Where no attempt follows, what
//! is prepared is ended in the same way, as far as the server can be reached.
//!
//! A gid that the server does not know any more was committed, if nobody else has rolled it back. A process that prepared it itself does not
//! guess: it asks the server by the transaction's number, also when the answer to its own `COMMIT PREPARED` was lost. Only what
//! an earlier process has prepared, whose numbers died with it, is taken for committed when the job goes on.
//!
//! Rows that have a key, or that may be there twice, are committed batch by batch as they come; `secure` waits until those before the
//! barrier are, and nothing is prepared.
//!
//! A connection that breaks is made anew, with growing pauses; the job's metrics and log say so meanwhile. A lock is waited for in the same
//! way, a few seconds at once. The rows of the open
//! transaction are kept until it is prepared, up to a bound, and written again.

mod committer;
mod error;
mod lock;
mod session;
#[cfg(test)]
mod tests;
mod thread;
mod writer;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::postgres::{Config, types::ToSql};
use tidemill_engine::{
    model::{
        connections::Connections,
        sink::{CommitContext, Committer, Sink},
        source::{BoxError, SubtaskContext},
    },
    platform::files::IoThreads,
};
use tidemill_storage::key::hash_bits;

use self::{committer::PostgresCommitter, session::Statement};
pub use self::{error::PostgresError, writer::PostgresSinkWriter};
use super::DeliveryGuarantee;

/// A value of a column, of any type that `postgres` can send.
pub type PostgresValue = Box<dyn ToSql + Send + Sync>;

/// Makes a value of a column.
pub fn sql_value(value: impl ToSql + Send + Sync + 'static) -> PostgresValue {
    Box::new(value)
}

/// Makes the values of a row.
type ToRow<T> = Arc<dyn Fn(&T) -> Vec<PostgresValue> + Send + Sync>;

/// Writes records to a table of PostgreSQL.
///
/// [`insert`](Self::insert) writes each record exactly once, in one transaction per checkpoint and subtask: other sessions see
/// the rows when the checkpoint is complete. It needs `max_prepared_transactions` on the server to be at least twice the
/// parallelism, and four times with `unaligned_after_ms`: what was prepared for a checkpoint that another one overtakes stays until that is
/// complete. With [`DeliveryGuarantee::AtLeastOnce`] it needs none: rows are committed as they come, and those since the last checkpoint come
/// again after a failure. [`upsert`](Self::upsert) writes rows as they come, in place of those with the same key; after a restart it writes
/// rows again, which changes nothing if the job's results are the same.
///
/// The connection is a string of `postgres`, such as `host=/run/postgresql user=shop dbname=shop`. There is no TLS: connect by a
/// socket, on loopback, or through something that encrypts. The role needs the right to see and end its own sessions, which every
/// role has.
///
/// ```
/// use tidemill_operators::sink::{PostgresSink, sql_value};
///
/// # #[derive(Clone)]
/// struct Order { id: i64, cents: i64 }
///
/// let orders = PostgresSink::insert("host=/run/postgresql dbname=shop", "orders", ["id", "cents"], |order: &Order| {
///     vec![sql_value(order.id), sql_value(order.cents)]
/// });
/// # drop(orders);
/// ```
pub struct PostgresSink<T> {
    connection: String,
    statement: Arc<Statement>,
    to_row: ToRow<T>,
    limits: Limits,
    config: Option<Config>,
    threads: Option<IoThreads>,
    shared: Arc<Shared>,
}

/// What bounds a sink.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How long a broken connection is tried to be made anew.
    give_up_after: Duration,
    /// Rows on their way to the I/O thread, per subtask.
    rows_pending_max: usize,
    /// Rows of an open transaction that are kept.
    rows_kept_max: usize,
    /// Transactions that are open at once: one per subtask.
    parallelism: usize,
}

impl<T: Send + 'static> PostgresSink<T> {
    /// Inserts a row per record into these columns of a table, exactly once. The table may be named with its schema.
    pub fn insert<C: Into<String>>(
        connection: impl Into<String>,
        table: impl Into<String>,
        columns: impl IntoIterator<Item = C>,
        to_row: impl Fn(&T) -> Vec<PostgresValue> + Send + Sync + 'static,
    ) -> Self {
        let columns = columns.into_iter().map(Into::into).collect();
        Self::new(connection.into(), Statement::insert(table.into(), columns), to_row)
    }

    /// Inserts a row per record, or changes the row that has the same `key`: columns with a unique index over them. A row that
    /// is written twice is there once.
    pub fn upsert<C: Into<String>, K: Into<String>>(
        connection: impl Into<String>,
        table: impl Into<String>,
        key: impl IntoIterator<Item = K>,
        columns: impl IntoIterator<Item = C>,
        to_row: impl Fn(&T) -> Vec<PostgresValue> + Send + Sync + 'static,
    ) -> Self {
        let columns = columns.into_iter().map(Into::into).collect();
        let key = key.into_iter().map(Into::into).collect();
        Self::new(connection.into(), Statement::upsert(table.into(), columns, key), to_row)
    }

    fn new(
        connection: String,
        statement: Statement,
        to_row: impl Fn(&T) -> Vec<PostgresValue> + Send + Sync + 'static,
    ) -> Self {
        let limits = Limits {
            give_up_after: Duration::from_secs(60),
            rows_pending_max: 8 << 10,
            rows_kept_max: 100_000,
            parallelism: 1,
        };
        Self {
            connection,
            statement: Arc::new(statement),
            to_row: Arc::new(to_row),
            limits,
            config: None,
            threads: None,
            shared: Arc::default(),
        }
    }

    /// How long to try to reach a server that does not answer (60 seconds by default), each time, before the job fails.
    #[must_use]
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.limits.give_up_after = time;
        self
    }

    /// Whether [`insert`](Self::insert) writes each record exactly once (the default), or commits rows in plain transactions as they
    /// come: when 512 are gathered, when the input has run dry, and before the barrier of a checkpoint at the latest. Means nothing
    /// for [`upsert`](Self::upsert), which does the latter.
    #[must_use]
    pub fn delivery_guarantee(mut self, guarantee: DeliveryGuarantee) -> Self {
        Arc::make_mut(&mut self.statement).promise(guarantee);
        self
    }

    /// Rows of an open transaction that are kept, so that they can be written again when the connection breaks (100,000 by
    /// default). With more, the job fails then, and goes on from its last checkpoint.
    #[must_use]
    pub fn rows_kept_max(mut self, rows: usize) -> Self {
        self.limits.rows_kept_max = rows;
        self
    }
}

impl<T> fmt::Debug for PostgresSink<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection may hold a password.
        formatter.debug_struct("PostgresSink").field("statement", &self.statement).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Sink<T> for PostgresSink<T> {
    type Writer = PostgresSinkWriter<T>;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        let mut config: Config = self.connection.parse().map_err(|_| PostgresError::Connection)?;
        // A server that vanished must not hold a thread for ever.
        config.connect_timeout(Duration::from_secs(10)).tcp_user_timeout(Duration::from_secs(30));
        self.config = Some(config);
        self.limits.parallelism = parallelism;
        self.threads = Some(IoThreads::new().map_err(PostgresError::Threads)?);
        Ok(())
    }

    fn open(&self, context: &SubtaskContext) -> Result<PostgresSinkWriter<T>, BoxError> {
        let (Some(config), Some(threads)) = (&self.config, &self.threads) else {
            return Err(PostgresError::NotPrepared.into());
        };
        if context.inline_io {
            return Err(PostgresError::NeedsThreads.into());
        }
        let config = config.clone();
        Ok(PostgresSinkWriter::open(config, self, threads, context))
    }

    fn committer(&self, context: &CommitContext) -> Result<Option<Box<dyn Committer>>, BoxError> {
        let (Some(config), Some(threads)) = (&self.config, &self.threads) else {
            return Err(PostgresError::NotPrepared.into());
        };
        let mut config = config.clone();
        let prefix = prefix(&context.job, &context.operator);
        config.application_name(&prefix);
        let mut state = self.shared.lock();
        state.prefix.clone_from(&prefix);
        state.connections = Arc::clone(&context.connections);
        drop(state);
        let (statement, shared) = (Arc::clone(&self.statement), Arc::clone(&self.shared));
        let committer =
            PostgresCommitter::open(config, prefix, statement, self.limits, shared, threads.clone())?;
        Ok(Some(Box::new(committer)))
    }
}

/// What all gids and sessions of a job and sink begin with: readable, unlike that of any other, and short.
fn prefix(job: &str, operator: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in job.bytes().chain([0]).chain(operator.bytes()) {
        hash = hash_bits(hash ^ u64::from(byte));
    }
    let readable: String = job.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    format!("tidemill:{readable}:{hash:016x}:")
}

/// What writers, their threads and the committer share.
#[derive(Default)]
struct Shared {
    state: Mutex<SharedState>,
    changed: Condvar,
}

#[derive(Default)]
struct SharedState {
    /// As [`prefix`] says.
    prefix: String,
    /// The identifier that the server made for this attempt.
    attempt: String,
    /// Where all sessions tell how they are.
    connections: Arc<Connections>,
    /// What became of transactions that were handed to threads: the server's numbers of those that may have been prepared under
    /// the name. Those under way are not in it.
    prepared: BTreeMap<String, Result<Vec<i64>, Arc<PostgresError>>>,
    /// Threads that may still do something.
    threads: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds something, for `at_most`.
    fn wait<R>(&self, at_most: Duration, mut look: impl FnMut(&mut SharedState) -> Option<R>) -> Option<R> {
        let mut found = None;
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, at_most, |state| {
            found = look(state);
            found.is_none()
        });
        drop(waited);
        found
    }
}
