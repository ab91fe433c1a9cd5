//! A store in memory that somebody watches, who says of each request what becomes of it; for tests.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{MemoryStore, RemoteError, RemoteStore};
use crate::platform::Nanos;

/// What a store is asked for: the functions of [`RemoteStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// [`RemoteStore::put`].
    Put,
    /// [`RemoteStore::put_if_absent`].
    PutIfAbsent,
    /// [`RemoteStore::get`].
    Get,
    /// [`RemoteStore::list`].
    List,
    /// [`RemoteStore::delete`].
    Delete,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What becomes of it in the store that is watched, at once.
    Done,
    /// The same, in so much virtual time.
    DoneIn(Nanos),
    /// It fails.
    Failed {
        /// Whether it is done all the same.
        is_done: bool,
    },
}

/// A store in memory that is watched.
pub struct WatchedStore {
    store: MemoryStore,
    watch: Box<dyn Fn(Request) -> Verdict + Send + Sync>,
    took: AtomicU64,
}

impl fmt::Debug for WatchedStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WatchedStore").field("store", &self.store).finish_non_exhaustive()
    }
}

impl WatchedStore {
    /// Has `watch` called before each request.
    pub fn new(store: MemoryStore, watch: impl Fn(Request) -> Verdict + Send + Sync + 'static) -> Self {
        Self { store, watch: Box::new(watch), took: AtomicU64::new(0) }
    }

    fn request<R>(
        &self,
        request: Request,
        act: impl FnOnce() -> Result<R, RemoteError>,
    ) -> Result<R, RemoteError> {
        let verdict = (self.watch)(request);
        let took = if let Verdict::DoneIn(took) = verdict { took } else { 0 };
        self.took.store(took, Ordering::Relaxed);
        if let Verdict::Failed { is_done } = verdict {
            if is_done {
                let _unheard = act();
            }
            return Err(RemoteError::Failed { why: "whoever watches the store has it fail".to_owned() });
        }
        act()
    }
}

impl RemoteStore for WatchedStore {
    fn place(&self) -> String {
        self.store.place()
    }

    fn put(&self, objects: &[(String, Vec<u8>)]) -> Result<(), RemoteError> {
        self.request(Request::Put, || self.store.put(objects))
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<(), RemoteError> {
        self.request(Request::PutIfAbsent, || self.store.put_if_absent(key, bytes))
    }

    fn get(&self, keys: &[String], bytes_max: u64) -> Result<Vec<Vec<u8>>, RemoteError> {
        self.request(Request::Get, || self.store.get(keys, bytes_max))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, RemoteError> {
        self.request(Request::List, || self.store.list(prefix))
    }

    fn delete(&self, keys: &[String]) -> Result<(), RemoteError> {
        self.request(Request::Delete, || self.store.delete(keys))
    }

    fn took(&self) -> Nanos {
        self.took.load(Ordering::Relaxed) + self.store.took()
    }
}
