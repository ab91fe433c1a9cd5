//! Fuzzes [`pages`](tidemill_storage_fuzz::pages).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::pages(data);
});
