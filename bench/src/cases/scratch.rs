//! Where the files of a case go.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use crate::error::BenchError;

/// A directory of one's own, removed with it: in `TIDEMILL_BENCH_DIR` if that is set, else among the temporary files.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Result<Self, BenchError> {
        let base = env::var_os("TIDEMILL_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
        let path = base.join(format!("tidemill-bench-{}-{name}", process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves everything there for whoever looks for a reason.
    pub(super) fn keep(self) -> PathBuf {
        let path = self.0.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays among the temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
