//! Reads what a job needs to know about this machine.

use super::parse;
use crate::platform::Cores;
use crate::platform::os::patiently;
use std::fs::{metadata, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A limit of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It could not be read.
    Unknown,
    /// There is none.
    Unlimited,
    /// This much.
    At(u64),
}

impl Limit {
    /// Whether it is known to be below `need`.
    pub fn is_below(self, need: u64) -> bool {
        matches!(self, Self::At(limit) if limit < need)
    }
}

/// What is under a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// The directory that was asked about.
    pub directory: String,
    /// Why it cannot be used as it is, if so.
    pub unusable: Option<String>,
    /// Type of its file system.
    pub file_system: Option<String>,
    /// Whether the device turns; `None` when there is no single device below.
    pub rotational: Option<bool>,
}

/// Everything that the checks judge. The fields are public so that a test can make up a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// `uname -r`.
    pub kernel_release: String,
    /// `/proc/sys/kernel/io_uring_disabled`; `None` on kernels before 6.6.
    pub io_uring_disabled: Option<u8>,
    /// What setting up a small ring came to; the error number otherwise.
    pub io_uring_setup: Result<(), i32>,
    /// Bytes of memory that the process may lock.
    pub memlock: Limit,
    /// Whether the process may lock more than that (`CAP_IPC_LOCK`).
    pub memlock_exempt: bool,
    /// File descriptors that the process may open.
    pub open_files: Limit,
    /// The cores of the process.
    pub cores: Cores,
    /// The setting of transparent huge pages.
    pub huge_pages: Option<String>,
    /// The disk under a directory, if one was asked about.
    pub disk: Option<Disk>,
}

impl Facts {
    /// Looks at the machine, and at the disk under `directory`.
    pub fn of_this_machine(directory: Option<&Path>) -> Self {
        let read = |path: &str| read_to_string(path).unwrap_or_default();
        let limits = read("/proc/self/limits");
        let limit = |name| match parse::soft_limit(&limits, name) {
            None => Limit::Unknown,
            Some(None) => Limit::Unlimited,
            Some(Some(limit)) => Limit::At(limit),
        };
        const CAP_IPC_LOCK: u32 = 14;
        Self {
            kernel_release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            io_uring_disabled: read("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            io_uring_setup: set_up_a_ring(),
            memlock: limit("Max locked memory"),
            memlock_exempt: parse::has_capability(&read("/proc/self/status"), CAP_IPC_LOCK),
            open_files: limit("Max open files"),
            cores: Cores::of_this_process(),
            huge_pages: parse::chosen(&read("/sys/kernel/mm/transparent_hugepage/enabled"))
                .map(str::to_owned),
            disk: directory.map(disk_under),
        }
    }
}

fn set_up_a_ring() -> Result<(), i32> {
    let set_up = || match io_uring::IoUring::new(8) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.raw_os_error().unwrap_or(0)),
    };
    patiently(set_up, |outcome| *outcome == Err(libc::ENOMEM))
}

fn disk_under(directory: &Path) -> Disk {
    let mut disk = Disk { directory: directory.display().to_string(), ..Disk::default() };
    let (real, found) =
        match directory.canonicalize().and_then(|real| metadata(&real).map(|found| (real, found))) {
            Ok(both) => both,
            Err(error) => {
                disk.unusable = Some(error.to_string());
                return disk;
            }
        };
    if !found.is_dir() {
        disk.unusable = Some("it is not a directory".into());
    }
    let mounts = read_to_string("/proc/self/mountinfo").unwrap_or_default();
    disk.file_system = parse::file_system(&mounts, &real.to_string_lossy()).map(str::to_owned);
    let device = format!("/sys/dev/block/{}:{}", libc::major(found.dev()), libc::minor(found.dev()));
    // A partition's queue is that of the disk above it.
    disk.rotational =
        ["queue/rotational", "../queue/rotational"].iter().find_map(|file| {
            match read_to_string(format!("{device}/{file}")).ok()?.trim() {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            }
        });
    disk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_and_a_file_are_unusable() {
        assert!(disk_under(Path::new("/does/not/exist")).unusable.is_some());
        assert_eq!(
            disk_under(Path::new("/proc/self/status")).unusable.as_deref(),
            Some("it is not a directory")
        );
        let root = disk_under(Path::new("/"));
        assert_eq!(root.unusable, None);
        assert!(root.file_system.is_some());
    }

    #[test]
    fn a_linux_machine_has_a_kernel_and_limits() {
        let facts = Facts::of_this_machine(None);
        assert!(parse::kernel_version(&facts.kernel_release).is_some(), "{}", facts.kernel_release);
        assert_ne!(facts.open_files, Limit::Unknown);
        assert_ne!(facts.memlock, Limit::Unknown);
        assert_eq!(facts.disk, None);
    }

    #[test]
    fn only_a_known_limit_is_below_anything() {
        assert!(Limit::At(4).is_below(5));
        assert!(!Limit::At(5).is_below(5));
        assert!(!Limit::Unlimited.is_below(u64::MAX));
        assert!(!Limit::Unknown.is_below(u64::MAX));
    }
}
