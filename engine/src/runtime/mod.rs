//! The data plane: everything that happens once a job runs, on the workers' own threads.

pub mod blame;
mod brittle;
pub mod builder;
mod checkpoints;
pub mod exchange;
pub mod exchange_task;
mod held;
mod pace;
pub mod progress;
mod slot;
pub mod source_task;
pub mod worker;
