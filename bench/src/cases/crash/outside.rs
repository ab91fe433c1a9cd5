//! The PostgreSQL server that a job commits to beside its files, and that is killed itself now and then.

use std::{thread, time::Duration};

use tidemill::platform::Random;
use tidemill_postgres_server::PostgresServer;

use crate::error::BenchError;

/// Prepared transactions that the server allows per core: what the sink says that it needs.
const PREPARED_PER_CORE: usize = 4;
/// The table that the job writes to.
pub(super) const TABLE: &str = "windows";
/// One in so many lives of the job, the server is killed.
const LIVES_PER_KILL: u64 = 5;

/// How rows get to the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Each once, by prepared transactions.
    Insert,
    /// By key, in place of what is there.
    Upsert,
}

impl Mode {
    /// Takes turns.
    pub(super) fn of_round(round: u64) -> Self {
        if round.is_multiple_of(2) { Self::Insert } else { Self::Upsert }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Upsert => "upsert",
        }
    }

    /// What the table is called in a report.
    pub(super) fn sink(self) -> &'static str {
        match self {
            Self::Insert => "postgres-insert",
            Self::Upsert => "postgres-upsert",
        }
    }
}

/// The server.
pub(super) struct Outside {
    pub(super) server: PostgresServer,
    pub(super) kills: u64,
    /// Prepared transactions that were there when the job was killed.
    pub(super) left_by_kills: u64,
}

impl Outside {
    /// Starts one; `None` where none is installed, and the job commits to files only.
    ///
    /// # Errors
    /// When it does not start, or is required and not installed.
    pub(super) fn start(cores: usize) -> Result<Option<Self>, BenchError> {
        let server = PostgresServer::start_if_installed(PREPARED_PER_CORE * cores)?;
        if server.is_none() {
            eprintln!("crash: the job commits to files only");
        }
        Ok(server.map(|server| Self { server, kills: 0, left_by_kills: 0 }))
    }

    /// Makes the table of one job, without anything in it. Only where rows replace each other by key it has one: elsewhere what
    /// is there twice is to be seen.
    pub(super) fn begin(&self, mode: Mode) -> Result<(), BenchError> {
        let key = if mode == Mode::Upsert { ", PRIMARY KEY (key, start_ms)" } else { "" };
        let columns = "key bigint, start_ms bigint, count bigint, sum bigint";
        let statements = format!("DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} ({columns}{key})");
        Ok(self.server.execute(&statements)?)
    }

    /// Lets a life of the job pass, and now and then kills the server in it. It may be back before the life is over; if not, it
    /// is down when the job is killed.
    pub(super) fn pass(&mut self, life: Duration, random: &mut Random) -> Result<(), BenchError> {
        if random.below(LIVES_PER_KILL) > 0 {
            thread::sleep(life);
            return Ok(());
        }
        let before = life.mul_f64(random.below(100) as f64 / 100.0);
        thread::sleep(before);
        self.server.kill()?;
        self.kills += 1;
        if random.below(2) == 0 {
            self.server.up()?;
        }
        thread::sleep(life - before);
        Ok(())
    }

    /// The job was killed: counts what it leaves for its next life, if the server is there to be asked.
    pub(super) fn note_kill(&mut self) -> Result<(), BenchError> {
        if self.server.is_up() {
            self.left_by_kills += self.server.prepared_transactions()?.unsigned_abs();
        }
        Ok(())
    }
}
