//! Says whether this machine can run a job, and how to mend it where it cannot.
//!
//! Three steps: [`facts`] reads the machine through the pure functions of [`parse`], [`judge`] turns facts into
//! checks without looking at the machine. So every verdict is tested on every kind of machine.

mod facts;
mod judge;
mod parse;

use super::PlatformError;
pub use facts::{Disk, Facts, Limit};
use std::path::Path;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Jobs run, slower or less safely than they could.
    Warn,
    /// Jobs cannot run.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in a word or two. Stable: scripts may select by it.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: String,
    /// What to do about it; empty when there is nothing to do.
    pub fix: String,
}

/// All checks of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The number of workers that was asked about.
    pub workers: usize,
    /// The checks in the order in which a reader wants them.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether jobs can run: no check failed.
    pub fn fit(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Fail)
    }

    /// Nothing if the machine is fit.
    ///
    /// # Errors
    /// The first failed check, and how many others failed.
    pub fn require(&self) -> Result<(), PlatformError> {
        let mut failed = self.checks.iter().filter(|check| check.verdict == Verdict::Fail);
        let Some(first) = failed.next() else { return Ok(()) };
        let others = match failed.count() {
            0 => String::new(),
            n => format!(" ({n} more found by `tidemill doctor`)"),
        };
        Err(PlatformError::Unfit {
            what: format!("{} unfit for {} workers", first.name, self.workers),
            why: format!("{}; {}", first.found, first.why),
            fix: format!("{}{others}", first.fix),
        })
    }
}

/// Checks the machine for `workers` workers, and the disk under `directory` if one is given.
pub fn probe(workers: usize, directory: Option<&Path>) -> Report {
    judge::judge(&Facts::of_this_machine(directory), workers)
}

/// The same on facts that were read elsewhere or made up.
pub fn probe_facts(facts: &Facts, workers: usize) -> Report {
    judge::judge(facts, workers)
}
