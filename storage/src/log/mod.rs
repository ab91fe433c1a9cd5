//! The hybrid log: tables whose records lie in blocks of memory, found by an index of cache lines.

mod batch;
pub mod block;
mod blocks;
mod cold;
mod compact;
pub(crate) mod index;
pub(crate) mod load;
pub(crate) mod place;
pub mod pool;
pub mod seal;
pub(crate) mod shared;
pub mod sized;
pub mod table;
