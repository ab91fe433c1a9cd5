//! The I/O thread of one subtask: writes batches, and prepares transactions.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
    mpsc,
};

use ::postgres::{Client, Config, error::SqlState};
use tidemill_engine::{model::connections::Connection, platform::Wake};

use super::{
    Limits, PostgresError, Shared, ToRow,
    session::{Failure, Session, Statement, literal, words},
};

/// What a writer says to its thread.
pub(super) enum Command<T> {
    /// Writes these.
    Rows(Vec<T>),
    /// Makes what was written since the last one durable, under this name.
    Prepare(String),
}

/// What a writer and its thread share.
pub(super) struct Link {
    /// Rows that were handed over and are not written.
    pub(super) pending: AtomicUsize,
    /// The writer is gone before its time: its transaction is not wanted.
    pub(super) is_cancelled: AtomicBool,
    /// The thread has failed; why is in `failure`.
    pub(super) has_failed: AtomicBool,
    pub(super) failure: Mutex<Option<Arc<PostgresError>>>,
    pub(super) waker: Arc<dyn Wake>,
}

impl Link {
    pub(super) fn failure(&self) -> Option<PostgresError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|error| PostgresError::Thread(Arc::clone(error)))
    }
}

/// Counts a thread as long as it may do something.
pub(super) struct Alive(Arc<Shared>);

impl Alive {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.lock().threads += 1;
        Self(Arc::clone(shared))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
        self.0.changed.notify_all();
    }
}

/// The body of the thread.
pub(super) struct Body<T> {
    pub(super) statement: Arc<Statement>,
    pub(super) to_row: ToRow<T>,
    pub(super) limits: Limits,
    pub(super) commands: mpsc::Receiver<Command<T>>,
    pub(super) link: Arc<Link>,
    pub(super) shared: Arc<Shared>,
    pub(super) alive: Alive,
}

/// The open transaction.
struct Open<T> {
    /// Its rows, to be written again; `None` when there were too many.
    kept: Option<Vec<T>>,
    /// The connection that it is open in.
    begun_in: Option<u64>,
}

impl<T> Open<T> {
    fn new() -> Self {
        Self { kept: Some(Vec::new()), begun_in: None }
    }
}

impl<T> Body<T> {
    pub(super) fn run(self, config: Config, connection: Connection) {
        let link = Arc::clone(&self.link);
        let cancelled = Arc::clone(&self.link);
        let unwanted = move || cancelled.is_cancelled.load(Ordering::Acquire);
        let mut session = Session::new(config, connection, self.limits.give_up_after, unwanted);
        let mut open = Open::new();
        while let Ok(command) = self.commands.recv() {
            if link.is_cancelled.load(Ordering::Acquire) {
                break;
            }
            let done = match command {
                Command::Rows(rows) => self.write(&mut session, &mut open, rows).map_err(Arc::new),
                Command::Prepare(gid) => {
                    let prepared = self.prepare(&mut session, &open, &gid).map_err(Arc::new);
                    open = Open::new();
                    let done = prepared.as_ref().map(drop).map_err(Arc::clone);
                    self.shared.lock().prepared.insert(gid, prepared);
                    self.shared.changed.notify_all();
                    done
                }
            };
            if let Err(error) = done {
                *link.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                link.has_failed.store(true, Ordering::Release);
                link.waker.wake();
                break;
            }
        }
        session.disconnect();
        // Nobody is to wait for what will not be done.
        let mut state = self.shared.lock();
        for command in self.commands.try_iter() {
            if let Command::Prepare(gid) = command {
                let why = link.failure().unwrap_or(PostgresError::ThreadLost);
                state.prepared.insert(gid, Err(Arc::new(why)));
            }
        }
        drop(state);
        drop(self.alive);
    }

    /// Writes rows: into the open transaction, or for good where there are none.
    fn write(&self, session: &mut Session, open: &mut Open<T>, rows: Vec<T>) -> Result<(), PostgresError> {
        let count = rows.len();
        let result = if self.statement.is_transactional() {
            self.write_within(session, open, rows)
        } else {
            session.run("write rows", |client, _| {
                client.batch_execute("BEGIN")?;
                self.send(client, &rows)?;
                Ok(client.batch_execute("COMMIT")?)
            })
        };
        self.link.pending.fetch_sub(count, Ordering::AcqRel);
        self.link.waker.wake();
        result
    }

    fn send(&self, client: &mut Client, rows: &[T]) -> Result<(), Failure> {
        let rows: Vec<_> = rows.iter().map(|row| (self.to_row)(row)).collect();
        self.statement.send(client, &rows)
    }

    fn write_within(
        &self,
        session: &mut Session,
        open: &mut Open<T>,
        rows: Vec<T>,
    ) -> Result<(), PostgresError> {
        let Open { kept, begun_in } = open;
        let kept_max = self.limits.rows_kept_max;
        let mut broke = "its connection broke".to_owned();
        session.run("write rows", |client, connection| {
            if *begun_in != Some(connection) {
                client.batch_execute("BEGIN")?;
                match kept {
                    Some(kept) if !kept.is_empty() => self.send(client, kept)?,
                    Some(_) => {}
                    None => {
                        let cause = std::mem::take(&mut broke);
                        return Err(Failure::Ours(PostgresError::RowsNotKept { kept_max, cause }));
                    }
                }
                *begun_in = Some(connection);
            }
            // A transaction that waited for a lock is rolled back over the same connection.
            self.send(client, &rows).inspect_err(|failure| {
                *begun_in = None;
                match failure {
                    Failure::Theirs(error) => broke = words(error),
                    Failure::Locked(what) => broke = format!("it waited for {what}"),
                    Failure::Taken(_) | Failure::Ours(_) => {}
                }
            })
        })?;
        match kept {
            Some(kept) if kept.len() + rows.len() <= kept_max => kept.extend(rows),
            _ => *kept = None,
        }
        Ok(())
    }

    /// Prepares the open transaction. When the connection breaks, it may have been prepared all the same. Returns the server's
    /// numbers of all transactions that were to be prepared under this name: one of them was.
    fn prepare(&self, session: &mut Session, open: &Open<T>, gid: &str) -> Result<Vec<i64>, PostgresError> {
        let mut numbers = Vec::new();
        if !self.statement.is_transactional() {
            return Ok(numbers);
        }
        let kept_max = self.limits.rows_kept_max;
        let mut broke = String::new();
        session.run("prepare a transaction", |client, connection| {
            if self.link.is_cancelled.load(Ordering::Acquire) {
                return Err(Failure::Ours(PostgresError::ThreadLost));
            }
            if open.begun_in != Some(connection) {
                if is_prepared(client, gid)? {
                    return Ok(());
                }
                let Some(kept) = &open.kept else {
                    let cause = std::mem::take(&mut broke);
                    return Err(Failure::Ours(PostgresError::RowsNotKept { kept_max, cause }));
                };
                client.batch_execute("BEGIN")?;
                self.send(client, kept)?;
            }
            // By it the server can be asked what became of the transaction when its name is gone.
            numbers.push(client.query_one("SELECT txid_current()", &[])?.try_get(0)?);
            let prepared = client.batch_execute(&format!("PREPARE TRANSACTION {}", literal(gid)));
            match prepared {
                Ok(()) => Ok(()),
                // The connection before has done it after all.
                Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => Ok(()),
                Err(error) => {
                    broke = words(&error);
                    Err(error.into())
                }
            }
        })?;
        Ok(numbers)
    }
}

/// Whether the server has this transaction prepared.
fn is_prepared(client: &mut Client, gid: &str) -> Result<bool, ::postgres::Error> {
    Ok(client.query_opt("SELECT 1 FROM pg_prepared_xacts WHERE gid = $1", &[&gid])?.is_some())
}
