//! How much memory this process may use: what the machine has, or what its control groups leave of that.

use std::path::Path;

use super::cgroup::ancestors;

/// Bytes of memory that this process may use, if the system says.
pub(super) fn memory_of_this_process() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let membership = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limit = limit(&membership, Path::new("/sys/fs/cgroup"), read);
    machine.into_iter().chain(limit).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The tightest limit over the process's group and all groups above it, of control groups of version 1 and 2.
/// `membership` has the form of `/proc/self/cgroup`, `root` is the mount point.
fn limit(membership: &str, root: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut tightest: Option<u64> = None;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = if controllers.is_empty() {
            (root.to_path_buf(), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        // `max` is no number, and version 1 says it with one that is larger than any machine.
        let limits = ancestors(&mount, group).into_iter().filter_map(|folder| read(&folder.join(file)));
        let least = limits.filter_map(|text| text.trim().parse::<u64>().ok()).min();
        tightest = tightest.into_iter().chain(least).min();
    }
    tightest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts() {
        let read = |path: &Path| match path.to_str() {
            Some("/cg/a/memory.max") => Some("1000000\n".to_owned()),
            Some("/cg/a/b/memory.max") => Some("max\n".to_owned()),
            Some("/cg/memory/c/memory.limit_in_bytes") => Some("500\n".to_owned()),
            _ => None,
        };
        assert_eq!(limit("0::/a/b\n", Path::new("/cg"), read), Some(1_000_000));
        assert_eq!(limit("0::/a/b\n4:memory:/c\n", Path::new("/cg"), read), Some(500));
        assert_eq!(limit("0::/x\ngarbage\n3:cpu:/c\n", Path::new("/cg"), read), None);
    }

    #[test]
    fn the_machine_tells_its_memory_in_kibibytes() {
        assert_eq!(total("MemFree:  5 kB\nMemTotal:       16 kB\n"), Some(16 << 10));
        assert_eq!(total("MemTotal: many\n"), None);
        assert!(memory_of_this_process().is_some_and(|bytes| bytes > 1 << 20));
    }
}
