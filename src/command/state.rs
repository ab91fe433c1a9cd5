//! `tidemill state inspect` and `tidemill state verify`: exit code 0 when the snapshot is sound, 1 when it is not.

mod directory;
mod remote;
mod verdict;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tidemill_engine::control::verify::is_of_checkpoints;
use tidemill_engine::model::savepoint::SavepointPlace;
use tidemill_storage::log::seal::Layout;
use tidemill_storage::snapshot::disk::{Disk, os::OsDisk};
use tidemill_storage::snapshot::inspect::{Count, SliceReport, SnapshotReport, StateReport, inspect};
use tidemill_storage::snapshot::verify::{Verified, verify};
use tidemill_storage::state::StateError;

use super::{below, nothing_in};

/// Looks into snapshots of state, offline.
#[derive(Args, Debug)]
pub struct State {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Says what a snapshot holds: operators, states and their types, keys and bytes, how much is dead.
    Inspect(Inspect),
    /// Checks every byte of a snapshot, and names the first bad block; or every block in a remote store.
    Verify(Verify),
}

/// What to look into.
#[derive(Args, Debug)]
struct Inspect {
    /// A part manifest (part-*.tmm), or a directory with such files in it or below.
    path: PathBuf,
    /// Also print keys and bytes of each key group.
    #[arg(long)]
    key_groups: bool,
    /// Print one JSON object instead of text, with everything.
    #[arg(long)]
    json: bool,
}

/// What to check.
#[derive(Args, Debug)]
struct Verify {
    /// The directory of a job's checkpoints, or a savepoint; or the URL of a remote store with either, s3://BUCKET/PREFIX or
    /// file:///DIRECTORY: all checkpoints are checked, one by one. Or a part manifest (part-*.tmm), or any directory with such files
    /// in it or below.
    path: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl State {
    /// Looks and prints.
    pub fn run(self) -> ExitCode {
        if let Action::Verify(asked) = &self.action
            && let Some(SavepointPlace::Remote(remote)) = asked.path.to_str().map(SavepointPlace::from)
        {
            return remote::run(&remote, asked.json);
        }
        if let Action::Verify(asked) = &self.action
            && is_of_checkpoints(&asked.path)
        {
            return directory::run(&asked.path, asked.json);
        }
        if let Action::Verify(asked) = &self.action
            && !below(&asked.path).is_empty()
        {
            // All files of state in them may be whole, and the checkpoints are not: nobody is to take the one for the other.
            return directory::refuse(&nothing_in(&asked.path.as_path().into()), asked.json);
        }
        let (found, as_json) = match self.action {
            Action::Inspect(asked) => (asked.run(), asked.json),
            Action::Verify(asked) => (asked.run(), asked.json),
        };
        match found {
            Ok(text) => {
                // A reader that closes its pipe early has seen enough.
                let _ = io::stdout().lock().write_all(text.as_bytes());
                ExitCode::SUCCESS
            }
            Err(error) if as_json => {
                let _ = io::stdout().lock().write_all(format!("{}\n", error_json(&error)).as_bytes());
                ExitCode::FAILURE
            }
            Err(error) => {
                let _ = writeln!(io::stderr().lock(), "{error}");
                ExitCode::FAILURE
            }
        }
    }
}

impl Inspect {
    fn run(&self) -> Result<String, StateError> {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk::default());
        let reports = inspect(&disk, &self.path)?;
        if self.json {
            let snapshots: Vec<_> = reports.iter().map(report_json).collect();
            return Ok(format!("{}\n", json!({ "snapshots": snapshots })));
        }
        let texts: Vec<_> = reports.iter().map(|report| report_text(report, self.key_groups)).collect();
        Ok(texts.join("\n"))
    }
}

impl Verify {
    fn run(&self) -> Result<String, StateError> {
        let Verified { manifests, segments, bytes, records, removed_keys } =
            verify(&OsDisk::default(), &self.path)?;
        if self.json {
            let sound = json!({
                "sound": true, "manifests": manifests, "segments": segments, "bytes": bytes,
                "records": records, "removed_keys": removed_keys,
            });
            return Ok(format!("{sound}\n"));
        }
        Ok(format!(
            "sound: {manifests} manifests, {segments} segments, {}, {records} records, {removed_keys} removed keys\n",
            size(bytes)
        ))
    }
}

fn error_json(error: &StateError) -> Value {
    let (file, offset): (Option<&Path>, _) = match error {
        StateError::Damaged { file, offset, .. } => (Some(file), Some(*offset)),
        StateError::Io { file, .. } => (Some(file), None),
        _ => (None, None),
    };
    let file = file.map(|file| file.display().to_string());
    json!({ "sound": false, "file": file, "offset": offset, "error": error.to_string() })
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes as f64, "B");
    for larger in UNITS {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

/// Columns as wide as their widest cell; the first two to the left, the rest to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<_> =
        (0..columns).map(|column| rows.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match i {
            0 | 1 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text += &format!("  {}\n", line.trim_end());
    }
    text
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn report_text(report: &SnapshotReport, with_groups: bool) -> String {
    let live = report.live();
    let mut text = format!(
        "snapshot {}: {} keys, {} of records in {} of files ({} dead), {} key groups\n\nparts\n",
        report.snapshot,
        live.keys,
        size(live.bytes),
        size(report.file_bytes()),
        percent(report.dead_ratio()),
        report.max_parallelism,
    );
    let mut rows = vec![words(&["key groups", "manifest", "segments", "files"])];
    rows.extend(report.parts.iter().map(|part| {
        let groups = format!("{}..{}", part.key_groups.start, part.key_groups.end);
        vec![groups, part.manifest.display().to_string(), part.segments.to_string(), size(part.file_bytes)]
    }));
    text += &table(&rows);
    text += "\nstates\n";
    let mut rows = vec![words(&["operator", "state", "slices", "keys", "live", "stored", "dead"])];
    rows.extend(report.states.iter().map(|StateReport { state, slices }| {
        let sum = |of: fn(&SliceReport) -> u64| slices.iter().map(of).sum::<u64>();
        let (bytes, stored) = (sum(|slice| slice.live.bytes), sum(|slice| slice.stored.bytes));
        let dead = if stored == 0 { 0.0 } else { 1.0 - bytes as f64 / stored as f64 };
        vec![
            state.name.operator.clone(),
            state.name.state.clone(),
            slices.len().to_string(),
            sum(|slice| slice.live.keys).to_string(),
            size(bytes),
            size(stored),
            percent(dead),
        ]
    }));
    text += &table(&rows);
    text += "\ntypes\n";
    let mut rows = vec![words(&["operator", "state", "keys"])];
    rows[0].push("values".into());
    rows.extend(report.states.iter().map(|StateReport { state, .. }| {
        vec![state.name.operator.clone(), state.name.state.clone(), state.keys.clone(), state.values.clone()]
    }));
    text += &table(&rows);
    if with_groups {
        text += "\nkey groups\n";
        let mut rows = vec![words(&["group", "", "keys", "bytes"])];
        rows.extend(report.key_groups.iter().map(|(group, count)| {
            vec![group.to_string(), String::new(), count.keys.to_string(), size(count.bytes)]
        }));
        text += &table(&rows);
    }
    text
}

fn count_json(count: Count) -> Value {
    json!({ "keys": count.keys, "bytes": count.bytes })
}

fn layout_json(layout: Layout) -> Value {
    match layout {
        Layout::Stride { stride, value_at, value_len } => {
            json!({ "kind": "stride", "stride": stride, "value_at": value_at, "value_len": value_len })
        }
        Layout::Sized { narrow, align } => json!({ "kind": "sized", "narrow": narrow, "align": align }),
    }
}

fn report_json(report: &SnapshotReport) -> Value {
    let parts = report.parts.iter().map(|part| {
        json!({
            "manifest": part.manifest.display().to_string(), "store": format!("{:032x}", part.store),
            "key_groups": [part.key_groups.start, part.key_groups.end],
            "segments": part.segments, "file_bytes": part.file_bytes,
        })
    });
    let slice = |slice: &SliceReport| {
        json!({
            "slice": slice.slice, "live": count_json(slice.live), "stored": count_json(slice.stored),
            "declared_keys": slice.declared_keys, "dead_ratio": slice.dead_ratio(),
        })
    };
    let states = report.states.iter().map(|StateReport { state, slices }| {
        json!({
            "operator": state.name.operator, "state": state.name.state, "keys": state.keys,
            "values": state.values, "layout": layout_json(state.layout),
            "slices": slices.iter().map(slice).collect::<Vec<_>>(),
        })
    });
    let groups = report
        .key_groups
        .iter()
        .map(|(group, count)| json!({ "key_group": group, "keys": count.keys, "bytes": count.bytes }));
    json!({
        "snapshot": report.snapshot, "max_parallelism": report.max_parallelism,
        "live": count_json(report.live()), "file_bytes": report.file_bytes(), "dead_ratio": report.dead_ratio(),
        "parts": parts.collect::<Vec<_>>(), "states": states.collect::<Vec<_>>(),
        "key_groups": groups.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let texts: Vec<_> = [0, 1023, 1024, 1536 << 10, 5 << 40, 3 << 50].map(size).into();
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 TiB", "3072.0 TiB"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [words(&["a", "state", "keys"]), words(&["longer", "b", "12345678"])];
        assert_eq!(table(&rows), "  a       state      keys\n  longer  b      12345678\n");
    }
}
