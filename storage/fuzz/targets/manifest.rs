//! Fuzzes [`manifest`](tidemill_storage_fuzz::manifest).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::manifest(data);
});
