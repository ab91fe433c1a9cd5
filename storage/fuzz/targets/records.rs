//! Fuzzes [`records`](tidemill_storage_fuzz::records).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::records(data);
});
