//! The control plane: what happens to a job as a whole. It speaks with the workers through
//! [`JobShared`](crate::model::shared::JobShared) only and never sees a record.

pub mod handle;
