//! A job that is proven against crashes: purchases are summed up per customer, and the same function describes the job for real and under
//! simulation, where a hundred seeds kill its process, fail its disk and stop it, and every sum has to be committed once all the same.
//!
//! ```sh
//! cargo run --release --example 04_simulation
//! cargo test --example 04_simulation
//! TIDEMILL_SIM_SEEDS=10000 cargo test --profile soak --example 04_simulation
//! ```
//!
//! To see it find something, keep a sum where no checkpoint sees it, such as in a variable that the closure owns, or write to a sink
//! without transactions, and run the test.

use std::{fs, io, path::Path, process::ExitCode};

use tidemill::{model::sink::Sink, prelude::*};

/// What somebody has bought.
#[derive(Record, Clone)]
struct Purchase {
    customer: u64,
    cents: u64,
}

/// Purchases as a test and a first run need them: the same each time.
fn purchases(number: u64) -> Vec<Purchase> {
    (0..number).map(|number| Purchase { customer: number % 7, cents: 100 + number % 900 }).collect()
}

/// The job, apart from where it reads and writes: what each customer has spent, told again with each purchase.
fn spent(env: &StreamEnvironment, purchases: Vec<Purchase>, sink: impl Sink<(u64, u64)>) {
    env.from_source("purchases", from_vec(purchases), WatermarkStrategy::none())
        .key_by(|purchase| purchase.customer)
        .fold(0_u64, |cents: &mut u64, purchase| *cents += purchase.cents.to_native())
        .uid("spent")
        .sink("sums", sink);
}

fn run(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(directory)?;
    let checkpoints =
        CheckpointConfig { interval_ms: 500, ..CheckpointConfig::new(directory.join("checkpoints")) };
    let env = StreamEnvironment::new().name("spent").parallelism(2).checkpoints(checkpoints);
    let sums = directory.join("sums");
    spent(&env, purchases(100_000), FileSink::csv(&sums).columns(["customer", "cents"]));
    env.execute()?;
    println!("what each customer has spent is in {}", sums.display());
    Ok(())
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    match run(Path::new("target/simulation")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("04_simulation: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidemill::sim::{Simulation, csv_rows};

    use super::*;

    const PURCHASES: u64 = 1_000;

    /// What the job has to say, computed as simply as can be. The purchases of a customer may come in any order on several cores: what is
    /// spent after each would depend on it, and so all of this customer's cost the same here.
    fn expected(purchases: &[Purchase]) -> Vec<(u64, u64)> {
        let mut spent = BTreeMap::new();
        let mut sums = Vec::new();
        for purchase in purchases {
            let cents: &mut u64 = spent.entry(purchase.customer).or_default();
            *cents += purchase.cents;
            sums.push((purchase.customer, *cents));
        }
        sums
    }

    fn equal_purchases() -> Vec<Purchase> {
        purchases(PURCHASES).into_iter().map(|purchase| Purchase { cents: 250, ..purchase }).collect()
    }

    #[test]
    fn every_sum_is_committed_once_whatever_goes_wrong() {
        let purchases = equal_purchases();
        let report = Simulation::new().seeds(100).check(expected(&purchases), |env, sink| {
            spent(env, purchases.clone(), sink);
        });
        assert!(report.deaths > 50 && report.recoveries > 10, "too little went wrong: {report:?}");
    }

    #[test]
    fn files_have_every_sum_once_whatever_goes_wrong() {
        let purchases = equal_purchases();
        Simulation::new().seeds(50).check_files("/sums", csv_rows, expected(&purchases), |env| {
            spent(env, purchases.clone(), FileSink::csv("/sums").columns(["customer", "cents"]));
        });
    }
}
