//! `chain`: five fused maps and filters on 32-byte records cost what the hand-written loop does.

use super::Options;
use crate::{
    error::BenchError,
    report::{Line, Reporter},
    tidemill::{NAME, chain},
    versus::{Versus, per_second},
};

pub(super) fn run(options: &Options, reporter: &mut Reporter) -> Result<(), BenchError> {
    let (records, rounds) = options.pick((500_000_000, 9), (50_000_000, 3));
    let (expected, _) = chain::by_hand(records);
    let versus = Versus::alternate(
        rounds,
        || {
            let (sum, elapsed) = chain::fused(records)?;
            if sum != expected {
                return Err(BenchError::WrongAnswer {
                    side: NAME.to_owned(),
                    query: "chain".to_owned(),
                    difference: format!("{sum:?} instead of {expected:?}"),
                });
            }
            Ok(per_second(records, elapsed))
        },
        || Ok(per_second(records, chain::by_hand(records).1)),
    )?;
    let line = Line::new("chain", "map-filter-x5", 1).versus(&versus, "records/s", chain::HAND_WRITTEN);
    reporter.print(&line.over(records, None))
}
