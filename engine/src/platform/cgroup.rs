//! Reads the CPU quota of a control group, version 1 and 2.

use std::path::{Path, PathBuf};

/// The tightest quota, in cores, over the process's group and all groups above it.
pub(super) fn cpu_quota_of_this_process() -> Option<f64> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    cpu_quota(&membership, Path::new("/sys/fs/cgroup"), |path| std::fs::read_to_string(path).ok())
}

/// The same over any files: `membership` has the form of `/proc/self/cgroup`, `root` is the mount point.
fn cpu_quota(membership: &str, root: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<f64> {
    let mut tightest: Option<f64> = None;
    let mut note = |quota: Option<f64>| {
        if let Some(quota) = quota {
            tightest = Some(tightest.map_or(quota, |other| other.min(quota)));
        }
    };
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            for folder in ancestors(root, group) {
                note(read(&folder.join("cpu.max")).and_then(|text| parse_v2(&text)));
            }
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            for mount in [root.join("cpu"), root.join("cpu,cpuacct")] {
                for folder in ancestors(&mount, group) {
                    let quota = read(&folder.join("cpu.cfs_quota_us"));
                    let period = read(&folder.join("cpu.cfs_period_us"));
                    note(quota.zip(period).and_then(|(quota, period)| parse_v1(&quota, &period)));
                }
            }
        }
    }
    tightest
}

/// The folder of `group` below `mount`, and every folder above it up to `mount`.
/// Inside a container the group's path is often not visible; then its mount point is the group.
pub(super) fn ancestors(mount: &Path, group: &str) -> Vec<PathBuf> {
    let mut folders = vec![mount.to_path_buf()];
    let mut folder = mount.to_path_buf();
    for part in group.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..") {
        folder.push(part);
        folders.push(folder.clone());
    }
    folders
}

/// `cpu.max`: `"max 100000"` or `"150000 100000"`.
fn parse_v2(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    cores(words.next()?, words.next().unwrap_or("100000"))
}

/// `cpu.cfs_quota_us` (−1 without a quota) and `cpu.cfs_period_us`.
fn parse_v1(quota: &str, period: &str) -> Option<f64> {
    cores(quota.trim(), period.trim())
}

fn cores(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (i64, i64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn quota(membership: &str, files: &[(&str, &str)]) -> Option<f64> {
        let files: HashMap<&str, &str> = files.iter().copied().collect();
        cpu_quota(membership, Path::new("/cg"), |path| files.get(path.to_str()?).map(ToString::to_string))
    }

    #[test]
    fn version_two_takes_the_tightest_group_on_the_way_up() {
        let files = [("/cg/a/cpu.max", "150000 100000\n"), ("/cg/a/b/cpu.max", "max 100000\n")];
        assert_eq!(quota("0::/a/b\n", &files), Some(1.5));
        assert_eq!(quota("0::/a/b/c\n", &[("/cg/a/b/c/cpu.max", "50000 100000")]), Some(0.5));
    }

    #[test]
    fn version_two_in_a_container_reads_the_mount_point() {
        assert_eq!(quota("0::/../hidden\n", &[("/cg/cpu.max", "200000 100000")]), Some(2.0));
    }

    #[test]
    fn version_one_reads_the_cfs_files_under_either_mount() {
        let files = [("/cg/cpu/x/cpu.cfs_quota_us", "300000\n"), ("/cg/cpu/x/cpu.cfs_period_us", "100000\n")];
        assert_eq!(quota("3:cpu,cpuacct:/x\n", &files), Some(3.0));
        let files =
            [("/cg/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"), ("/cg/cpu,cpuacct/cpu.cfs_period_us", "100000\n")];
        assert_eq!(quota("3:cpuacct,cpu:/\n", &files), None);
    }

    #[test]
    fn odd_input_is_no_quota() {
        for text in ["", "max", "x y", "0 100000", "100000 0", "-5 100000", "99999999999999999999 1"] {
            assert_eq!(quota("0::/\n", &[("/cg/cpu.max", text)]), None, "{text:?}");
        }
        assert_eq!(quota("garbage\n1:2\n\n", &[("/cg/cpu.max", "1 1")]), None);
        assert_eq!(parse_v2("50000"), Some(0.5));
    }
}
