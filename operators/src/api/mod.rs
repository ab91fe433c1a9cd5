//! The typed stream API, after Flink's DataStream.

pub mod combined;
pub mod environment;
pub mod keyed;
pub mod stream;
pub mod windowed;
