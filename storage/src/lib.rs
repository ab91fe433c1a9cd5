//! storage
pub mod key;
pub mod record;
pub mod writer;
