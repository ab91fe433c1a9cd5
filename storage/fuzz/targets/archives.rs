//! Fuzzes [`archives`](tidemill_storage_fuzz::archives).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::archives(data);
});
