//! Fuzzes [`wal`](tidemill_storage_fuzz::wal).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::wal(data);
});
