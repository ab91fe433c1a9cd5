//! Fuzzes [`blobs`](tidemill_storage_fuzz::blobs).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidemill_storage_fuzz::blobs(data);
});
