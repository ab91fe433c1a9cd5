//! Fuzzes [`segment`](tidemill_storage_fuzz::segment).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::segment(data);
});
