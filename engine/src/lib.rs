//! Tidemill's engine: the worker, the exchange, progress, and the job that owns them.

pub mod model;
pub mod platform;
