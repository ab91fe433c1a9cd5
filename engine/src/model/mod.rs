//! Nouns and contracts that the data plane and the control plane share; nothing here runs by itself.

pub mod checkpoint;
pub mod checkpoint_config;
pub mod checkpoint_error;
pub mod config;
pub mod connections;
pub mod element;
pub mod error;
pub mod graph;
pub mod item;
pub mod mailbox;
pub mod metrics;
pub mod operator;
pub mod regions;
pub mod savepoint;
pub mod shared;
pub mod sink;
pub mod source;
pub mod task;
pub mod time;
pub mod watermark;
