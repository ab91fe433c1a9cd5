//! Fuzzes [`keys`](tidemill_storage_fuzz::keys).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::keys(data);
});
