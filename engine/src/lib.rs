//! Tidemill's engine: the worker, the exchange, progress, and the job that owns them.
//!
//! * [`model`]: nouns and contracts.
//! * [`platform`]: the seam to the machine.
//! * [`runtime`]: the data plane, on the workers' threads.
//! * [`control`]: the control plane, off them.
//! * [`launch`]: brings all of them together.

pub mod control;
pub mod launch;
pub mod model;
pub mod platform;
pub mod runtime;
