//! Fetching cache lines ahead of their use.
//!
//! Unsafe leaf: a processor's instruction, which the language counts among the unsafe ones.
#![allow(unsafe_code)]

/// As `_MM_HINT_T0`: into all caches.
const TO_READ: i32 = 3;
/// As `_MM_HINT_ET0`: the same, away from any other core.
const TO_WRITE: i32 = 7;

/// Fetches the cache line at an address, which need not be mapped.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    fetch::<TO_READ>(at);
}

/// Fetches the cache line at an address to be written, away from any other core.
#[inline(always)]
pub fn prefetch_for_writing(at: *const u8) {
    fetch::<TO_WRITE>(at);
}

#[inline(always)]
fn fetch<const HINT: i32>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on the cache, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<HINT>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
