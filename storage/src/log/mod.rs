//! The hybrid log: tables whose records lie in blocks of memory, found by an index of cache lines.

pub mod batch;
pub mod block;
pub mod blocks;
pub mod cold;
pub mod compact;
pub mod index;
pub mod load;
pub mod place;
pub mod pool;
pub mod seal;
pub mod shared;
pub mod sized;
pub mod table;
