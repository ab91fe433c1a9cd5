//! Fuzzes [`loads`](tidemill_storage_fuzz::loads).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::loads(data);
});
