//! A socket by which other processes of the same user speak with a job: a line in, a line out.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// A longer line is not read.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Others that are spoken with at once.
const TALKS_MAX: usize = 16;
/// Whoever connects has to say something within this time.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A socket that is listened on, until it is dropped.
pub struct ControlSocket {
    directory: PathBuf,
    name: &'static str,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    talks: Talks,
}

/// Those that are being spoken with.
type Talks = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// A path to a socket that is short enough whatever the directory's is: the system takes 107 bytes.
fn short(directory: &fs::File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

impl ControlSocket {
    /// Listens at `name` in a directory that nobody else listens in; only this user may connect. `answer` gets each line, on a thread
    /// of its own, and may block.
    ///
    /// # Errors
    /// Of the system.
    pub fn listen(
        directory: &Path,
        name: &'static str,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            // Left by a process that was killed.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let opened = fs::File::open(directory)?;
        let listener = UnixListener::bind(short(&opened, name))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let answer = Arc::new(answer);
        let talks = Talks::default();
        let spoken = Arc::clone(&talks);
        let run = move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let mut spoken = spoken.lock().unwrap_or_else(PoisonError::into_inner);
                spoken.retain(|talk| !talk.is_finished());
                if spoken.len() >= TALKS_MAX {
                    continue;
                }
                let answer = Arc::clone(&answer);
                let talk = move || {
                    // Whoever asks may be gone before the answer is there.
                    let _ = talk(stream, &*answer);
                };
                // Without a thread to answer, whoever asks finds the connection closed.
                spoken.extend(thread::Builder::new().name("tidemill-talk".into()).spawn(talk));
            }
        };
        let thread = thread::Builder::new().name("tidemill-listen".into()).spawn(run)?;
        Ok(Self { directory: directory.to_owned(), name, stop, thread: Some(thread), talks })
    }
}

fn talk(stream: UnixStream, answer: &dyn Fn(&str) -> String) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let mut line = String::new();
    BufReader::new((&stream).take(LINE_BYTES_MAX)).read_line(&mut line)?;
    let mut said = answer(line.trim_end());
    said.push('\n');
    (&stream).write_all(said.as_bytes())
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread, which then sees that it is to stop.
        let woken = connect(&self.directory, self.name).is_ok();
        let _gone = fs::remove_file(self.directory.join(self.name));
        if woken {
            self.thread.take().map(JoinHandle::join);
        }
        // What was asked is answered before the process may end.
        let talks = std::mem::take(&mut *self.talks.lock().unwrap_or_else(PoisonError::into_inner));
        talks.into_iter().for_each(|talk| drop(talk.join()));
    }
}

fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let directory = fs::File::open(directory)?;
    UnixStream::connect(short(&directory, name))
}

/// Says a line to the job that listens at `name` in a directory; returns its answer.
///
/// # Errors
/// When nobody listens there, and of the system.
pub fn ask(directory: &Path, name: &str, line: &str) -> io::Result<String> {
    let mut stream = connect(directory, name)?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut answer)?;
    if answer.is_empty() {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(answer.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_answered_in_a_directory_of_any_depth_until_the_socket_is_dropped() {
        let place = tempfile::tempdir().unwrap();
        let deep = place.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        // Left by a process that was killed.
        fs::write(deep.join("control"), "").unwrap();
        let socket = ControlSocket::listen(&deep, "control", |line| line.to_uppercase()).unwrap();
        assert_eq!(ask(&deep, "control", "hello").unwrap(), "HELLO");
        assert_eq!(ask(&deep, "control", "again").unwrap(), "AGAIN");
        let mode = fs::metadata(deep.join("control")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(ask(&deep, "control", "hello").is_err());
        assert!(!deep.join("control").exists());
    }
}
