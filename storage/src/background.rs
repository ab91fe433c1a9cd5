//! Threads that work for data cores, and do not get in their way.
//!
//! Where no core is idle, the kernel would let a thread that is woken interrupt the worker that has just woken it, and keep it
//! away for milliseconds. A thread of the policy `SCHED_BATCH` gets its share of the core all the same, but only when the worker has
//! used up its own. The median of `tidemill-bench checkpoint stall`, with two workers on two cores, fell from 34 to 16 µs.
//!
//! What others wait for does not stand back: with the thread that coordinates checkpoints nine of ten barriers held their task up for
//! less than 35 µs, but rows became visible a third later, as each of its steps waited for a tick of the kernel.
//!
//! Unsafe leaf: no library has the call.
#![allow(unsafe_code)]

use rustix::process::setpriority_process;

/// How far a thread that writes much stands back. Measured by `tidemill-bench checkpoint stall`; at 19 it would not keep up with
/// the checkpoints.
const NICE: i32 = 10;

/// Has the calling thread, and those that it starts, wait for their turn instead of interrupting others. A refusal only costs latency.
pub fn stand_back() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, and the kernel reads the parameters before the call returns.
    let _refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}

/// As [`stand_back`], and of less weight, where no core is idle: for threads that write what data cores have sealed.
pub fn stand_far_back() {
    stand_back();
    // On Linux that is this thread alone. Refusal only costs latency.
    let _ = setpriority_process(None, NICE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_thread_stands_back_and_no_other() {
        let policy = || {
            // SAFETY: 0 is the calling thread.
            unsafe { libc::sched_getscheduler(0) }
        };
        let before = policy();
        let inside = std::thread::spawn(move || {
            stand_back();
            policy()
        });
        assert_eq!(inside.join().unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }
}
