//! Turns facts into checks. Pure.

use super::facts::{Disk, Facts, Limit};
use super::parse::kernel_version;
use super::{Check, Report, Verdict};

/// glommio's rings use operations that came with this kernel.
const KERNEL_MIN: (u32, u32) = (5, 8);
/// Kernels in this range charge rings to the memory cgroup instead of the locked-memory limit.
const KERNEL_FREE_RINGS: std::ops::Range<(u32, u32)> = (5, 12)..(6, 14);
/// What glommio demands of the limit before it makes an executor, whatever it then uses, and whatever the privileges.
const MEMLOCK_MIN: u64 = 512 << 10;
/// What the kernel charges for one executor without `CAP_IPC_LOCK`: a buffer pool registered with each of three rings
/// (192 KiB), and the rings (about 24 KiB). The sum counts over all processes of a user.
const MEMLOCK_PER_EXECUTOR: u64 = 256 << 10;
/// Three rings and an event descriptor, doubled.
const FILES_PER_EXECUTOR: u64 = 8;
/// Standard streams, job files, sockets.
const FILES_BASE: u64 = 64;
/// Below this, many sources and state segments run out.
const FILES_COMFORTABLE: u64 = 1_024;

pub(super) fn judge(facts: &Facts, workers: usize) -> Report {
    let mut checks = vec![
        kernel(facts),
        // Before io_uring: too little of it also makes that fail.
        memlock(facts, workers as u64),
        io_uring(facts),
        cores(facts, workers),
        open_files(facts, workers as u64),
        huge_pages(facts),
    ];
    checks.extend(facts.disk.as_ref().map(disk));
    Report { workers, checks }
}

fn check(name: &'static str, why: &str, found: String) -> Check {
    Check { name, verdict: Verdict::Ok, found, why: why.into(), fix: String::new() }
}

impl Check {
    fn unless(mut self, fine: bool, verdict: Verdict, fix: impl Into<String>) -> Self {
        if !fine && self.verdict < verdict {
            (self.verdict, self.fix) = (verdict, fix.into());
        }
        self
    }
}

fn kernel(facts: &Facts) -> Check {
    let version = kernel_version(&facts.kernel_release);
    check(
        "kernel",
        "executors need the io_uring of Linux 5.8 or newer",
        format!("Linux {}", facts.kernel_release),
    )
    .unless(version.is_none_or(|v| v >= KERNEL_MIN), Verdict::Fail, "Upgrade the kernel to 5.8 or newer.")
    .unless(version.is_some(), Verdict::Warn, "The version is not readable; check it with `uname -r`.")
}

fn io_uring(facts: &Facts) -> Check {
    let why = "each worker's executor is built on io_uring";
    let Err(errno) = facts.io_uring_setup else {
        return check("io_uring", why, "a ring can be set up".into());
    };
    let setting = facts
        .io_uring_disabled
        .map_or(String::new(), |value| format!(", kernel.io_uring_disabled = {value}"));
    let error = std::io::Error::from_raw_os_error(errno);
    let fix = match (errno, facts.io_uring_disabled) {
        (libc::EPERM, Some(2)) => "Run `sysctl -w kernel.io_uring_disabled=0`.".into(),
        (libc::EPERM, Some(1)) => {
            "Run `sysctl -w kernel.io_uring_disabled=0`, or add the user to the group in kernel.io_uring_group.".into()
        }
        (libc::EPERM | libc::EACCES | libc::ENOSYS, _) => String::from(
            "A sandbox blocks it, or the kernel is built without it: allow io_uring_setup, io_uring_enter and \
             io_uring_register in the container's seccomp profile.",
        ),
        (libc::ENOMEM, _) => {
            "Raise the locked-memory limit (`ulimit -l`): other processes of this user have used it up.".into()
        }
        (libc::EMFILE | libc::ENFILE, _) => "Raise the open-file limit (`ulimit -n`).".into(),
        _ => "Look the error up in io_uring_setup(2).".into(),
    };
    check("io_uring", why, format!("setting up a ring failed: {error}{setting}")).unless(
        false,
        Verdict::Fail,
        fix,
    )
}

fn memlock(facts: &Facts, workers: u64) -> Check {
    let charged = if facts.memlock_exempt { 0 } else { workers * MEMLOCK_PER_EXECUTOR };
    let need = charged.max(MEMLOCK_MIN);
    let free_rings = kernel_version(&facts.kernel_release).is_some_and(|v| KERNEL_FREE_RINGS.contains(&v));
    let found = match facts.memlock {
        Limit::Unknown => "the limit is not readable".into(),
        Limit::Unlimited => "unlimited".into(),
        Limit::At(bytes) => format!("{} KiB, {} KiB needed", bytes >> 10, need >> 10),
    };
    let fix = format!(
        "Run `ulimit -l {0}`; or set `LimitMEMLOCK={0}K` (systemd), `--ulimit memlock={need}` (Docker), or \
         `* - memlock {0}` in /etc/security/limits.conf.",
        need >> 10
    );
    let demanded = if free_rings { MEMLOCK_MIN } else { need };
    check("locked memory", "executors lock memory that they share with the kernel", found)
        .unless(!facts.memlock.is_below(demanded), Verdict::Fail, fix.clone())
        .unless(!facts.memlock.is_below(need), Verdict::Warn, fix)
}

fn cores(facts: &Facts, workers: usize) -> Check {
    let mask = facts.cores.mask.len();
    let quota =
        facts.cores.quota.map_or("no cgroup quota".into(), |quota| format!("cgroup quota {quota:.2}"));
    let usable = facts.cores.usable();
    check(
        "cores",
        "one worker per core is the fastest; a quota pauses all workers when it is used up",
        format!("{mask} in the affinity mask, {quota}: {usable} usable, {workers} workers"),
    )
    .unless(workers > 0, Verdict::Fail, "Ask for at least one core.")
    .unless(
        workers <= usable,
        Verdict::Warn,
        format!(
            "Use --cores {usable}, or give the process more cores; workers that share a core do not spin."
        ),
    )
    .unless(
        facts.cores.quota.is_none_or(|quota| quota >= mask as f64 || quota.fract() == 0.0),
        Verdict::Warn,
        "Make the cgroup's CPU quota a whole number of cores.",
    )
}

fn open_files(facts: &Facts, workers: u64) -> Check {
    let need = FILES_BASE + FILES_PER_EXECUTOR * workers;
    let found = match facts.open_files {
        Limit::Unknown => "the limit is not readable".into(),
        Limit::Unlimited => "unlimited".into(),
        Limit::At(files) => format!("{files}, {need} needed to start"),
    };
    let enough = need.max(FILES_COMFORTABLE);
    let fix = format!("Run `ulimit -n {enough}`, or set `LimitNOFILE={enough}` (systemd).");
    check("open files", "rings, sockets, inputs and state segments are open files", found)
        .unless(!facts.open_files.is_below(need), Verdict::Fail, fix.clone())
        .unless(!facts.open_files.is_below(enough), Verdict::Warn, fix)
}

fn huge_pages(facts: &Facts) -> Check {
    let setting = facts.huge_pages.as_deref();
    check(
        "huge pages",
        "random access to large state misses the address cache several times as often with small pages",
        setting.map_or("not offered by this kernel".into(), |word| format!("transparent huge pages: {word}")),
    )
    .unless(
        matches!(setting, Some("always" | "madvise")),
        Verdict::Warn,
        "Run `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`.",
    )
}

fn disk(disk: &Disk) -> Check {
    let name = &disk.directory;
    let why = "checkpoints are written and cold state is read here";
    if let Some(problem) = &disk.unusable {
        return check("disk", why, format!("{name}: {problem}")).unless(
            false,
            Verdict::Fail,
            "Create the directory, or name another one.",
        );
    }
    let kind = disk.file_system.as_deref().unwrap_or("unknown file system");
    let device = match disk.rotational {
        Some(true) => "a disk that says it rotates",
        Some(false) => "a solid-state disk",
        None => "no single disk below it",
    };
    check("disk", why, format!("{name}: {kind}, {device}"))
        .unless(
            disk.rotational != Some(true),
            Verdict::Warn,
            "Use a solid-state disk for state and checkpoints.",
        )
        .unless(
            !matches!(kind, "tmpfs" | "ramfs"),
            Verdict::Warn,
            "This is memory: what is written here does not survive a restart. Name a directory on a disk.",
        )
        .unless(
            !matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3" | "9p"),
            Verdict::Warn,
            "This is a network file system: keep state on a local disk, checkpoints may stay here.",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Cores;
    use Verdict::{Fail, Ok, Warn};

    fn good() -> Facts {
        Facts {
            kernel_release: "6.1.0".into(),
            io_uring_disabled: Some(0),
            io_uring_setup: Result::Ok(()),
            memlock: Limit::At(8 << 20),
            memlock_exempt: false,
            open_files: Limit::At(20_000),
            cores: Cores { mask: (0..8).collect(), quota: None },
            huge_pages: Some("madvise".into()),
            disk: None,
        }
    }

    fn verdict(facts: &Facts, workers: usize, name: &str) -> Verdict {
        let report = judge(facts, workers);
        let check = report.checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(check.fix.is_empty(), check.verdict == Ok, "{check:?}");
        assert!(!check.found.is_empty() && !check.why.is_empty());
        check.verdict
    }

    #[test]
    fn a_good_machine_is_fit() {
        let report = judge(&good(), 8);
        assert!(report.checks.iter().all(|check| check.verdict == Ok), "{report:#?}");
        assert!(report.fit() && report.require().is_ok());
    }

    #[test]
    fn an_old_kernel_is_unfit_and_an_odd_one_is_doubtful() {
        for (release, expected) in [("5.7.19", Fail), ("4.19.0", Fail), ("5.8.0", Ok), ("?", Warn)] {
            assert_eq!(
                verdict(&Facts { kernel_release: release.into(), ..good() }, 1, "kernel"),
                expected,
                "{release}"
            );
        }
    }

    #[test]
    fn io_uring_that_cannot_be_set_up_is_unfit_and_the_fix_fits_the_cause() {
        for (errno, disabled, part) in [
            (libc::EPERM, Some(2), "sysctl"),
            (libc::EPERM, Some(1), "io_uring_group"),
            (libc::EPERM, None, "seccomp"),
            (libc::ENOSYS, None, "seccomp"),
            (libc::ENOMEM, Some(0), "ulimit -l"),
            (libc::EMFILE, Some(0), "ulimit -n"),
            (libc::EINVAL, Some(0), "io_uring_setup(2)"),
        ] {
            let facts = Facts { io_uring_setup: Err(errno), io_uring_disabled: disabled, ..good() };
            assert_eq!(verdict(&facts, 1, "io_uring"), Fail);
            let error = judge(&facts, 1).require().unwrap_err().to_string();
            assert!(error.contains(part), "{errno}: {error}");
        }
        assert_eq!(verdict(&Facts { io_uring_disabled: Some(1), ..good() }, 1, "io_uring"), Ok);
    }

    #[test]
    fn locked_memory_is_charged_per_worker_unless_the_kernel_or_a_privilege_spares_it() {
        let with = |kernel: &str, limit, memlock_exempt, workers| {
            let facts = Facts { kernel_release: kernel.into(), memlock: limit, memlock_exempt, ..good() };
            verdict(&facts, workers, "locked memory")
        };
        let least = Limit::At(512 << 10);
        for kernel in ["5.10.0", "6.1.0", "6.14.0", "?"] {
            assert_eq!(with(kernel, Limit::At(64 << 10), false, 1), Fail, "{kernel}");
            assert_eq!(
                with(kernel, Limit::At(64 << 10), true, 1),
                Fail,
                "{kernel}: glommio looks at the limit"
            );
            assert_eq!(with(kernel, least, false, 2), Ok, "{kernel}");
            assert_eq!(with(kernel, least, true, 8), Ok, "{kernel}");
            assert_eq!(with(kernel, Limit::At(2 << 20), false, 8), Ok, "{kernel}");
            assert_eq!(with(kernel, Limit::Unlimited, false, 1_000), Ok, "{kernel}");
            assert_eq!(with(kernel, Limit::Unknown, false, 1_000), Ok, "{kernel}");
        }
        assert_eq!(with("5.10.0", least, false, 8), Fail);
        assert_eq!(with("6.1.0", least, false, 8), Warn);
        assert_eq!(with("6.14.0", least, false, 8), Fail);
    }

    #[test]
    fn workers_beyond_the_cores_and_odd_quotas_are_warned_of() {
        let with = |quota, workers| {
            verdict(&Facts { cores: Cores { mask: vec![0, 1], quota }, ..good() }, workers, "cores")
        };
        assert_eq!(with(None, 2), Ok);
        assert_eq!(with(None, 3), Warn);
        assert_eq!(with(Some(1.0), 1), Ok);
        assert_eq!(with(Some(1.5), 2), Warn);
        assert_eq!(with(Some(2.5), 2), Ok);
        assert_eq!(with(None, 0), Fail);
    }

    #[test]
    fn open_files_scale_with_the_workers() {
        let with = |limit, workers| verdict(&Facts { open_files: limit, ..good() }, workers, "open files");
        assert_eq!(with(Limit::At(64), 1), Fail);
        assert_eq!(with(Limit::At(256), 1), Warn);
        assert_eq!(with(Limit::At(1_024), 8), Ok);
        assert_eq!(with(Limit::At(1_024), 200), Fail);
        assert_eq!(with(Limit::Unlimited, 1_000), Ok);
    }

    #[test]
    fn huge_pages_and_slow_or_forgetful_disks_are_warned_of() {
        let pages = |word: Option<&str>| {
            verdict(&Facts { huge_pages: word.map(str::to_owned), ..good() }, 1, "huge pages")
        };
        assert_eq!([pages(Some("always")), pages(Some("never")), pages(None)], [Ok, Warn, Warn]);
        let disk = |kind: &str, rotational, unusable: Option<&str>| {
            let disk = Disk {
                directory: "/d".into(),
                unusable: unusable.map(str::to_owned),
                file_system: Some(kind.into()),
                rotational,
            };
            verdict(&Facts { disk: Some(disk), ..good() }, 1, "disk")
        };
        assert_eq!(disk("ext4", Some(false), None), Ok);
        assert_eq!(disk("overlay", None, None), Ok);
        assert_eq!(disk("ext4", Some(true), None), Warn);
        assert_eq!(disk("tmpfs", None, None), Warn);
        assert_eq!(disk("nfs4", None, None), Warn);
        assert_eq!(disk("ext4", None, Some("No such file or directory")), Fail);
    }

    #[test]
    fn the_error_names_the_first_failure_and_counts_the_others() {
        let facts = Facts { memlock: Limit::At(0), open_files: Limit::At(3), ..good() };
        let error = judge(&facts, 2).require().unwrap_err().to_string();
        assert!(error.starts_with("locked memory unfit for 2 workers: 0 KiB, 512 KiB needed"), "{error}");
        assert!(error.contains("ulimit -l 512") && error.contains("1 more"), "{error}");
    }
}
