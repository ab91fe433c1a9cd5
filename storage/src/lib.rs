//! storage
pub mod record;
pub mod writer;
