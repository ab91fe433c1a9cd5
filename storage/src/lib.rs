//! Tidemill's record format, keys and keyed state; knows nothing of the engine.
//!
//! * [`record`]: types that are laid out once and read in place; `#[derive(Record)]`.
//! * [`writer`]: the buffer that they are written into.
//! * [`key`]: what streams are partitioned by.
//! * [`state`]: what operators keep per key.
//! * [`kinds`]: values, lists, maps, timers and more, made of that.
//! * [`log`]: the hybrid log that keeps it.
//! * [`snapshot`]: what makes it durable, and reads it back.
//! * [`wal`]: a log of records that are durable before anyone is told so.
//! * [`background`]: how threads that help data cores stand back behind them.

pub mod background;
pub mod key;
pub mod kinds;
pub mod log;
pub mod prefetch;
pub mod record;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod wal;
pub mod writer;

pub use record::{Record, WriteAs};
pub use tidemill_derive::{Record, WriteAs};

/// What the derive macros' output refers to; no part of the API.
#[doc(hidden)]
pub mod __private {
    pub use rkyv;

    pub use crate::record::{Record, RecordDeserializer, RecordSerializer, WriteAs, field};
}
