//! Progress: how far event time has come, merged over inputs.

pub mod merge;
pub(in crate::runtime) mod splits;
