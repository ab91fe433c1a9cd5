//! The one system call that the standard library and the crates in use do not offer in a safe form.
#![allow(unsafe_code)]

/// Makes timed sleeps of the calling thread as exact as the hardware: the kernel's default lets each end up to 50 µs late.
/// Refusal is harmless, so the outcome is not looked at.
pub(super) fn sleep_exactly() {
    const SLACK_NS: libc::c_ulong = 1;
    // SAFETY: PR_SET_TIMERSLACK takes one integer, touches no memory of ours and changes the calling thread only.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) };
}
