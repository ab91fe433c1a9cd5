//! A die, and records by hand.

/// xorshift: enough of a die.
#[derive(Clone, Debug)]
pub struct Die(pub u64);

impl Die {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// A record of the wide state.
pub fn sized_record(hash: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let value_at = (18 + key.len()).next_multiple_of(8);
    let size = (value_at + value.len()).next_multiple_of(16);
    let mut record = hash.to_le_bytes().to_vec();
    record.extend((size as u32 / 16).to_le_bytes());
    record.extend((value.len() as u32).to_le_bytes());
    record.extend((key.len() as u16).to_le_bytes());
    record.extend(key);
    record.resize(value_at, 0);
    record.extend(value);
    record.resize(size, 0);
    record
}
