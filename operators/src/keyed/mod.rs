//! Operators on keyed streams: each stands at the head of a task behind a `key_by`.

pub mod aggregate;
pub mod fold;
pub mod key;
pub mod process;
pub mod reduce;
pub mod rolling;
