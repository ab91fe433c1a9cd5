//! Pure functions over the texts that the kernel offers. Anything odd is `None`, never a panic.

/// Major and minor version of `6.1.0-13-amd64`.
pub(super) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim().split('.');
    let major = parts.next()?.parse().ok()?;
    let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

/// The soft value of `name` in `/proc/self/limits`: `None` when the line is missing or odd, `Some(None)` when unlimited.
pub(super) fn soft_limit(limits: &str, name: &str) -> Option<Option<u64>> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// Whether `/proc/self/status` lists the effective capability with this number.
pub(super) fn has_capability(status: &str, number: u32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .and_then(|set| set.checked_shr(number))
        .is_some_and(|set| set & 1 == 1)
}

/// The chosen word of `always [madvise] never`.
pub(super) fn chosen(setting: &str) -> Option<&str> {
    let (_, rest) = setting.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

/// The file system type of the mount that holds `path`, from `/proc/self/mountinfo`; the last of the longest mount points,
/// since later mounts cover earlier ones.
pub(super) fn file_system<'a>(mountinfo: &'a str, path: &str) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for line in mountinfo.lines() {
        let Some((mount, source)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind)) = (mount.split(' ').nth(4), source.split(' ').next()) else { continue };
        let point = unescape(point);
        let holds = point == "/"
            || path.strip_prefix(&point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if holds && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind));
        }
    }
    best.map(|(_, kind)| kind)
}

/// Mount points write blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, character);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_of_all_kinds() {
        assert_eq!(kernel_version("6.18.44-custom\n"), Some((6, 18)));
        assert_eq!(kernel_version("5.8-rc1"), Some((5, 8)));
        assert_eq!(kernel_version("5.10.0+"), Some((5, 10)));
        for odd in ["", "6", "six.one", "6.", "6.x", "-1.2"] {
            assert_eq!(kernel_version(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn limits_are_read_by_their_full_name() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            20000                20000                files     \n\
                    Max locked memory         65536                unlimited            bytes     \n\
                    Max address space         unlimited            unlimited            bytes     \n\
                    Max file locks            many                 \n\
                    Max pending signals\n";
        assert_eq!(soft_limit(text, "Max locked memory"), Some(Some(65_536)));
        assert_eq!(soft_limit(text, "Max address space"), Some(None));
        for name in ["Max file locks", "Max pending signals", "Max cpu time"] {
            assert_eq!(soft_limit(text, name), None, "{name}");
        }
        assert_eq!(soft_limit("", "Max open files"), None);
    }

    #[test]
    fn capabilities_are_bits_of_a_hexadecimal_number() {
        assert!(has_capability("Name:\tx\nCapEff:\t0000000000004000\n", 14));
        assert!(!has_capability("CapEff:\t0000000000004000\n", 13));
        for odd in ["", "CapEff:", "CapEff:\tzz", "CapPrm:\tffffffffffffffff"] {
            assert!(!has_capability(odd, 14), "{odd:?}");
        }
        assert!(!has_capability("CapEff:\tffffffffffffffff", 64));
    }

    #[test]
    fn the_chosen_word_stands_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        for odd in ["", "always", "[always", "always]"] {
            assert_eq!(chosen(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn the_longest_and_latest_mount_holds_a_path() {
        let text = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                    22 21 0:20 / /data rw,nosuid shared:1 - xfs /dev/sdb rw\n\
                    23 22 0:21 / /data/my\\040disk rw - tmpfs tmpfs rw\n\
                    24 21 0:22 / /data rw - btrfs /dev/sdc rw\n\
                    garbage\n";
        assert_eq!(file_system(text, "/home/x"), Some("ext4"));
        assert_eq!(file_system(text, "/database"), Some("ext4"));
        assert_eq!(file_system(text, "/data/x"), Some("btrfs"));
        assert_eq!(file_system(text, "/data/my disk/x"), Some("tmpfs"));
        assert_eq!(file_system("", "/"), None);
    }
}
