//! A PostgreSQL server of their own for tests and benchmarks: made in a directory that goes with it, reached by a socket there,
//! stopped, killed and started again at will.
//!
//! The server is a child of this process, and whatever it says comes over a pipe that its own children inherit. So nothing is
//! waited for by the clock: it is up when it says so, and gone when the pipe is closed, which is when the last of its processes is.

mod error;
mod installed;

use std::{
    env,
    io::{BufRead, BufReader},
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use ::postgres::NoTls;
pub use ::postgres::{Client, Row};
use tempfile::TempDir;

pub use self::error::ServerError;
use self::installed::Installed;

/// By then a server has done what it was told to, or hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a server says when it takes connections.
const READY: &str = "database system is ready to accept connections";
/// Lines that are shown of what a server said before it failed.
const SHOWN_MAX: usize = 10;

/// Set to `1` where a server has to be there, as in the gate: tests that would be skipped without one fail.
const REQUIRED_VARIABLE: &str = "TIDEMILL_POSTGRES_REQUIRED";

/// A server. Stopped and removed when it is dropped.
pub struct PostgresServer {
    directory: TempDir,
    installed: Installed,
    prepared_max: usize,
    running: Option<Running>,
}

/// The process, and what it says.
struct Running {
    process: Child,
    said: mpsc::Receiver<String>,
}

impl PostgresServer {
    /// Makes a server with this many prepared transactions at most (`max_prepared_transactions`), and starts it.
    ///
    /// # Errors
    /// [`ServerError::NotInstalled`] where there is none to start; else whatever keeps it from starting.
    pub fn start(prepared_max: usize) -> Result<Self, ServerError> {
        let installed = Installed::find()?;
        let directory = TempDir::with_prefix("tidemill-postgres-")?;
        if let Some((user, group)) = installed.runs_as {
            chown(directory.path(), Some(user), Some(group))?;
        }
        let mut server = Self { directory, installed, prepared_max, running: None };
        let data = server.data();
        server.call("initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "--locale=C", "--no-sync"])?;
        server.up()?;
        Ok(server)
    }

    /// As [`start`](Self::start); `None`, with a word about it, where no server is installed, so that tests can be skipped there. With
    /// `TIDEMILL_POSTGRES_REQUIRED=1` in the environment that is an error.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub fn start_if_installed(prepared_max: usize) -> Result<Option<Self>, ServerError> {
        let is_required = env::var(REQUIRED_VARIABLE).is_ok_and(|value| value == "1");
        unless_missing(Self::start(prepared_max), is_required)
    }

    fn place(&self) -> &Path {
        self.directory.path()
    }

    fn data(&self) -> String {
        self.place().join("data").display().to_string()
    }

    /// One of the server's programs, as the user that it may run as.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.installed.programs.join(program));
        command.current_dir(self.place()).stdin(Stdio::null());
        if let Some((user, group)) = self.installed.runs_as {
            command.uid(user).gid(group);
        }
        command
    }

    fn call(&self, program: &'static str, arguments: &[&str]) -> Result<(), ServerError> {
        let output = self.command(program).args(arguments).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(ServerError::Failed { program, said: String::from_utf8_lossy(&output.stderr).into_owned() })
    }

    /// Starts it again, with what was committed before; returns when it takes connections. Nothing is done if it is up.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn up(&mut self) -> Result<(), ServerError> {
        if self.running.is_some() {
            return Ok(());
        }
        let settings = [
            format!("max_prepared_transactions={}", self.prepared_max),
            format!("unix_socket_directories={}", self.place().display()),
            "listen_addresses=".to_owned(),
            // Processes are killed here, not machines: the page cache survives.
            "fsync=off".to_owned(),
        ];
        let mut command = self.command("postgres");
        command.args(["-D", &self.data()]).stdout(Stdio::null()).stderr(Stdio::piped());
        command.args(settings.iter().flat_map(|setting| ["-c", setting]));
        let mut process = command.spawn()?;
        let said = listen(process.stderr.take());
        let running = self.running.insert(Running { process, said });
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while let Ok(line) = running.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains(READY) {
                return Ok(());
            }
            lines.push(line);
        }
        let from = lines.len().saturating_sub(SHOWN_MAX);
        let said = lines[from..].join("\n");
        // It did not come up: what is left of it goes.
        drop(self.kill());
        Err(ServerError::Failed { program: "postgres", said })
    }

    /// Whether it was started, and not stopped or killed since.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Stops it: sessions are ended and told so.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&mut self) -> Result<(), ServerError> {
        self.stop_as("fast")
    }

    fn stop_as(&mut self, mode: &str) -> Result<(), ServerError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        self.call("pg_ctl", &["-D", &self.data(), "-m", mode, "-w", "stop"])?;
        running.wait_until_gone()
    }

    /// Kills it with `SIGKILL`; returns when all its processes are gone. What it had prepared or committed is there when it is
    /// up again.
    ///
    /// # Errors
    /// When some of its processes stay.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.process.kill()?;
        running.wait_until_gone()
    }

    /// How to connect to it.
    pub fn connection(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.place().display())
    }

    /// A session of its own, for what takes more than one step.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn session(&self) -> Result<Client, ServerError> {
        Ok(Client::connect(&self.connection(), NoTls)?)
    }

    /// Executes statements over a connection of their own.
    ///
    /// # Errors
    /// When it is down, or refuses.
    pub fn execute(&self, statements: &str) -> Result<(), ServerError> {
        Ok(self.session()?.batch_execute(statements)?)
    }

    /// The rows of a query over a connection of its own.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn query(&self, query: &str) -> Result<Vec<Row>, ServerError> {
        Ok(self.session()?.query(query, &[])?)
    }

    /// The only figure that a query gives.
    ///
    /// # Errors
    /// As [`execute`](Self::execute), and when there is another number of rows than one.
    pub fn figure(&self, query: &str) -> Result<i64, ServerError> {
        Ok(self.session()?.query_one(query, &[])?.try_get(0)?)
    }

    /// How many prepared transactions wait to be committed or rolled back.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn prepared_transactions(&self) -> Result<i64, ServerError> {
        self.figure("SELECT count(*) FROM pg_prepared_xacts")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // What cannot be stopped cannot be mended here either.
        if self.stop_as("immediate").is_err() {
            let _ = self.kill();
        }
    }
}

impl Running {
    fn wait_until_gone(mut self) -> Result<(), ServerError> {
        self.process.wait()?;
        let end = Instant::now() + PATIENCE;
        loop {
            match self.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(ServerError::Stays { after: PATIENCE }),
            }
        }
    }
}

/// Reads what a server says on a thread, so that its pipe is never full. Ends with the last of its processes.
fn listen(pipe: Option<ChildStderr>) -> mpsc::Receiver<String> {
    let (heard, said) = mpsc::channel();
    thread::spawn(move || {
        for line in pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()).map_while(Result::ok) {
            // Nobody listens to a server that is up.
            let _ = heard.send(line);
        }
    });
    said
}

/// A server that was started, or `None` if there is none to start and that is allowed.
fn unless_missing<S>(started: Result<S, ServerError>, is_required: bool) -> Result<Option<S>, ServerError> {
    match started {
        Err(error @ ServerError::NotInstalled) if !is_required => {
            eprintln!("skipped: {error}");
            Ok(None)
        }
        started => started.map(Some),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_installed_is_passed_over_unless_it_is_required() {
        let missing = || Err::<(), _>(ServerError::NotInstalled);
        assert!(matches!(unless_missing(missing(), false), Ok(None)));
        assert!(matches!(unless_missing(missing(), true), Err(ServerError::NotInstalled)));
        assert!(matches!(unless_missing(Err::<(), _>(ServerError::NoUser), false), Err(ServerError::NoUser)));
        assert!(matches!(unless_missing(Ok(7), true), Ok(Some(7))));
    }

    #[test]
    fn a_server_that_is_killed_comes_back_with_what_was_committed() {
        let Some(mut server) = PostgresServer::start_if_installed(2).unwrap() else { return };
        server.execute("CREATE TABLE t (a bigint); INSERT INTO t VALUES (7)").unwrap();
        let prepare = "BEGIN; INSERT INTO t VALUES (8); PREPARE TRANSACTION 'eight'";
        server.execute(prepare).unwrap();
        for stop in [PostgresServer::kill, PostgresServer::stop] {
            stop(&mut server).unwrap();
            assert!(server.execute("SELECT 1").is_err());
            server.up().unwrap();
            assert_eq!(server.figure("SELECT a FROM t").unwrap(), 7);
            assert_eq!(server.prepared_transactions().unwrap(), 1);
        }
    }
}
