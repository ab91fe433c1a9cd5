//! The cases, in the one table where they are registered.

mod chain;
mod checkpoint;
mod crash;
mod exchange;
mod floor;
mod hop;
mod metrics;
mod nexmark;
mod nexmark_generator;
mod peer_renoir;
mod peer_timely;
mod scratch;
mod soak_wake;
mod state;
mod wake;

use std::thread;

use crate::{error::BenchError, report::Reporter};

/// Every case, in the order in which `list` names them.
pub const CASES: &[Case] = &[
    Case {
        name: "chain",
        description: "five fused maps and filters on 32-byte records, against the hand-written loop",
        run: chain::run,
    },
    Case {
        name: "checkpoint",
        description: "a job with checkpoints against the same without; stalls, bytes, recovery; takes a row's name",
        run: checkpoint::run,
    },
    Case {
        name: "crash",
        description: "a process killed thousands of times, its PostgreSQL too: every row in files and table once, or it fails",
        run: crash::run,
    },
    Case {
        name: "exchange",
        description: "records across cores: keyed counts against Timely, bids against owned structs; takes a row's name",
        run: exchange::run,
    },
    Case {
        name: "metrics",
        description: "the keyed exchange while its metrics are asked for every millisecond, against nobody asking",
        run: metrics::run,
    },
    Case {
        name: "nexmark",
        description: "Nexmark q0, q1, q2, q5 and q8 against Renoir, answers checked; takes a query's name",
        run: nexmark::run,
    },
    Case {
        name: "floor",
        description: "the machine's own noise: how late a thread that does nothing sees its ticks",
        run: floor::run,
    },
    Case {
        name: "hop",
        description: "one record from core to core and back through the exchange, against two bare rings",
        run: hop::run,
    },
    Case {
        name: "nexmark-generator",
        description: "the Nexmark generator alone on one core: views, copied text, owned events, skipped fields",
        run: nexmark_generator::run,
    },
    Case {
        name: "peer-renoir",
        description: "Renoir on Nexmark q0, q1, q2, q5 and q8, answers checked against the reference",
        run: peer_renoir::run,
    },
    Case {
        name: "peer-timely",
        description: "Timely exchanging 32-byte records by key, counted per key or only counted",
        run: peer_timely::run,
    },
    Case {
        name: "soak-wake",
        description: "millions of parks and wake-ups from foreign threads: fails when one is lost",
        run: soak_wake::run,
    },
    Case {
        name: "state",
        description: "keyed state on one core against a hash map: updates, seals, slices, memory; takes a row's name",
        run: state::run,
    },
    Case {
        name: "wake",
        description: "a record to a parked core, against a bare futex, and the CPU share of a parked job",
        run: wake::run,
    },
];

/// One benchmark.
pub struct Case {
    /// What the command line calls it.
    pub name: &'static str,
    /// What it measures, in one line.
    pub description: &'static str,
    /// Measures and prints.
    pub run: fn(&Options, &mut Reporter) -> Result<(), BenchError>,
}

/// One of the parts of a case that can be run alone: its name, and what measures and prints it.
type Row = (&'static str, fn(&Options, &mut Reporter) -> Result<(), BenchError>);

/// The case of that name.
///
/// # Errors
/// [`BenchError::UnknownCase`] when there is none.
pub fn find(name: &str) -> Result<&'static Case, BenchError> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| BenchError::UnknownCase {
        name: name.to_owned(),
        known: CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", "),
    })
}

/// What the command line asks of every case.
#[derive(Clone, Debug)]
pub struct Options {
    /// Cores that each side may use.
    pub cores: usize,
    /// Whether this is a smoke run.
    pub quick: bool,
    /// The row that alone is to run, in a case that has rows of its own.
    pub row: Option<String>,
}

impl Options {
    /// The options; without `cores`, all cores that this process may run on.
    ///
    /// # Errors
    /// [`BenchError::BadOption`] when `cores` is 0.
    pub fn new(cores: Option<usize>, quick: bool) -> Result<Self, BenchError> {
        match cores {
            Some(0) => Err(BenchError::BadOption("--cores must be at least 1".into())),
            Some(cores) => Ok(Self { cores, quick, row: None }),
            None => {
                let cores = thread::available_parallelism().map_or(1, usize::from);
                Ok(Self { cores, quick, row: None })
            }
        }
    }

    /// Sets the one row of `case` that is to run.
    ///
    /// # Errors
    /// [`BenchError::BadOption`] when the case has no rows of its own.
    pub fn choose(&mut self, case: &Case, row: Option<String>) -> Result<(), BenchError> {
        if row.is_some() && !matches!(case.name, "checkpoint" | "exchange" | "nexmark" | "state") {
            return Err(BenchError::BadOption(format!("`{}` has no rows to choose from", case.name)));
        }
        self.row = row;
        Ok(())
    }

    /// Those of the rows of `case` that are to run.
    ///
    /// # Errors
    /// [`BenchError::BadOption`] when the row that is asked for is none of them.
    fn rows<'a>(&self, case: &str, rows: &'a [Row]) -> Result<Vec<&'a Row>, BenchError> {
        let is_wanted = |row: &&Row| self.row.as_deref().is_none_or(|wanted| wanted == row.0);
        let wanted: Vec<_> = rows.iter().filter(is_wanted).collect();
        if wanted.is_empty() {
            let known: Vec<_> = rows.iter().map(|row| row.0).collect();
            return Err(BenchError::BadOption(format!("`{case}` has the rows {}", known.join(", "))));
        }
        Ok(wanted)
    }

    /// `full`, or `quick` in a smoke run.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (place, case) in CASES.iter().enumerate() {
            assert_eq!(CASES.iter().position(|other| other.name == case.name), Some(place));
            assert_eq!(find(case.name).unwrap().description, case.description);
        }
    }

    #[test]
    fn an_unknown_case_names_those_that_exist() {
        let Err(error) = find("nonesuch") else { panic!("there is no such case") };
        assert!(error.to_string().contains("nonesuch") && error.to_string().contains("nexmark-generator"));
    }

    #[test]
    fn no_cores_are_refused() {
        assert!(Options::new(Some(0), false).is_err());
    }
}
