//! What the kernel counts about threads: CPU time and sleeps, read from `/proc`.

use std::{
    fs, io,
    iter::Sum,
    path::{Path, PathBuf},
    time::Duration,
};

/// `ESRCH`.
const NO_SUCH_PROCESS: i32 = 3;

/// The calling thread's directory, by which other threads find it. Empty where there is none.
pub fn this_thread() -> PathBuf {
    fs::read_link("/proc/thread-self").map(|link| PathBuf::from("/proc").join(link)).unwrap_or_default()
}

/// How often the thread with this directory gave up its core by itself, that is slept, while it lives.
pub fn sleeps_of(thread: &Path) -> Option<u64> {
    let status = fs::read_to_string(thread.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

/// The same over all threads of this process that live and whose name begins with `prefix`.
///
/// # Errors
/// When the kernel does not tell.
pub fn sleeps_of_threads(prefix: &str) -> io::Result<u64> {
    each_thread(|thread| {
        let named = fs::read_to_string(thread.join("comm"))?.starts_with(prefix);
        Ok(if named { sleeps_of(thread).unwrap_or_default() } else { 0 })
    })
}

/// CPU time of the thread with this directory, exact to the nanosecond.
fn cpu_time_of(thread: &Path) -> io::Result<Duration> {
    let text = fs::read_to_string(thread.join("schedstat"))?;
    let first = text.split_whitespace().next().unwrap_or_default();
    Ok(Duration::from_nanos(first.parse().map_err(io::Error::other)?))
}

/// CPU time of all threads of this process that live: it falls when one of them ends.
///
/// # Errors
/// When the kernel does not tell (`CONFIG_SCHED_INFO` is off, or there is no `/proc`).
pub fn cpu_time_of_this_process() -> io::Result<Duration> {
    each_thread(cpu_time_of)
}

/// The sum over the threads of this process, without those that end while they are looked at: their files are gone by then.
fn each_thread<T: Sum>(mut read: impl FnMut(&Path) -> io::Result<T>) -> io::Result<T> {
    fs::read_dir("/proc/self/task")?
        .map(|thread| read(&thread?.path()))
        .filter(|read| !read.as_ref().is_err_and(has_ended))
        .sum()
}

/// Whether a file of a thread could not be read because the thread is no more: before it was opened, or since.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::Instant,
    };

    #[test]
    fn a_sleep_is_counted_and_work_takes_cpu_time() {
        let me = this_thread();
        let before = cpu_time_of(&me).unwrap();
        let sleeps = sleeps_of(&me).unwrap();
        thread::sleep(Duration::from_millis(1));
        assert!(sleeps_of(&me).unwrap() > sleeps);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(5) {}
        // Of this thread: those of other tests end when they will.
        assert!(cpu_time_of(&me).unwrap() > before);
        assert!(cpu_time_of_this_process().unwrap() > Duration::ZERO);
    }
    #[test]
    fn threads_that_end_meanwhile_are_left_out() {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    thread::spawn(|| ()).join().unwrap();
                }
            });
            for _ in 0..500 {
                cpu_time_of_this_process().unwrap();
                sleeps_of_threads("tidemill").unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
