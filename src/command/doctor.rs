//! `tidemill doctor`: exit code 0 when jobs can run here, 1 when they cannot.

use clap::Args;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use tidemill_engine::platform::Cores;
use tidemill_engine::platform::probe::{Check, Report, Verdict, probe};

/// What to check.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Workers that a job would have; the cores that this process may use by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    cores: Option<u16>,
    /// Directory in which state and checkpoints would be kept.
    #[arg(long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Checks and prints.
    pub fn run(self) -> ExitCode {
        let workers = self.cores.map_or_else(|| Cores::of_this_process().usable(), usize::from);
        let report = probe(workers, Some(&self.directory));
        let text = if self.json { json(&report) } else { text(&report) };
        // A reader that closes its pipe early has seen enough: the verdict stands.
        let _ = io::stdout().lock().write_all(text.as_bytes());
        if report.fit() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for Check { name, verdict, found, why, fix } in &report.checks {
        text += &format!("{:4}  {name:13}  {found}\n", word(*verdict));
        if *verdict != Verdict::Ok {
            text += &format!("{:21}why: {why}\n{:21}fix: {fix}\n", "", "");
        }
    }
    let count = |verdict| report.checks.iter().filter(|check| check.verdict == verdict).count();
    let (warnings, failures) = (count(Verdict::Warn), count(Verdict::Fail));
    text += &match failures {
        0 => format!("\nfit for {} workers, {warnings} warnings\n", report.workers),
        _ => format!("\nunfit for {} workers: {failures} failed, {warnings} warnings\n", report.workers),
    };
    text
}

fn json(report: &Report) -> String {
    let checks: Vec<_> = report
        .checks
        .iter()
        .map(|Check { name, verdict, found, why, fix }| {
            serde_json::json!({
                "name": name, "verdict": word(*verdict), "found": found, "why": why, "fix": fix,
            })
        })
        .collect();
    let whole = serde_json::json!({ "fit": report.fit(), "workers": report.workers, "checks": checks });
    format!("{whole}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Verdict) -> Report {
        let check = Check {
            name: "locked memory",
            verdict,
            found: "64 KiB".into(),
            why: "executors lock memory".into(),
            fix: "Run `ulimit -l 512`.".into(),
        };
        Report { workers: 2, checks: vec![check] }
    }

    #[test]
    fn text_shows_the_fix_only_where_there_is_something_to_mend() {
        let good = text(&report(Verdict::Ok));
        assert!(good.contains("ok    locked memory  64 KiB") && !good.contains("fix:"), "{good}");
        assert!(good.ends_with("fit for 2 workers, 0 warnings\n"), "{good}");
        let bad = text(&report(Verdict::Fail));
        assert!(bad.contains("fix: Run `ulimit -l 512`."), "{bad}");
        assert!(bad.ends_with("unfit for 2 workers: 1 failed, 0 warnings\n"), "{bad}");
    }

    #[test]
    fn json_is_one_line_with_every_field() {
        let line = json(&report(Verdict::Fail));
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["fit"], false);
        assert_eq!(value["workers"], 2);
        for field in ["name", "verdict", "found", "why", "fix"] {
            assert!(value["checks"][0][field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
        }
    }
}
