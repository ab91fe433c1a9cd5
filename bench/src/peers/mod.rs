//! Other engines doing the same work, each as its own users would write it.
//!
//! A peer gets the same generator with the same options as we do, its own natural record types, and the
//! same number of cores; where its API offers several ways, it gets the fastest that we found.

pub mod pod32;
pub mod renoir;
pub mod timely;

use std::time::Duration;

use crate::nexmark::Answer;

/// One run of a query.
#[derive(Clone, Debug)]
pub struct QueryRun {
    /// What it gave.
    pub answer: Answer,
    /// From starting the engine to its end, generation included.
    pub elapsed: Duration,
}
