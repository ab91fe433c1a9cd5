//! The command `tidemill-bench`: runs one case and prints its figures, for people or as JSON lines.

use std::process::ExitCode;

use clap::Parser;
use tidemill_bench::{
    cases::{self, CASES, Options},
    error::BenchError,
    report::Reporter,
};

// The engine leaves the allocator to its host. Both sides of every ratio live in this process, so
// both run on the same one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs Tidemill's benchmarks; `list` names the cases.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The case to run, or `list`.
    case: String,
    /// One row of a case that has rows of its own, such as `state` [default: all].
    row: Option<String>,
    /// Print one JSON object per line instead of text.
    #[arg(long)]
    json: bool,
    /// A smoke run: fewer events and rounds, over within ten seconds. Its figures mean little.
    #[arg(long)]
    quick: bool,
    /// How many cores each side may use [default: all that this process may run on].
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemill-bench: {error}");
            error.exit_code()
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), BenchError> {
    if arguments.case == "list" {
        for case in CASES {
            println!("{:<20} {}", case.name, case.description);
        }
        return Ok(());
    }
    let case = cases::find(&arguments.case)?;
    let mut options = Options::new(arguments.cores, arguments.quick)?;
    options.choose(case, arguments.row.clone())?;
    (case.run)(&options, &mut Reporter::stdout(arguments.json))
}
