//! Numbers and strings, little-endian: what the encoders and decoders are made of.

use super::Malformed;

/// Longest string, in bytes: more than any type name or schema.
pub const STRING_BYTES_MAX: usize = 1 << 20;

/// Writes numbers and strings one after another.
#[derive(Debug, Default)]
pub struct Writer {
    /// What was written.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A number of 4 bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// A number of 8 bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// A number of 16 bytes.
    pub fn u128(&mut self, value: u128) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// A string: its length (4 bytes), its bytes. One that is too long to be read back is cut, which only names of
    /// types can be.
    pub fn string(&mut self, text: &str) -> &mut Self {
        let text = &text[..text.floor_char_boundary(STRING_BYTES_MAX)];
        self.u32(text.len() as u32).put(text.as_bytes())
    }
}

/// Reads numbers and strings one after another, and knows where in the file it is.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    base: u64,
}

impl<'a> Reader<'a> {
    /// Of bytes that begin at `base` in their file.
    pub fn new(bytes: &'a [u8], base: u64) -> Self {
        Self { bytes, at: 0, base }
    }

    /// Where in the file the next byte is.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Number of bytes left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        if length > self.left() {
            return Err(Malformed::at(
                self.offset(),
                format!("{length} bytes expected, {} left", self.left()),
            ));
        }
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A number of 4 bytes.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A number of 8 bytes.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of 16 bytes.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// A string.
    ///
    /// # Errors
    /// When the bytes end, when it is too long, and when it is not UTF-8.
    pub fn string(&mut self) -> Result<String, Malformed> {
        let at = self.offset();
        let length = self.u32()? as usize;
        if length > STRING_BYTES_MAX {
            return Err(Malformed::at(at, format!("a string of {length} bytes, over {STRING_BYTES_MAX}")));
        }
        match std::str::from_utf8(self.take(length)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Malformed::at(at, "a string that is not UTF-8")),
        }
    }

    /// Checks a count of things that take at least `bytes_each`, so that it may be allocated for.
    ///
    /// # Errors
    /// When so many cannot be in what is left.
    pub fn count(&self, count: u32, bytes_each: usize) -> Result<usize, Malformed> {
        match (count as usize).checked_mul(bytes_each) {
            Some(bytes) if bytes <= self.left() => Ok(count as usize),
            _ => Err(Malformed::at(self.offset(), format!("{count} entries in {} bytes", self.left()))),
        }
    }

    /// Checks that the next bytes are zero.
    ///
    /// # Errors
    /// When one is not.
    pub fn zeros(&mut self, length: usize) -> Result<(), Malformed> {
        let at = self.offset();
        match self.take(length)?.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(wrong) => Err(Malformed::at(at + wrong as u64, "a byte that should be zero")),
        }
    }
}
