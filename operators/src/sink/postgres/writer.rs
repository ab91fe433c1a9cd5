//! Hands the rows of one subtask to its I/O thread.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
};

use ::postgres::Config;
use tidemill_engine::{
    model::{
        checkpoint::{CheckpointId, Committable},
        sink::SinkWriter,
        source::{BoxError, SubtaskContext},
        time::Timestamp,
    },
    platform::files::IoThreads,
};

use super::{
    PostgresError, PostgresSink,
    thread::{Alive, Body, Command, Link},
};

/// Rows that go to the thread at once.
const BATCH_ROWS: usize = 512;

/// Writes the rows of one subtask of a [`PostgresSink`].
pub struct PostgresSinkWriter<T> {
    batch: Vec<T>,
    /// Rows since the last barrier.
    rows: u64,
    commands: mpsc::Sender<Command<T>>,
    link: Arc<Link>,
    rows_pending_max: usize,
    /// What gids begin with.
    gid: String,
    is_finished: bool,
}

impl<T: Send + 'static> PostgresSinkWriter<T> {
    pub(super) fn open(
        mut config: Config,
        sink: &PostgresSink<T>,
        threads: &IoThreads,
        context: &SubtaskContext,
    ) -> Self {
        let state = sink.shared.lock();
        let gid = format!("{}{}:{}:", state.prefix, state.attempt, context.subtask);
        config.application_name(&state.prefix);
        let connection = state.connections.open();
        drop(state);
        let (commands, inbox) = mpsc::channel();
        let link = Arc::new(Link {
            pending: AtomicUsize::new(0),
            is_cancelled: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            waker: Arc::clone(&context.waker),
        });
        let body = Body {
            statement: Arc::clone(&sink.statement),
            to_row: Arc::clone(&sink.to_row),
            limits: sink.limits,
            commands: inbox,
            link: Arc::clone(&link),
            shared: Arc::clone(&sink.shared),
            alive: Alive::new(&sink.shared),
        };
        threads.spawn(format!("tidemill-pg-{}", context.subtask), move || body.run(config, connection));
        let rows_pending_max = sink.limits.rows_pending_max;
        Self { batch: Vec::new(), rows: 0, commands, link, rows_pending_max, gid, is_finished: false }
    }

    fn tell(&self, command: Command<T>) -> Result<(), PostgresError> {
        let lost = |_| self.link.failure().unwrap_or(PostgresError::ThreadLost);
        self.commands.send(command).map_err(lost)
    }

    fn hand_over(&mut self) -> Result<(), PostgresError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = mem::replace(&mut self.batch, Vec::with_capacity(BATCH_ROWS));
        self.link.pending.fetch_add(batch.len(), Ordering::AcqRel);
        self.tell(Command::Rows(batch))
    }
}

impl<T: Send + 'static> SinkWriter<T> for PostgresSinkWriter<T> {
    fn write(&mut self, record: T, _timestamp: Timestamp) -> Result<(), BoxError> {
        self.batch.push(record);
        self.rows += 1;
        if self.batch.len() >= BATCH_ROWS {
            self.hand_over()?;
        }
        Ok(())
    }

    fn ready(&mut self) -> Result<bool, BoxError> {
        if self.link.has_failed.load(Ordering::Acquire) {
            return Err(self.link.failure().unwrap_or(PostgresError::ThreadLost).into());
        }
        Ok(self.link.pending.load(Ordering::Acquire) < self.rows_pending_max)
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(self.hand_over()?)
    }

    fn pre_commit(&mut self, checkpoint: CheckpointId) -> Result<Vec<Committable>, BoxError> {
        self.hand_over()?;
        if mem::take(&mut self.rows) == 0 {
            return Ok(Vec::new());
        }
        let gid = format!("{}{checkpoint}", self.gid);
        self.tell(Command::Prepare(gid.clone()))?;
        Ok(vec![gid.into_bytes()])
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        self.hand_over()?;
        self.is_finished = true;
        Ok(())
    }
}

impl<T> Drop for PostgresSinkWriter<T> {
    fn drop(&mut self) {
        // What was asked for before the end is still done.
        if !self.is_finished {
            self.link.is_cancelled.store(true, Ordering::Release);
        }
    }
}
