//! Records of any size: how one lies in a block.
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | hash of the key, little-endian |
//! | 8 | 4 | size of the whole record in units of 16 bytes (lower 24 bits); flags (upper 8 bits): 1 = dead, to be skipped |
//! | 12 | 4 | length of the archived value, whose root comes last |
//! | 16 | 2 + k | length of the key's bytes (16 bits), the bytes; absent for narrow keys |
//! | next multiple of the value's alignment (8 or 16) | | the archived value |
//! | to the size | | room for the value to grow, zero or old bytes |
//!
//! Every record begins at a multiple of 16 bytes. What is behind the last record of a block is not part of a range.

/// Unit of sizes and addresses, in bytes.
pub const UNIT_BYTES: usize = 16;
/// Length of the header.
pub const HEADER_BYTES: usize = 16;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// Longest record, in bytes, header and key included: 256 MiB less a unit.
pub const RECORD_BYTES_MAX: usize = ((1 << 24) - 1) * UNIT_BYTES;
/// Flag of a record that counts no more: it was replaced or removed before it was sealed.
pub const DEAD: u32 = 1 << 24;
