//! Checking large outputs without keeping them: a checksum that does not depend on the order of rows.
//!
//! The sum, modulo 2^64, of a hash of every row. Each side calls the same row function on its own records,
//! a few nanoseconds a row, so that the check can stay on while speed is measured.

use super::random::fold;

const SALTS: [u64; 6] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
    0x1d8e_4e27_c47d_124f,
];

/// How many rows there were, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checksum {
    /// Rows that were added.
    pub rows: u64,
    /// Sum of their hashes, modulo 2^64.
    pub sum: u64,
}

impl Checksum {
    /// Adds a row by its hash.
    #[inline]
    pub fn add(&mut self, row: u64) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(row);
    }

    /// Adds all rows of another part.
    #[inline]
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// The hash of a row of q0. Of `extra` it reads the length, the first and the last eight bytes, which
/// shows text that is lost, cut, moved or exchanged, and costs no more than a number.
#[inline]
pub fn q0_row(auction: i64, bidder: i64, price: i64, date_time: i64, extra: &str) -> u64 {
    let numbers = pair(0, auction, bidder) ^ pair(2, price, date_time).rotate_left(32);
    fold(numbers, ends(extra) | 1)
}

/// The hash of a row of q1, whose price is in thousandths: the bid's price times 908, exactly.
#[inline]
pub fn q1_row(auction: i64, bidder: i64, price_thousandths: i64, date_time: i64, extra: &str) -> u64 {
    q0_row(auction, bidder, price_thousandths, date_time, extra)
}

/// The hash of a row of q2.
#[inline]
pub fn q2_row(auction: i64, price: i64) -> u64 {
    pair(0, auction, price)
}

#[inline]
fn pair(salt: usize, a: i64, b: i64) -> u64 {
    fold(a as u64 ^ SALTS[salt], b as u64 ^ SALTS[salt + 1])
}

#[inline]
fn ends(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0),
    };
    fold(first ^ SALTS[4], last.rotate_left(29) ^ SALTS[5] ^ bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_content_does() {
        let rows = [q0_row(1, 2, 3, 4, "abc"), q0_row(2, 1, 3, 4, "abc"), q0_row(1, 2, 4, 3, "abc")];
        let sum = |rows: &[u64]| {
            let mut sum = Checksum::default();
            rows.iter().for_each(|&row| sum.add(row));
            sum
        };
        let (mut left, right) = (sum(&rows[..1]), sum(&rows[1..]));
        left.merge(right);
        assert_eq!(left, sum(&[rows[2], rows[0], rows[1]]));
        assert_eq!(std::collections::BTreeSet::from(rows).len(), 3);
        let texts = ["", "a", "abcdefgh", "abcdefghi", "abcdefgi", "xabcdefgh", "abcdefghabcdefgh"];
        let hashes: std::collections::BTreeSet<_> =
            texts.iter().map(|text| q0_row(1, 2, 3, 4, text)).collect();
        assert_eq!(hashes.len(), texts.len());
    }
}
