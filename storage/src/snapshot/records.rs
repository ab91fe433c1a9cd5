//! Walking over records and removed keys without their types, to restore, verify and inspect. Any bytes may come.

use std::ops::Range;

use crate::log::{
    seal::Layout,
    sized::{DEAD, HEADER_BYTES, UNIT_BYTES},
};

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Hash of its key.
    pub hash: u64,
    /// Bytes of its key; empty for a narrow one.
    pub key: &'a [u8],
    /// Its archived value, the root last; empty for a removed key.
    pub value: &'a [u8],
    /// Its length in bytes, all included.
    pub length: usize,
    /// Whether it counted no more when it was sealed.
    pub dead: bool,
}

/// What is wrong, and where among the bytes.
pub type Wrong = (usize, String);

/// The records of an extent; ends after the first error.
pub fn records(layout: Layout, bytes: &[u8]) -> impl Iterator<Item = Result<RecordView<'_>, Wrong>> {
    walk(bytes, move |rest| match layout {
        Layout::Stride { stride, value_at, value_len } => {
            let value = value_at as usize..(value_at as usize).saturating_add(value_len as usize);
            strided(stride as usize, value, rest)
        }
        Layout::Sized { narrow, align } => sized(narrow, align as usize, rest),
    })
}

/// Removed keys: hash and bytes; ends after the first error.
pub fn removed_keys(bytes: &[u8]) -> impl Iterator<Item = Result<RecordView<'_>, Wrong>> {
    walk(bytes, |rest| {
        let hash = number(rest, 0, 8).ok_or("a removed key that is cut off")?;
        let length = number(rest, 8, 4).ok_or("a removed key that is cut off")? as usize;
        let key = length.checked_add(12).and_then(|end| rest.get(12..end));
        let key = key.ok_or_else(|| format!("a removed key of {length} bytes that is cut off"))?;
        Ok(RecordView { hash, key, value: &[], length: 12 + length, dead: false })
    })
}

/// Takes one thing after another off the front.
fn walk<'a>(
    bytes: &'a [u8],
    first: impl Fn(&'a [u8]) -> Result<RecordView<'a>, String>,
) -> impl Iterator<Item = Result<RecordView<'a>, Wrong>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == bytes.len() {
            return None;
        }
        let found = first(&bytes[at..]).map_err(|what| (at, what));
        at = match &found {
            Ok(record) => at + record.length,
            Err(_) => bytes.len(),
        };
        Some(found)
    })
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let mut number = [0; 8];
    number[..length].copy_from_slice(bytes.get(at..at + length)?);
    Some(u64::from_le_bytes(number))
}

fn strided(stride: usize, value: Range<usize>, rest: &[u8]) -> Result<RecordView<'_>, String> {
    let record = rest.get(..stride).filter(|record| record.len() >= 8);
    match record.and_then(|record| Some((number(record, 0, 8)?, record.get(value)?))) {
        Some((hash, value)) => Ok(RecordView { hash, key: &[], value, length: stride, dead: false }),
        None => Err(format!("{} bytes of a record of {stride}", rest.len())),
    }
}

fn sized(narrow: bool, align: usize, rest: &[u8]) -> Result<RecordView<'_>, String> {
    let cut = || format!("{} bytes of a record's header", rest.len());
    let hash = number(rest, 0, 8).ok_or_else(cut)?;
    let word = number(rest, 8, 4).ok_or_else(cut)? as u32;
    let value = number(rest, 12, 4).ok_or_else(cut)? as usize;
    let (length, flags) = ((word & (DEAD - 1)) as usize * UNIT_BYTES, word & !(DEAD - 1));
    if length < HEADER_BYTES || length > rest.len() {
        return Err(format!("a record of {length} bytes where {} are left", rest.len()));
    }
    if flags & !DEAD != 0 {
        return Err(format!("a record with unknown flags {:#x}", flags >> 24));
    }
    let (key, value_at) = if narrow {
        (&[][..], HEADER_BYTES)
    } else {
        let key_length = number(&rest[..length], HEADER_BYTES, 2).ok_or_else(cut)? as usize;
        let key_at = HEADER_BYTES + 2;
        let key = rest[..length].get(key_at..key_at + key_length);
        (
            key.ok_or_else(|| format!("a key of {key_length} bytes in a record of {length}"))?,
            key_at + key_length,
        )
    };
    let value_at = value_at.next_multiple_of(align.max(1));
    let Some(value) = rest[..length].get(value_at..value_at + value) else {
        return Err(format!("a value of {value} bytes at {value_at} of a record of {length}"));
    };
    Ok(RecordView { hash, key, value, length, dead: flags & DEAD != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Layout = Layout::Sized { narrow: false, align: 8 };

    fn record(word: u32, value: u32, key: &[u8]) -> Vec<u8> {
        let mut bytes = 7_u64.to_le_bytes().to_vec();
        bytes.extend(word.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes.extend((key.len() as u16).to_le_bytes());
        bytes.extend(key);
        bytes.resize(48, 0);
        bytes
    }

    #[test]
    fn sized_records_are_chained() {
        let bytes = [record(3, 16, b"abc"), record(3 | DEAD, 0, b"")].concat();
        let found: Vec<_> = records(WIDE, &bytes).map(Result::unwrap).collect();
        let first = RecordView { hash: 7, key: b"abc", value: &[0; 16], length: 48, dead: false };
        assert_eq!(found, [first, RecordView { key: b"", value: &[], dead: true, ..first }]);
    }

    #[test]
    fn no_bytes_make_the_walk_panic() {
        let layouts = [
            Layout::Stride { stride: 24, value_at: 8, value_len: 16 },
            Layout::Sized { narrow: true, align: 8 },
            WIDE,
        ];
        let mut seed = 1_u64;
        for len in 0..600 {
            let mut byte = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Small numbers are the most dangerous lengths.
                if seed >> 60 < 9 { (seed >> 33) as u8 & 3 } else { (seed >> 33) as u8 }
            };
            let bytes: Vec<u8> = (0..len).map(|_| byte()).collect();
            for layout in layouts {
                for record in records(layout, &bytes).flatten() {
                    assert!(record.key.len() + record.value.len() <= len);
                }
            }
        }
    }

    #[test]
    fn records_that_cannot_be_are_refused_where_they_are() {
        let good = record(3, 16, b"abc");
        for bad in
            [record(4, 16, b"abc"), record(0, 0, b""), record(3, 25, b"abc"), record(3 | 2 << 24, 0, b"")]
        {
            let bytes = [good.clone(), bad].concat();
            let last = records(WIDE, &bytes).last().unwrap();
            assert_eq!(last.unwrap_err().0, 48);
        }
        let stride = Layout::Stride { stride: 24, value_at: 8, value_len: 16 };
        assert_eq!(records(stride, &[0; 47]).last().unwrap().unwrap_err().0, 24);
        assert_eq!(removed_keys(&[0; 23]).last().unwrap().unwrap_err().0, 12);
    }
}
