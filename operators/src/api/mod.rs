//! The typed stream API, after Flink's DataStream.

pub mod combined;
pub mod data_stream_sink;
pub mod environment;
pub mod keyed;
pub mod stream;
pub mod windowed;
