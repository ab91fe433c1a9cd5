//! Lines over TCP for connectors: accepted and read on I/O threads, taken by workers without blocking.
//!
//! Connection `n` (from 0) belongs to the inbox `n % inboxes`. Each connection owns [`CHUNKS_MAX`] buffers;
//! when all of them wait to be decoded its thread stops reading, and TCP holds the peer back. Everything
//! stops when the [`LineServer`] is stopped or dropped: the threads are unblocked by shutting the sockets
//! down.

mod connection;
mod error;

use std::{
    collections::HashMap,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering, fence},
        mpsc,
    },
    thread::{self, JoinHandle},
};

pub use connection::{Connection, SocketChunk};
pub use error::SocketError;

use super::{Wake, files::Limits};

/// Buffers per connection.
pub const CHUNKS_MAX: usize = 2;

/// How a server listens.
#[derive(Clone, Copy, Debug)]
pub struct LineServerOptions {
    /// Number of inboxes over which the connections are dealt.
    pub inboxes: usize,
    /// Connections that may be open at a time; further ones wait to be accepted.
    pub connections_max: usize,
    /// Stop accepting after so many connections.
    pub accepts_max: Option<usize>,
    /// Sizes of chunks and lines.
    pub limits: Limits,
}

/// What a [`LineInbox`] has.
#[derive(Debug)]
pub enum Incoming {
    /// Some lines of a connection.
    Chunk(SocketChunk),
    /// Nothing yet: the worker is woken when there is.
    Pending,
    /// No connection is left and none will come.
    End,
}

/// One subtask's end of the server.
pub struct LineInbox {
    chunks: mpsc::Receiver<SocketChunk>,
    waker: Arc<WakerSlot>,
}

impl LineInbox {
    /// Says whom to wake; call it before [`Self::poll`].
    pub fn attach(&self, waker: Arc<dyn Wake>) {
        self.waker.set(waker);
    }

    /// What came in; never blocks.
    pub fn poll(&self) -> Incoming {
        match self.chunks.try_recv() {
            Ok(chunk) => Incoming::Chunk(chunk),
            Err(mpsc::TryRecvError::Empty) => Incoming::Pending,
            Err(mpsc::TryRecvError::Disconnected) => Incoming::End,
        }
    }
}

/// The waker of a worker that may not exist yet. A worker that attaches looks at its queue afterwards, so
/// a wake before that is not missed.
#[derive(Default)]
pub struct WakerSlot {
    first: OnceLock<Arc<dyn Wake>>,
    /// Those of a job that was started again.
    later: RwLock<Option<Arc<dyn Wake>>>,
    is_later: AtomicBool,
}

impl WakerSlot {
    /// Sets the waker, in place of the one before.
    pub fn set(&self, waker: Arc<dyn Wake>) {
        if let Err(waker) = self.first.set(waker) {
            *self.later.write().unwrap_or_else(PoisonError::into_inner) = Some(waker);
            self.is_later.store(true, Ordering::SeqCst);
        }
        // Pairs with the fence in `wake`: either the wake finds the waker, or the queue's item is seen.
        fence(Ordering::SeqCst);
    }

    /// Wakes the worker, if it exists.
    #[inline]
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.is_later.load(Ordering::Relaxed) {
            let later = self.later.read().unwrap_or_else(PoisonError::into_inner);
            later.iter().for_each(|waker| waker.wake());
        } else if let Some(waker) = self.first.get() {
            waker.wake();
        }
    }
}

/// One inbox as the server's threads see it. Dropping it tells the inbox that this sender is gone.
struct Outlet {
    chunks: Option<mpsc::Sender<SocketChunk>>,
    waker: Arc<WakerSlot>,
}

impl Outlet {
    /// Hands a chunk over; false when the inbox is gone.
    fn send(&self, chunk: SocketChunk) -> bool {
        let sent = self.chunks.as_ref().is_some_and(|chunks| chunks.send(chunk).is_ok());
        self.waker.wake();
        sent
    }
}

impl Clone for Outlet {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), waker: self.waker.clone() }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // First the sender, then the wake: the worker must find the end.
        self.chunks = None;
        self.waker.wake();
    }
}

/// A listening socket and its threads; dropping it stops them.
pub struct LineServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads of a server share.
struct Shared {
    listener: TcpListener,
    stopped: AtomicBool,
    open: Mutex<HashMap<usize, Closer>>,
    closed: Condvar,
}

/// What unblocks a connection's thread.
struct Closer {
    stream: TcpStream,
    free: mpsc::Sender<Vec<u8>>,
}

impl LineServer {
    /// Listens on `address` (such as `127.0.0.1:9000`; port 0 takes a free one) and starts to accept.
    /// Call it on a thread that is not pinned: the I/O threads inherit its cores.
    ///
    /// # Errors
    /// When the address is not one, is in use or is not allowed, or no thread can be started.
    pub fn listen(address: &str, options: LineServerOptions) -> Result<(Self, Vec<LineInbox>), SocketError> {
        assert!(options.inboxes > 0 && options.connections_max > 0, "counts are above zero");
        let failed = |cause| SocketError::listen(address, cause);
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            listener,
            stopped: AtomicBool::new(false),
            open: Mutex::new(HashMap::new()),
            closed: Condvar::new(),
        });
        let (outlets, inboxes): (Vec<_>, Vec<_>) = (0..options.inboxes)
            .map(|_| {
                let (sender, chunks) = mpsc::channel();
                let waker = Arc::<WakerSlot>::default();
                (Outlet { chunks: Some(sender), waker: waker.clone() }, LineInbox { chunks, waker })
            })
            .unzip();
        let acceptor = thread::Builder::new()
            .name("tidemill-accept".into())
            .spawn({
                let shared = shared.clone();
                move || accept(&shared, &outlets, options)
            })
            .map_err(failed)?;
        Ok((Self { address: bound, shared, acceptor: Mutex::new(Some(acceptor)) }, inboxes))
    }

    /// The address that is listened on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops to accept and to read; what was received is still handed out. Returns when the port is free.
    pub fn stop(&self) {
        self.shared.stop();
        let acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(acceptor) = acceptor {
            // Its panic would be a bug of this module, and there is nobody left to tell.
            drop(acceptor.join());
        }
    }
}

impl Drop for LineServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<usize, Closer>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn stop(&self) {
        let open = self.open();
        self.stopped.store(true, Ordering::Release);
        for closer in open.values() {
            // A connection that is already gone cannot be shut down.
            drop(closer.stream.shutdown(Shutdown::Both));
            drop(closer.free.send(Vec::new()));
        }
        self.closed.notify_all();
        drop(open);
        shut_down_listener(&self.listener);
    }

    /// Waits for room for another connection; false when stopped.
    fn wait_for_room(&self, connections_max: usize) -> bool {
        let mut open = self.open();
        while open.len() >= connections_max && !self.stopped() {
            open = self.closed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        !self.stopped()
    }
}

/// Makes a blocked `accept` return: Linux lets a listening socket be shut down like a connected one.
fn shut_down_listener(listener: &TcpListener) {
    if let Ok(clone) = listener.try_clone() {
        drop(TcpStream::from(OwnedFd::from(clone)).shutdown(Shutdown::Both));
    }
}

/// The body of the accepting thread.
fn accept(shared: &Arc<Shared>, outlets: &[Outlet], options: LineServerOptions) {
    let mut accepted = 0;
    while options.accepts_max.is_none_or(|max| accepted < max)
        && shared.wait_for_room(options.connections_max)
    {
        match shared.listener.accept() {
            Ok((stream, peer)) => {
                let connection = Arc::new(Connection { index: accepted, peer });
                let outlet = outlets[accepted % outlets.len()].clone();
                accepted += 1;
                if let Err(cause) = connection::start(shared, stream, connection, outlet, options.limits) {
                    tracing::warn!(%peer, %cause, "a connection could not be served and was closed");
                }
            }
            Err(_) if shared.stopped() => return,
            Err(cause) => {
                // Such as too many open files: wait for a connection to end rather than spin.
                tracing::warn!(%cause, "accepting a connection failed");
                thread::sleep(ACCEPT_RETRY);
            }
        }
    }
}

/// Pause after a failed accept.
const ACCEPT_RETRY: std::time::Duration = std::time::Duration::from_millis(10);

#[cfg(test)]
mod tests;
