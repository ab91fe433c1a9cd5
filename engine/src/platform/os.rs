//! Peculiarities of the kernel: the one system call that the standard library and the crates in use do not offer in a safe
//! form, and the one that has to be tried again.
#![allow(unsafe_code)]

use std::time::Duration;

/// Tries again for a fifth of a second while `short_of_memory`. The kernel gives the locked memory of rings back some
/// milliseconds after their process has ended, so a service that restarts would else fail on its own predecessor.
pub(super) fn patiently<T>(mut attempt: impl FnMut() -> T, short_of_memory: impl Fn(&T) -> bool) -> T {
    const RETRIES_MAX: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..RETRIES_MAX {
        let outcome = attempt();
        if !short_of_memory(&outcome) {
            return outcome;
        }
        std::thread::sleep(PAUSE);
    }
    attempt()
}

/// Makes timed sleeps of the calling thread as exact as the hardware: the kernel's default lets each end up to 50 µs late.
/// Refusal is harmless, so the outcome is not looked at.
pub(super) fn sleep_exactly() {
    const SLACK_NS: libc::c_ulong = 1;
    // SAFETY: PR_SET_TIMERSLACK takes one integer, touches no memory of ours and changes the calling thread only.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_repeated_until_it_is_not_short() {
        let mut left = 2;
        let attempt = || {
            left -= 1;
            left
        };
        assert_eq!(patiently(attempt, |&left| left > 0), 0);
    }
}
