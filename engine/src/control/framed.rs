//! Text behind a first line that says what it is and whether it is whole:
//!
//! ```text
//! MAGIC VERSION <checksum: CRC-32C of the rest, 8 hexadecimal digits> <length of the rest>\n
//! the rest
//! ```

use tidemill_storage::snapshot::format::checksum;

use super::manifest::Unreadable;

/// The rest behind its first line.
pub(super) fn frame(magic: &str, version: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{magic} {version} {:08x} {}\n", checksum(rest), rest.len()).into_bytes();
    bytes.extend_from_slice(rest);
    bytes
}

/// The rest, if it is whole and of this version.
///
/// # Errors
/// What is wrong, or that it is of another version.
pub(super) fn unframe<'a>(magic: &str, version: u32, bytes: &'a [u8]) -> Result<&'a [u8], Unreadable> {
    let (found, rest) = body(magic, bytes)?;
    match found.parse::<u32>() {
        Ok(found) if found == version => Ok(rest?),
        Ok(newer) => Err(Unreadable::Newer(newer)),
        Err(_) => Err("its format version is not a number".to_owned().into()),
    }
}

/// The version that the first line names, and what follows the line if that is whole.
fn body<'a>(magic: &str, bytes: &'a [u8]) -> Result<(&'a str, Result<&'a [u8], String>), String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "its first line is not text")?;
    let rest = &bytes[end + 1..];
    let words: Vec<&str> = head.split(' ').collect();
    let (version, sum, length) = match words[..] {
        [first, version, sum, length] if first == magic => (version, sum, length),
        _ => return Err(format!("its first line is not `{magic} VERSION CHECKSUM LENGTH`")),
    };
    let found = format!("{:08x}", checksum(rest));
    let whole = if length.parse() != Ok(rest.len()) {
        Err(format!("it should have {length} bytes behind its first line and has {}", rest.len()))
    } else if found != sum {
        Err(format!("its checksum is {found} and should be {sum}: it was changed"))
    } else {
        Ok(rest)
    };
    Ok((version, whole))
}
