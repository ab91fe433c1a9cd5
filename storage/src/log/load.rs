//! Filling a table from what was stored: piece by piece in the order of the seals, so that the newest record of a key
//! wins.
//!
//! What comes from a file was found to be as it was written; what was written is checked here to be records of the
//! table's types, so that a file made by someone else, with checksums and all, is never read as what it is not.

use super::{
    place::{Form, Place},
    seal::Layout,
    sized::{DEAD, HEADER_BYTES, UNIT_BYTES},
    table::LogTable,
};
use crate::{
    key::{Key, key_group},
    record::{Record, RecordError, access, last_root},
    state::{KeyView, KeyedTable},
};

/// Records whose buckets are fetched ahead.
const AHEAD: usize = 32;

/// A stored record, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The key.
    pub key: KeyView<'a>,
    /// The archived value; its root comes last.
    pub value: &'a [u8],
}

/// Why bytes are no records: what is wrong, and where among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRecords {
    /// Where.
    pub at: usize,
    /// What.
    pub what: &'static str,
}

/// The live records in bytes of a layout.
pub fn records(bytes: &[u8], layout: Layout) -> impl Iterator<Item = Result<Stored<'_>, NoRecords>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let from = at;
            let record = match layout {
                Layout::Stride { stride, value_at, value_len } => {
                    at += stride as usize;
                    strided(bytes.get(from..at), value_at as usize, value_len as usize).map(Some)
                }
                Layout::Sized { narrow, align } => match sized(&bytes[from..], narrow, align as usize) {
                    Ok((len, record)) => {
                        at += len;
                        Ok(record)
                    }
                    Err(what) => Err(what),
                },
            };
            match record {
                Ok(None) => {}
                Ok(Some(record)) => return Some(Ok(record)),
                Err(what) => {
                    at = bytes.len();
                    return Some(Err(NoRecords { at: from, what }));
                }
            }
        }
        None
    })
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn strided(record: Option<&[u8]>, value_at: usize, value_len: usize) -> Result<Stored<'_>, &'static str> {
    let cut = "a record is cut off";
    let record = record.ok_or(cut)?;
    let hash = u64::from_le_bytes(word(record, 0).ok_or(cut)?);
    let value = record.get(value_at..value_at + value_len).ok_or(cut)?;
    Ok(Stored { key: KeyView { hash, bytes: &[] }, value })
}

/// Length of the record at the front, and the record unless it is dead.
fn sized(bytes: &[u8], narrow: bool, align: usize) -> Result<(usize, Option<Stored<'_>>), &'static str> {
    let cut = "a record is cut off";
    let hash = u64::from_le_bytes(word(bytes, 0).ok_or(cut)?);
    let size = u32::from_le_bytes(word(bytes, 8).ok_or(cut)?);
    let value_len = u32::from_le_bytes(word(bytes, 12).ok_or(cut)?) as usize;
    let (dead, len) = (size & DEAD != 0, (size & (DEAD - 1)) as usize * UNIT_BYTES);
    if len < HEADER_BYTES {
        return Err("a record is shorter than its header");
    }
    let record = bytes.get(..len).ok_or(cut)?;
    if dead {
        return Ok((len, None));
    }
    let outside = "a record's key or value does not fit its size";
    let (key, key_end) = if narrow {
        (&[][..], HEADER_BYTES)
    } else {
        let key_len = usize::from(u16::from_le_bytes(word(record, HEADER_BYTES).ok_or(outside)?));
        let from = HEADER_BYTES + 2;
        (record.get(from..from + key_len).ok_or(outside)?, from + key_len)
    };
    let value_at = key_end.next_multiple_of(align);
    let value = record.get(value_at..value_at + value_len).ok_or(outside)?;
    Ok((len, Some(Stored { key: KeyView { hash, bytes: key }, value })))
}

/// Which records are taken, and how their values are read.
pub struct Loading<'m, V> {
    /// Key groups that are taken; others are skipped.
    pub key_groups: std::ops::Range<u32>,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// How the stored records lie.
    pub layout: Layout,
    /// Turns a stored value of an older type into one of this; else the stored bytes are this type's.
    #[allow(clippy::type_complexity)]
    pub migrate: Option<&'m dyn Fn(&[u8]) -> Result<V, RecordError>>,
}

/// Why a piece could not be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The bytes are no records.
    Records(NoRecords),
    /// A value is none of its type.
    Value(RecordError),
}

impl<K: Key, V: Record> LogTable<K, V> {
    /// Takes in records; those of keys that are there already replace them.
    ///
    /// # Errors
    /// When the bytes are no records of this type. The table is of no use then.
    pub fn load_records(&mut self, bytes: &[u8], loading: &Loading<'_, V>) -> Result<(), LoadError> {
        let mut batch: Vec<Stored<'_>> = Vec::with_capacity(AHEAD);
        let mut all = records(bytes, loading.layout).peekable();
        while all.peek().is_some() {
            batch.clear();
            for record in all.by_ref().take(AHEAD) {
                let record = record.map_err(LoadError::Records)?;
                let group = key_group(record.key.hash, loading.max_parallelism);
                if loading.key_groups.contains(&group) {
                    self.index.prefetch(record.key.hash);
                    batch.push(record);
                }
            }
            for record in &batch {
                self.load(*record, loading).map_err(LoadError::Value)?;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn load(&mut self, record: Stored<'_>, loading: &Loading<'_, V>) -> Result<(), RecordError> {
        if let Some(migrate) = loading.migrate {
            self.put(record.key, &migrate(record.value)?);
            return Ok(());
        }
        let root = last_root::<V>(record.value.len()).unwrap_or(usize::MAX);
        access::<V>(record.value, root)?;
        self.put_archived(record.key, record.value);
        Ok(())
    }

    /// Sets the archived value of a key, which was checked.
    #[inline(always)]
    fn put_archived(&mut self, key: KeyView<'_>, value: &[u8]) {
        if let Some(slot) = self.find(key) {
            // All of a table that is being loaded is open; in place if it fits.
            let place = self.resident(slot.address());
            if Form::<K, V>::STRIDED {
                return place.write_value::<K, V>(value);
            }
            self.remove(key);
        }
        let units = Form::<K, V>::units(key, value.len());
        let (address, memory) = self.blocks.append(units, Form::<K, V>::SHAPE);
        Place(memory).write::<K, V>(key, units, value);
        self.add_address(key.hash, address);
    }

    /// Takes keys out, given as [`RemovedKeys`](super::seal::RemovedKeys) holds them.
    ///
    /// # Errors
    /// When the bytes are no such keys.
    pub fn load_removed(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let mut at = 0;
        while at < bytes.len() {
            let cut = LoadError::Records(NoRecords { at, what: "a removed key is cut off" });
            let Some((hash, len)) = word(bytes, at).zip(word(bytes, at + 8)) else { return Err(cut) };
            let (hash, len) = (u64::from_le_bytes(hash), u32::from_le_bytes(len) as usize);
            let Some(key) = bytes.get(at + 12..at + 12 + len) else { return Err(cut) };
            self.remove(KeyView { hash, bytes: key });
            at += 12 + len;
        }
        Ok(())
    }

    /// Makes room in the index for so many keys.
    pub fn reserve(&mut self, keys: usize) {
        self.index.reserve(keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let layouts = [
            Layout::Stride { stride: 24, value_at: 8, value_len: 16 },
            Layout::Sized { narrow: true, align: 8 },
            Layout::Sized { narrow: false, align: 16 },
        ];
        let mut seed = 1_u64;
        for len in 0..600 {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Small numbers are the most dangerous lengths.
                    if seed >> 60 < 9 { (seed >> 33) as u8 & 3 } else { (seed >> 33) as u8 }
                })
                .collect();
            for layout in layouts {
                for record in records(&bytes, layout).flatten() {
                    assert!(record.key.bytes.len() + record.value.len() <= len);
                }
            }
        }
    }
}
