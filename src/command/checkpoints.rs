//! `tidemill checkpoints`, which looks at what there is: exit code 0 when all of it can be used, 1 when not.

use clap::Args;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use tidemill_engine::control::archive::{Listed, list};
use tidemill_engine::control::list_directory;
use tidemill_engine::control::manifest::JobManifest;
use tidemill_engine::model::savepoint::SavepointPlace;
use tidemill_engine::platform::GlommioPlatform;

use super::{failed, nothing_in, open};

/// `tidemill checkpoints`.
#[derive(Args, Debug)]
pub struct Checkpoints {
    /// Directory of a job's checkpoints, or a savepoint; or the URL of a remote store with either, s3://BUCKET/PREFIX or file:///DIRECTORY.
    /// How S3 is reached comes from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL).
    #[arg(value_name = "DIR|URL")]
    place: String,
}

impl Checkpoints {
    /// Prints them, the newest last; damaged ones with what is wrong with them.
    pub fn run(self) -> ExitCode {
        let place = SavepointPlace::from(self.place.as_str());
        let listed = match &place {
            SavepointPlace::Directory(directory) => in_directory(directory),
            SavepointPlace::Remote(remote) => open(remote)
                .and_then(|store| list(&*store, &GlommioPlatform::new()).map_err(|error| error.to_string())),
        };
        match listed {
            Ok(listed) if listed.checkpoints.is_empty() && listed.savepoint.is_none() => {
                failed(&nothing_in(&place))
            }
            Ok(listed) => print(&listed),
            Err(why) => failed(&why),
        }
    }
}

fn in_directory(directory: &Path) -> Result<Listed, String> {
    if !directory.exists() {
        return Err(format!("there is no directory {}", directory.display()));
    }
    list_directory(directory).map_err(|error| error.to_string())
}

fn print(Listed { checkpoints, savepoint, .. }: &Listed) -> ExitCode {
    let checkpoints = checkpoints.iter().map(|checkpoint| ("checkpoint", checkpoint));
    let savepoint = savepoint.iter().map(|savepoint| ("savepoint", savepoint));
    let newest = checkpoints.clone().filter_map(|(_, found)| found.as_ref().ok()).next_back();
    let newest = newest.map(|manifest| manifest.checkpoint);
    let (mut text, mut is_sound) = (String::new(), true);
    for (kind, found) in checkpoints.chain(savepoint) {
        is_sound &= found.is_ok();
        text += &match found {
            Ok(manifest) if Some(manifest.checkpoint) == newest => {
                describe(kind, manifest, "; the job goes on from this one")
            }
            Ok(manifest) => describe(kind, manifest, ""),
            Err(error) => format!("unusable: {error}\n"),
        };
    }
    // A reader that closes its pipe early has seen enough.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn describe(kind: &str, manifest: &JobManifest, more: &str) -> String {
    let JobManifest { job, checkpoint, wall_millis, max_parallelism, operators, .. } = manifest;
    let at = jiff::Timestamp::from_millisecond(*wall_millis).map(|at| at.to_string()).unwrap_or_default();
    let mut text = format!("{kind} {checkpoint} of `{job}`, {at}, {max_parallelism} key groups{more}\n");
    for (id, operator) in operators {
        let (mut splits, mut committables, mut bytes) = (0, 0, 0);
        for subtask in &operator.subtasks {
            splits += subtask.splits.as_ref().map_or(0, Vec::len);
            committables += subtask.committables.len();
            bytes += subtask.bytes.as_ref().map_or(0, Vec::len);
        }
        let parts = operator.manifests().len();
        let subtasks = operator.subtasks.len();
        let name = &operator.name;
        text += &format!("  {id} ({name}): {subtasks} subtasks");
        for (count, what) in [
            (splits, "splits to read on"),
            (parts, "parts of keyed state"),
            (committables, "things to commit"),
            (bytes, "bytes of its own"),
        ] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text.push('\n');
    }
    text
}
