//! What can go wrong with PostgreSQL, and what to do about it.

use std::{sync::Arc, time::Duration};

/// Why the PostgreSQL sink cannot go on. No message holds the connection string, which may hold a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The connection string is not one.
    #[error(
        "the connection string cannot be read. It has the form `host=… user=… dbname=…` or `postgresql://…`"
    )]
    Connection,
    /// No thread.
    #[error("cannot start the thread that starts I/O threads: {0}. Check the limit on threads (`ulimit -u`)")]
    Threads(#[source] std::io::Error),
    /// The platform has no threads.
    #[error(
        "the PostgreSQL sink needs I/O threads, which this platform has not. Use it on the real platform"
    )]
    NeedsThreads,
    /// Opened before it was prepared.
    #[error(
        "the PostgreSQL sink was opened before it was prepared. Prepare a sink once, before it is opened"
    )]
    NotPrepared,
    /// The I/O thread is gone.
    #[error(
        "the I/O thread that writes to PostgreSQL could not run. Check the limit on threads (`ulimit -u`) and memory"
    )]
    ThreadLost,
    /// The server takes too few prepared transactions, or none.
    #[error(
        "the PostgreSQL server takes {found} prepared transactions at once, and `insert` needs {needed} at the very least: as many as the job's parallelism, twice that with checkpoints, four times where checkpoints may overtake (`unaligned_after_ms`), and as many for each other sink and job on the server. Raise `max_prepared_transactions` and restart the server, or use `upsert`, or `delivery_guarantee(DeliveryGuarantee::AtLeastOnce)`"
    )]
    TooFewPreparedTransactions {
        /// What this sink needs at least.
        needed: usize,
        /// What the server has.
        found: i64,
    },
    /// The server does not let the role in.
    #[error(
        "PostgreSQL does not let the job in: {cause}. Mend the role, the password or the database in the connection string, or make them on the server (`CREATE ROLE`, `CREATE DATABASE`, `GRANT CONNECT`, `pg_hba.conf`)"
    )]
    NotAdmitted {
        /// What was said.
        cause: String,
    },
    /// The server could not be reached for too long.
    #[error("PostgreSQL could not be reached for {} s, while trying to {doing}: {cause}. Check that the server runs; the job goes on from its last checkpoint when it is started again", .after.as_secs())]
    Unreachable {
        /// What was to be done.
        doing: &'static str,
        /// For how long it was tried.
        after: Duration,
        /// What was said last.
        cause: String,
    },
    /// No such table.
    #[error(
        "the table {table} does not exist in the database {database}. Make it, or name it with its schema (`schema.table`)"
    )]
    NoTable {
        /// Its name, as the server reads it.
        table: String,
        /// Where it was looked for.
        database: String,
    },
    /// No such column.
    #[error(
        "the table {table} has no column {column:?}; it has {has}. Name its columns as they are, in the same case, or add the column"
    )]
    NoColumn {
        /// The table's name, as the server reads it.
        table: String,
        /// The column.
        column: String,
        /// The columns that there are.
        has: String,
    },
    /// The role may not write.
    #[error(
        "the role {role} may not write to column {column:?} of the table {table}. Grant it that (`GRANT INSERT`; for `upsert` also `SELECT` and `UPDATE`), or connect as another one"
    )]
    NoRight {
        /// The role.
        role: String,
        /// The table's name, as the server reads it.
        table: String,
        /// The first column of which that is so.
        column: String,
    },
    /// Somebody else has locked the table for too long.
    #[error("PostgreSQL could not {doing} for {} s: it waits for {what}. Wait until that session is done, or end it (`SELECT pg_terminate_backend(…)`), and start the job again; it goes on from its last checkpoint", .after.as_secs())]
    Locked {
        /// What was to be done.
        doing: &'static str,
        /// For how long it was tried.
        after: Duration,
        /// Which lock, and who has it.
        what: String,
    },
    /// The server refuses.
    #[error("PostgreSQL refuses to {doing}: {cause}. Mend the table, the rows or the rights of the role")]
    Refused {
        /// What was to be done.
        doing: &'static str,
        /// What the server said.
        cause: String,
    },
    /// The connection broke or a lock was waited for too long, and not all rows of the transaction are there any more.
    #[error(
        "a transaction of more than {kept_max} rows was rolled back before it was prepared: {cause}. The job goes on from its last checkpoint; checkpoint more often, or raise `rows_kept_max`"
    )]
    RowsNotKept {
        /// Rows that are kept.
        kept_max: usize,
        /// Why.
        cause: String,
    },
    /// A thread has failed, and said so already.
    #[error("{0}")]
    Thread(Arc<PostgresError>),
    /// A transaction was not prepared in time.
    #[error("the transaction {gid} was not prepared within {} s. See whether the server is overloaded, or sessions wait for locks", .after.as_secs())]
    NotPreparedInTime {
        /// Its name.
        gid: String,
        /// For how long it was waited for.
        after: Duration,
    },
    /// Sessions of an earlier attempt do not end.
    #[error(
        "sessions of an earlier attempt of this job do not end: they might prepare transactions that nobody commits. End those with the application name {application} on the server (`pg_terminate_backend`)"
    )]
    OldSessions {
        /// Their application name.
        application: String,
    },
    /// Another process writes as the same job and sink.
    #[error(
        "another process writes to this database as the same job and sink, and each would roll back what the other has prepared: \
         {holder} still has their lock after {} s. Give each process a job name of its own, or each sink another id \
         (`.uid(…)`). If that process is dead, end its session on the server (`SELECT pg_terminate_backend(…)`)", .after.as_secs()
    )]
    Taken {
        /// The session that has the lock, in words.
        holder: String,
        /// For how long it was waited for.
        after: Duration,
    },
    /// What a complete checkpoint has was not committed, and cannot be any more.
    #[error(
        "the transaction {gid}, which a complete checkpoint has, is not on the server any more, and this process has not committed \
         it (it is {status}): its rows are lost. Find out who else has ended it: another process with the name of this \
         job and the id of this sink, or a person. Then go on from a savepoint from before it, or write its rows again"
    )]
    TransactionLost {
        /// Its name.
        gid: String,
        /// What the server says became of it.
        status: String,
    },
    /// The checkpoint has what another sink prepared.
    #[error(
        "the checkpoint has the transaction {gid}, which is not of this job and sink. Keep the job's name and the sink's id (`.uid(…)`), or start without the checkpoint"
    )]
    OtherCommittable {
        /// Its name.
        gid: String,
    },
    /// A value that does not fit its column.
    #[error(
        "the value for column {column:?} of the table {table} does not fit it, whose type is {expected}: {cause}. Give a value of a Rust type that goes with it, or change the column's type"
    )]
    Value {
        /// The table's name, as the server reads it.
        table: String,
        /// The column.
        column: String,
        /// The column's type.
        expected: String,
        /// What is wrong with it: the Rust type, if it is that.
        cause: String,
    },
    /// A row that does not fit the columns.
    #[error("a row has {found} values for {expected} columns. Give a value for each column, in their order")]
    Columns {
        /// Number of columns.
        expected: usize,
        /// Number of values.
        found: usize,
    },
}
