//! Lines over TCP.

mod handle;

use std::{
    marker::PhantomData,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tidemill_engine::{
    model::source::{BoxError, Output, Polled, Reader, Source, SubtaskContext},
    platform::{
        Nanos,
        files::{Framing, Limits},
        sockets::{Incoming, LineInbox, LineServer, LineServerOptions, SocketChunk},
    },
};

pub use self::handle::TcpLinesHandle;
use self::handle::{Shared, State};
use super::{
    bad_record::BadRecords,
    error::{Place, SourceError},
    lines::{Cursor, Decode, LineDecoder, Progress, Reject},
};

/// Bytes per read.
const CHUNK_BYTES: usize = 64 << 10;

/// Listens for TCP connections and decodes each line that arrives.
///
/// Connection n goes to subtask `n % parallelism`; a peer is held back when its subtask does not keep up. All
/// connections are one split: a watermark strategy sees their lines interleaved. A line that ends with its
/// connection needs no line feed, unless the connection broke: a torn line is a bad record. TCP cannot be
/// read again, so delivery is at most once: what was taken from a connection since the last checkpoint is lost when the job
/// fails. A job that is started again in the same process goes on with the connections that it has.
///
/// ```
/// use tidemill_operators::source::TcpLinesSource;
///
/// let numbers = TcpLinesSource::new("127.0.0.1:0", |line| line.trim().parse::<u64>())
///     .end_after_connections(2);
/// let handle = numbers.handle();
/// // When the job runs, `handle.wait_for_address()` tells the port.
/// # drop((numbers, handle));
/// ```
pub struct TcpLinesSource<T, E, F> {
    address: String,
    decode: Arc<F>,
    end_after: Option<usize>,
    connections_max: usize,
    line_bytes_max: usize,
    on_error: BadRecords,
    inboxes: Inboxes,
    server: Option<Arc<LineServer>>,
    shared: Arc<Shared>,
    record: PhantomData<fn() -> (T, E)>,
}

impl<T, E, F> TcpLinesSource<T, E, F>
where
    T: 'static,
    E: std::fmt::Display + 'static,
    F: Fn(&str) -> Result<T, E> + Send + Sync + 'static,
{
    /// Listens on `address`, `HOST:PORT`; port 0 takes a free one. Anyone who can reach the address can feed
    /// the job: prefer loopback (`127.0.0.1`). `decode` gets each line without its line end.
    pub fn new(address: impl Into<String>, decode: F) -> Self {
        Self {
            address: address.into(),
            decode: Arc::new(decode),
            end_after: None,
            connections_max: 256,
            line_bytes_max: 1 << 20,
            on_error: BadRecords::Fail,
            inboxes: Inboxes::default(),
            server: None,
            shared: Arc::default(),
            record: PhantomData,
        }
    }

    /// Listens on this port of the loopback address.
    pub fn on_port(port: u16, decode: F) -> Self {
        Self::new(format!("127.0.0.1:{port}"), decode)
    }

    /// Ends the input when so many connections were accepted and have ended; without, it ends by
    /// [`TcpLinesHandle::stop`] or with the job.
    #[must_use]
    pub fn end_after_connections(mut self, connections: usize) -> Self {
        self.end_after = Some(connections);
        self
    }

    /// Connections that may be open at a time (256 by default); further ones wait.
    #[must_use]
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        assert!(connections_max > 0, "at least one connection");
        self.connections_max = connections_max;
        self
    }

    /// The longest line in bytes (1 MiB by default); a longer one is a bad record.
    #[must_use]
    pub fn line_bytes_max(mut self, line_bytes_max: usize) -> Self {
        assert!(line_bytes_max > 0, "a line has at least one byte");
        self.line_bytes_max = line_bytes_max;
        self
    }

    /// What to do about a line that cannot be decoded; fails by default.
    #[must_use]
    pub fn on_error(mut self, on_error: BadRecords) -> Self {
        self.on_error = on_error;
        self
    }

    /// A handle to ask for the address and to stop; take it before the job starts.
    pub fn handle(&self) -> TcpLinesHandle {
        TcpLinesHandle { shared: self.shared.clone() }
    }
}

impl<T, E, F> Source for TcpLinesSource<T, E, F>
where
    T: 'static,
    E: std::fmt::Display + 'static,
    F: Fn(&str) -> Result<T, E> + Send + Sync + 'static,
{
    type Item = T;
    type Split = ();
    type Reader = TcpLinesReader<T, E, F>;

    fn prepare(&mut self, parallelism: usize) -> Result<(), BoxError> {
        self.on_error.prepare()?;
        let limits = Limits { chunk_bytes: CHUNK_BYTES, line_bytes_max: self.line_bytes_max, eager: true };
        let (server, inboxes) = LineServer::listen(
            &self.address,
            LineServerOptions {
                inboxes: parallelism,
                connections_max: self.connections_max,
                accepts_max: self.end_after,
                limits,
            },
        )
        .map_err(SourceError::from)?;
        let server = Arc::new(server);
        self.shared.set(State::Listening(server.address(), Arc::downgrade(&server)));
        self.server = Some(server);
        *self.inboxes.lock().unwrap_or_else(PoisonError::into_inner) =
            inboxes.into_iter().map(Some).collect();
        Ok(())
    }

    fn splits(&self, _context: &SubtaskContext) -> Result<Vec<()>, BoxError> {
        Ok(vec![()])
    }

    fn open(&self, context: &SubtaskContext, _splits: Vec<()>) -> Result<Self::Reader, BoxError> {
        let source_name = "TcpLinesSource";
        if context.inline_io {
            return Err(SourceError::NeedsThreads { source_name }.into());
        }
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let inbox = inboxes.get_mut(context.subtask).and_then(Option::take);
        let (Some(inbox), Some(server)) = (inbox, self.server.clone()) else {
            return Err(SourceError::NoShare { source_name, subtask: context.subtask }.into());
        };
        inbox.attach(context.waker.clone());
        let decoder = LineDecoder {
            decoder: TextDecoder { decode: self.decode.clone(), record: PhantomData },
            bad: self.on_error.open()?,
            framing: Framing::Lines,
            line_bytes_max: self.line_bytes_max,
        };
        let inbox = Lent { inbox: Some(inbox), subtask: context.subtask, inboxes: Arc::clone(&self.inboxes) };
        Ok(TcpLinesReader { inbox, server, chunk: None, decoder })
    }
}

impl<T, E, F> Drop for TcpLinesSource<T, E, F> {
    fn drop(&mut self) {
        self.shared.give_up();
    }
}

/// Where inboxes are while nobody reads them.
type Inboxes = Arc<Mutex<Vec<Option<LineInbox>>>>;

/// An inbox that goes back when its reader does: for the job's next attempt.
struct Lent {
    inbox: Option<LineInbox>,
    subtask: usize,
    inboxes: Inboxes,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)[self.subtask] = self.inbox.take();
    }
}

/// Reads one subtask's connections.
pub struct TcpLinesReader<T, E, F> {
    inbox: Lent,
    /// Kept open until the last reader is gone.
    server: Arc<LineServer>,
    chunk: Option<(SocketChunk, Cursor)>,
    decoder: LineDecoder<TextDecoder<T, E, F>>,
}

impl<T, E, F> TcpLinesReader<T, E, F>
where
    T: 'static,
    E: std::fmt::Display + 'static,
    F: Fn(&str) -> Result<T, E> + Send + Sync + 'static,
{
    /// Decodes a chunk from the cursor on.
    fn decode(
        &mut self,
        incoming: &SocketChunk,
        cursor: &mut Cursor,
        output: &mut impl Output<T>,
    ) -> Result<Progress, SourceError> {
        let origin = &incoming.connection;
        let place = |offset, lines: u64| Place { origin: origin.to_string(), offset, line: Some(lines + 1) };
        let Some(chunk) = &incoming.chunk else { return Ok(Progress::Drained) };
        let Some(cause) = &incoming.torn else {
            return self.decoder.run(chunk, cursor, 0, &place, output);
        };
        let raw = chunk.text.as_bytes();
        let reason = format!("the connection broke within it ({cause})");
        self.decoder.bad.reject(|| place(chunk.offset, cursor.lines), raw, true, reason, output)?;
        Ok(Progress::Drained)
    }
}

impl<T, E, F> Reader for TcpLinesReader<T, E, F>
where
    T: 'static,
    E: std::fmt::Display + 'static,
    F: Fn(&str) -> Result<T, E> + Send + Sync + 'static,
{
    type Item = T;
    type Split = ();

    fn position(&self, _split: usize) {}

    fn poll<O: Output<T>>(&mut self, output: &mut O, _now: Nanos) -> Result<Polled, BoxError> {
        if let Some((incoming, mut cursor)) = self.chunk.take() {
            if self.decode(&incoming, &mut cursor, output)? == Progress::Yield {
                self.chunk = Some((incoming, cursor));
            }
            return Ok(Polled::More);
        }
        match self.inbox.inbox.as_ref().map_or(Incoming::End, LineInbox::poll) {
            Incoming::Chunk(incoming) => {
                output.bytes_read(
                    incoming.chunk.as_ref().map_or(0, |chunk| chunk.text.as_bytes().len() as u64),
                );
                let lines = incoming.lines_before;
                self.chunk = Some((incoming, Cursor { at: 0, lines }));
                Ok(Polled::More)
            }
            Incoming::Pending => {
                self.decoder.bad.flush()?;
                Ok(Polled::Pending(None))
            }
            Incoming::End => {
                self.decoder.bad.flush()?;
                output.finish_split(0);
                Ok(Polled::End)
            }
        }
    }
}

impl<T, E, F> TcpLinesReader<T, E, F> {
    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

/// Decodes lines by a closure.
struct TextDecoder<T, E, F> {
    decode: Arc<F>,
    record: PhantomData<fn() -> (T, E)>,
}

impl<T, E, F> Decode for TextDecoder<T, E, F>
where
    T: 'static,
    E: std::fmt::Display + 'static,
    F: Fn(&str) -> Result<T, E> + Send + Sync + 'static,
{
    type Item = T;

    #[inline]
    fn decode(&mut self, line: &str) -> Result<Option<T>, Reject> {
        (self.decode)(line).map(Some).map_err(|error| Reject::Record(error.to_string()))
    }
}
