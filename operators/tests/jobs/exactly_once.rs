//! Jobs under simulation with crashes: what is committed is what a run without them commits.

use tidemill_engine::model::watermark::WatermarkStrategy;
use tidemill_operators::{sim::Simulation, source::from_vec};

/// Seeds per job. `TIDEMILL_SIM_SEEDS` runs more.
const SEEDS: u64 = 60;

#[test]
fn a_job_without_state_commits_each_record_once() {
    let numbers = || (0..600_u64).collect::<Vec<_>>();
    let report = Simulation::new().seeds(SEEDS).check(numbers(), move |environment, sink| {
        environment
            .from_source("numbers", from_vec(numbers()), WatermarkStrategy::none())
            .rebalance()
            .sink("out", sink);
    });
    println!("{report:?}");
    assert!(
        report.deaths >= SEEDS / 2 && report.recoveries >= SEEDS / 4,
        "too little went wrong: {report:?}"
    );
}
