//! The durable side of the state store: makes what was sealed durable, says what a snapshot holds, reads it back.
//!
//! ```text
//! table ──Sealed──▶ writer ──▶ catalog (what counts) ──▶ segment files ──▶ part manifest
//!                                                                              │
//! table ◀──pieces── restore ◀── checks of every page ◀─────────────────────────┘
//! ```
//!
//! * [`writer`]: takes what was sealed, off the data core ([`thread`]) or on it ([`inline`]); the only one that writes and
//!   removes files.
//! * [`catalog`]: which extents count, which segments are needed by whom.
//! * [`clean`]: moves what counts of segments of which little does, so that their files can go.
//! * [`adopt`]: what a restored store takes over of the files it is restored from.
//! * [`restore`]: reads any set of parts back, verified.
//! * [`verify`] and [`inspect`]: check a snapshot offline, and say what it holds.
//! * [`mod@format`]: the bytes. [`disk`]: the operating system, and a simulated one with faults.
//!
//! **Invariants.** A file is never changed once it is finished. A manifest is durable only when every segment that it
//! names is. A file is removed only when neither the current state nor any retained snapshot needs it. Nothing is read
//! as data before its checksum was found right.

pub mod adopt;
mod ahead;
pub mod buffer;
pub mod catalog;
pub mod clean;
pub mod disk;
pub mod export;
pub mod format;
pub mod inline;
pub mod inspect;
pub mod records;
pub mod restore;
pub mod segment;
pub mod thread;
pub mod verify;
pub mod writer;
