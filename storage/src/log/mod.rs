//! The hybrid log: tables whose records lie in blocks of memory, found by an index of cache lines.

pub mod block;
pub mod pool;
pub mod seal;
pub mod sized;
