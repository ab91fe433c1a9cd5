//! Tidemill's benchmarks as a library: the Nexmark generator and its references, the peers that results
//! are held against, and what every case shares (reporting, alternation, the machine's own floor).
//!
//! The binary of this package only parses the command line and looks a case up in [`cases::CASES`].

pub mod cases;
pub mod error;
pub mod floor;
pub mod kernel;
pub mod memory;
pub mod nexmark;
pub mod peers;
pub mod report;
pub mod tidemill;
pub mod versus;
