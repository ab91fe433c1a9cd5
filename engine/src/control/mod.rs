//! The control plane: what happens to a job as a whole. It speaks with the workers through
//! [`JobShared`](crate::model::shared::JobShared) only and never sees a record.
//!
//! ```text
//! JobHandle ──asks──▶ Board ◀──tells── Supervisor: one attempt after the other
//!                       ▲                  │ between attempts          ▲
//!                       └── Coordinator ◀──┴──▶ Vault: Library (the directory of checkpoints), Commits
//!                           of one attempt
//! ```

mod board;
mod commits;
mod coordinator;
pub mod handle;
mod library;
pub mod manifest;
mod restart;
mod savepoint;
pub(crate) mod supervisor;
mod vault;
