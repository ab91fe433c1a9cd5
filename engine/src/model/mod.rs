//! Nouns and contracts that the data plane and the control plane share; nothing here runs by itself.

pub mod sink;
pub mod source;
pub mod time;
