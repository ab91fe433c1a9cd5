//! One accepted connection: a thread that cuts what arrives into lines.

use std::{
    fmt, io,
    net::{SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    thread,
};

use super::{CHUNKS_MAX, Closer, Outlet, Shared};
use crate::platform::files::{Chunk, Framing, Limits, LineCutter, Piece, Text};

/// Who sent some lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Connection {
    /// Number of the connection, from 0, in the order of acceptance.
    pub index: usize,
    /// The other end.
    pub peer: SocketAddr,
}

impl fmt::Display for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "connection {} from {}", self.index, self.peer)
    }
}

/// Some lines of a connection. Dropping it gives the buffer back to the connection's thread.
#[derive(Debug)]
pub struct SocketChunk {
    /// The lines; `span` is the connection's number.
    pub chunk: Option<Chunk>,
    /// Who sent them.
    pub connection: Arc<Connection>,
    /// Set on the last chunk of a connection that broke within a line: why. The chunk is that torn line.
    pub torn: Option<String>,
    /// Line ends that the connection sent before this chunk.
    pub lines_before: u64,
    free: mpsc::Sender<Vec<u8>>,
}

impl Drop for SocketChunk {
    fn drop(&mut self) {
        let buffer = self.chunk.take().map_or_else(Vec::new, |chunk| chunk.text.into_bytes());
        // The thread is gone when the connection is closed.
        drop(self.free.send(buffer));
    }
}

/// Starts the thread of a connection.
pub(super) fn start(
    shared: &Arc<Shared>,
    stream: TcpStream,
    connection: Arc<Connection>,
    outlet: Outlet,
    limits: Limits,
) -> io::Result<()> {
    let index = connection.index;
    let (free, empty) = mpsc::channel();
    for _ in 0..CHUNKS_MAX {
        // The receiver is alive: it is in this scope.
        drop(free.send(Vec::new()));
    }
    shared.open().insert(index, Closer { stream: stream.try_clone()?, free: free.clone() });
    let started = thread::Builder::new().name(format!("tidemill-tcp-{index}")).spawn({
        let shared = shared.clone();
        move || {
            let _registration = Registration { shared: &shared, index };
            read(&shared, stream, &connection, &outlet, &free, &empty, limits);
        }
    });
    if started.is_err() {
        shared.open().remove(&index);
    }
    started.map(drop)
}

/// Takes the connection from the server's list when its thread ends.
struct Registration<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.shared.open().remove(&self.index);
        self.shared.closed.notify_all();
    }
}

/// The body of a connection's thread.
fn read(
    shared: &Shared,
    stream: TcpStream,
    connection: &Arc<Connection>,
    outlet: &Outlet,
    free: &mpsc::Sender<Vec<u8>>,
    empty: &mpsc::Receiver<Vec<u8>>,
    limits: Limits,
) {
    let wrap = |chunk: Chunk, lines_before, torn| SocketChunk {
        chunk: Some(Chunk { span: connection.index, ..chunk }),
        connection: connection.clone(),
        torn,
        lines_before,
        free: free.clone(),
    };
    let mut cutter = LineCutter::new(stream, Framing::Lines, limits);
    let mut lines = 0;
    while let Ok(buffer) = empty.recv()
        && !shared.stopped()
    {
        match cutter.next(buffer) {
            Ok(Some(chunk)) => {
                let before = lines;
                lines += memchr::memchr_iter(b'\n', chunk.text.as_bytes()).count() as u64;
                if !outlet.send(wrap(chunk, before, None)) {
                    return;
                }
            }
            Ok(None) => return,
            Err(cause) => {
                tracing::warn!(%connection, %cause, "a connection broke");
                let offset = cutter.offset();
                let rest = cutter.into_rest();
                if !rest.is_empty() {
                    let chunk = Chunk { span: 0, offset, text: Text::Mixed(rest), piece: Piece::Lines };
                    outlet.send(wrap(chunk, lines, Some(cause.to_string())));
                }
                return;
            }
        }
    }
}
