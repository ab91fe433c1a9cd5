//! Fuzzes [`restore`](tidemill_storage_fuzz::restore).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::restore(data);
});
