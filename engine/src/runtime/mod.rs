//! The data plane: everything that happens once a job runs, on the workers' own threads.

pub mod blame;
mod checkpoints;
pub mod exchange;
pub mod exchange_task;
mod held;
mod pace;
pub mod progress;
pub mod source_task;
pub mod worker;
