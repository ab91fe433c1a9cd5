//! `peer-timely`: the peer alone, for few and many keys.

use super::Options;
use crate::{
    error::BenchError,
    peers::timely::{self, Counting},
    report::{Line, Reporter},
    versus::{Rounds, per_second},
};

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (records, rounds) = options.pick((200_000_000, 5), (10_000_000, 1));
    for (case, keys, counting) in [
        ("pod32-keyed-100000", 100_000, Counting::PerKey),
        ("pod32-keyed-1024", 1_024, Counting::PerKey),
        ("pod32-plain-100000", 100_000, Counting::Total),
    ] {
        let rounds = Rounds::measure(rounds, || {
            let run = timely::run(records, keys, counting, options.cores)?;
            Ok::<_, BenchError>(per_second(run.counted, run.elapsed))
        })?;
        let line = Line::new("peer-timely", case, options.cores).rounds(&rounds, "records/s");
        reporter.print(&line.over(records, None))?;
    }
    Ok(())
}
