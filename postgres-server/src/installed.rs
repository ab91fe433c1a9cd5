//! Finds the server's programs, and a user that they may run as.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::ServerError;

/// Where Debian keeps them, by version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// What is called. They lie beside each other.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];
/// Whose the server may be when this process is root's, the first that exists.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// The server's programs on this machine.
pub(crate) struct Installed {
    /// Their directory.
    pub(crate) programs: PathBuf,
    /// User and group to run them as; `None` for those of this process. The server refuses to be root.
    pub(crate) runs_as: Option<(u32, u32)>,
}

impl Installed {
    pub(crate) fn find() -> Result<Self, ServerError> {
        let programs = newest_version().or_else(on_the_path).ok_or(ServerError::NotInstalled)?;
        let is_root = fs::metadata("/proc/self")?.uid() == 0;
        let runs_as = if is_root { Some(other_user()?) } else { None };
        Ok(Self { programs, runs_as })
    }
}

fn has_programs(directory: &Path) -> bool {
    PROGRAMS.iter().all(|program| directory.join(program).is_file())
}

fn newest_version() -> Option<PathBuf> {
    let entries = fs::read_dir(VERSIONS).ok()?.flatten();
    let versions = entries.filter_map(|entry| {
        let version: f64 = entry.file_name().to_str()?.parse().ok()?;
        Some((version, entry.path().join("bin")))
    });
    let complete = versions.filter(|(_, directory)| has_programs(directory));
    complete.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, directory)| directory)
}

fn on_the_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find(|directory| has_programs(directory))
}

fn other_user() -> Result<(u32, u32), ServerError> {
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let mut fields = users
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
        let mut id = |skipped| fields.nth(skipped)?.parse().ok();
        // Behind the name come the password, the user and the group.
        Some((id(1)?, id(0)?))
    };
    USERS.into_iter().find_map(ids).ok_or(ServerError::NoUser)
}
