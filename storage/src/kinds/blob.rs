//! The bytes of state that is not keyed, as it becomes a blob of a snapshot.
//!
//! **Frozen**; a golden test guards it. No checksum: whoever keeps the blob has one.
//!
//! ```text
//! "TMOPSTAT" │ version: u32 │ kind: text │ keys: text │ values: text │ entries: u64 │ entry │ entry │ …
//! text   length: u32 │ UTF-8
//! entry  length of the key: u32 │ length of the value: u32 │ key │ 0 to the next multiple of 16 │ archived value, root last
//! ```
//!
//! Numbers are little-endian. `kind` says what state it is, `keys` and `values` the names of its types.

use rkyv::rancor::{Error, Source};

use crate::{
    record::{Record, RecordError, access, from_archived, last_root, to_bytes},
    state::{StateError, StateName},
    writer::RecordWriter,
};

const MAGIC: &[u8; 8] = b"TMOPSTAT";
const VERSION: u32 = 1;
const ALIGN: usize = 16;

/// What a blob is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobTypes<'a> {
    /// Kind of state.
    pub kind: &'a str,
    /// Stored name of the keys' type, empty if there are none.
    pub keys: &'a str,
}

/// What is wrong with a blob.
#[derive(Debug, thiserror::Error)]
enum BlobError {
    #[error("it does not begin as the bytes of operator state do")]
    Magic,
    #[error("it has version {0}, this program knows versions up to {VERSION}; use a newer program")]
    Version(u32),
    #[error("it ends at byte {at}, within {what}")]
    Short { what: &'static str, at: usize },
    #[error("at byte {at}: {what} is no text")]
    NoText { what: &'static str, at: usize },
    #[error("{0} bytes are left over behind its last entry")]
    Long(usize),
}

/// Writes entries: keys as they are, values archived.
///
/// # Errors
/// When a value cannot be archived or is 4 GiB long or longer, or a key is.
pub fn write<'e, V: Record>(
    types: BlobTypes<'_>,
    entries: impl ExactSizeIterator<Item = (&'e [u8], &'e V)>,
) -> Result<Vec<u8>, StateError> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    for text in [types.kind, types.keys, &V::schema()] {
        out.extend_from_slice(&len_of("key", text.as_bytes())?);
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        let value = to_bytes(value)?;
        out.extend_from_slice(&len_of("key", key)?);
        out.extend_from_slice(&len_of("value", value.bytes())?);
        out.extend_from_slice(key);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        out.extend_from_slice(value.bytes());
    }
    Ok(out)
}

fn len_of(what: &'static str, bytes: &[u8]) -> Result<[u8; 4], StateError> {
    match u32::try_from(bytes.len()) {
        Ok(len) => Ok(len.to_le_bytes()),
        Err(_) => {
            Err(StateError::TooLong { what, bytes: bytes.len() as u64, bytes_max: u64::from(u32::MAX) })
        }
    }
}

/// Reads what [`write()`] has written for state of this name: its keys and values.
///
/// # Errors
/// [`StateError::Schema`] when it was written with other types, [`StateError::Record`] when it is damaged or of a
/// newer version. Never panics, whatever the bytes.
pub fn read<V: Record>(
    name: &StateName,
    types: BlobTypes<'_>,
    bytes: &[u8],
) -> Result<Vec<(Vec<u8>, V)>, StateError> {
    let mut reader = Reader { name, bytes, at: 0 };
    if reader.take("its beginning", MAGIC.len())? != MAGIC {
        return Err(reader.damaged(BlobError::Magic));
    }
    match reader.number("its version")? {
        VERSION => {}
        version => return Err(reader.damaged(BlobError::Version(version))),
    }
    for (what, wanted) in [("kind", types.kind), ("keys", types.keys), ("values", &*V::schema())] {
        let stored = reader.text(what)?;
        if stored != wanted {
            return Err(StateError::Schema {
                operator: name.operator.clone(),
                state: name.state.clone(),
                what,
                stored: stored.to_owned(),
                wanted: wanted.to_owned(),
            });
        }
    }
    let count = [reader.number("the number of entries")?, reader.number("the number of entries")?];
    let count = u64::from(count[0]) | u64::from(count[1]) << 32;
    let mut entries = Vec::new();
    let mut aligned = RecordWriter::default();
    for _ in 0..count {
        let key_len = reader.number("an entry")? as usize;
        let value_len = reader.number("an entry")? as usize;
        let key = reader.take("a key", key_len)?.to_vec();
        let padding = reader.at.next_multiple_of(ALIGN) - reader.at;
        reader.take("an entry", padding)?;
        aligned.reset(0);
        aligned.append_bytes(reader.take("a value", value_len)?);
        let root = last_root::<V>(value_len).unwrap_or(usize::MAX);
        let value = access::<V>(aligned.bytes(), root)?;
        entries.push((key, from_archived::<V>(value)?));
    }
    match bytes.len() - reader.at {
        0 => Ok(entries),
        extra => Err(reader.damaged(BlobError::Long(extra))),
    }
}

/// Bytes that are read from front to back.
struct Reader<'a> {
    name: &'a StateName,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], StateError> {
        match self.bytes[self.at..].get(..len) {
            Some(taken) => {
                self.at += len;
                Ok(taken)
            }
            None => Err(self.damaged(BlobError::Short { what, at: self.bytes.len() })),
        }
    }

    fn number(&mut self, what: &'static str) -> Result<u32, StateError> {
        let mut number = [0; 4];
        number.copy_from_slice(self.take(what, 4)?);
        Ok(u32::from_le_bytes(number))
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, StateError> {
        let len = self.number(what)? as usize;
        let at = self.at;
        std::str::from_utf8(self.take(what, len)?).map_err(|_| self.damaged(BlobError::NoText { what, at }))
    }

    #[cold]
    fn damaged(&self, error: BlobError) -> StateError {
        let record = format!("state `{}` of operator `{}`", self.name.state, self.name.operator).into();
        RecordError::Invalid { record, source: Error::new(error) }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: BlobTypes<'_> = BlobTypes { kind: "test", keys: "String" };

    fn blob() -> Vec<u8> {
        let entries: [(&[u8], &u16); 2] = [(b"one", &1), (b"", &2)];
        write(TYPES, entries.into_iter()).unwrap()
    }

    fn read_as<V: Record>(types: BlobTypes<'_>, bytes: &[u8]) -> Result<Vec<(Vec<u8>, V)>, StateError> {
        read::<V>(&StateName::new("op", "state"), types, bytes)
    }

    #[test]
    fn blobs_are_frozen() {
        let mut expected = b"TMOPSTAT\x01\0\0\0\x04\0\0\0test\x06\0\0\0String\x03\0\0\0u16".to_vec();
        expected.extend_from_slice(b"\x02\0\0\0\0\0\0\0");
        expected.extend_from_slice(b"\x03\0\0\0\x02\0\0\0one");
        expected.resize(expected.len().next_multiple_of(16), 0);
        expected.extend_from_slice(b"\x01\0\0\0\0\0\x02\0\0\0");
        expected.resize(expected.len().next_multiple_of(16), 0);
        expected.extend_from_slice(b"\x02\0");
        assert_eq!(blob(), expected);
        assert_eq!(read_as::<u16>(TYPES, &expected).unwrap(), [(b"one".to_vec(), 1), (Vec::new(), 2)]);
    }

    #[test]
    fn other_types_are_named() {
        for (error, text) in [
            (
                read_as::<u32>(TYPES, &blob()).unwrap_err(),
                "was stored with values `u16` and is opened with `u32`",
            ),
            (
                read_as::<u16>(BlobTypes { keys: "u8", ..TYPES }, &blob()).unwrap_err(),
                "state `state` of operator `op` was stored with keys `String` and is opened with `u8`",
            ),
            (
                read_as::<u16>(BlobTypes { kind: "other", ..TYPES }, &blob()).unwrap_err(),
                "was stored with kind `test` and is opened with `other`",
            ),
        ] {
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn damaged_blobs_are_refused() {
        let blob = blob();
        for len in 0..blob.len() {
            assert!(read_as::<u16>(TYPES, &blob[..len]).is_err(), "cut off at {len}");
        }
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 0x80;
            let _ = read_as::<u16>(TYPES, &damaged);
        }
        let mut longer = blob.clone();
        longer.push(0);
        assert!(read_as::<u16>(TYPES, &longer).is_err());
        let mut newer = blob;
        newer[8] = 2;
        let error = read_as::<u16>(TYPES, &newer).unwrap_err();
        // What rkyv's error says of its cause depends on how it was built.
        assert!(matches!(error, StateError::Record(_)), "{error:?}");
    }
}
