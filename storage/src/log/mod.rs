//! The hybrid log: tables whose records lie in blocks of memory, found by an index of cache lines.

pub(crate) mod adopt;
mod batch;
#[cfg(test)]
mod bed;
pub mod block;
pub(crate) mod blocks;
mod bulk;
mod cold;
mod compact;
mod filled;
mod in_place;
pub(crate) mod index;
mod interval;
mod journal;
pub(crate) mod load;
mod marks;
mod owed;
pub(crate) mod place;
pub mod pool;
mod reopened;
pub mod seal;
pub(crate) mod shared;
pub mod sized;
mod sweep;
pub mod table;
mod tape;
