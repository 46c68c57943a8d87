//! The `vivamo` binary as a process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::JoinHandle;

/// The `vivamo` binary with these arguments and the default settings. `cargo test` puts the path of the binary into the
/// environment.
#[track_caller]
pub fn vivamo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO_BIN_EXE_vivamo").unwrap());
    command.current_dir(folder).args(arguments);
    remove_settings(&mut command);
    command
}

/// Makes an executable copy of a file. The copy is written by another process: if this process wrote it, a child that
/// another test starts could inherit the open file, and the copy could not be executed until the child closes it.
#[track_caller]
pub fn install(file: impl AsRef<Path>, copy: &Path) {
    let status = Command::new("install").args(["-m", "755"]).arg(file.as_ref()).arg(copy).status();
    assert!(status.unwrap().success(), "cannot copy {}", file.as_ref().display());
}

/// Removes the settings that come from the environment of the tests.
pub fn remove_settings(command: &mut Command) {
    for (setting, _) in std::env::vars_os() {
        if setting == "DATABASE_URL" || setting.to_string_lossy().starts_with("VIVAMO_") {
            command.env_remove(setting);
        }
    }
}

/// A running server. It is killed when this value is dropped.
pub struct Running {
    process: Child,
    /// Adds the log of the server to the log of the tests.
    log: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Running {
    /// Starts a server on a free port and waits until it listens. Returns the server and its URL.
    #[track_caller]
    pub fn start(command: &mut Command) -> (Self, String) {
        let (running, url, _) = Self::start_with_log(command);
        (running, url)
    }

    /// Starts a server as [`start`](Self::start) does, and also returns the log so far.
    #[track_caller]
    pub fn start_with_log(command: &mut Command) -> (Self, String, String) {
        let (mut running, url, log, rest) = Self::start_with_unread_log(command);
        crate::logs::add(&log);
        running.log = Some(crate::logs::add_in_background(rest));
        (running, url, log)
    }

    /// Starts a server as [`start`](Self::start) does, and also returns the log so far, and the rest of the log, which
    /// nobody reads yet.
    #[track_caller]
    pub fn start_with_unread_log(command: &mut Command) -> (Self, String, String, BufReader<ChildStderr>) {
        let child = command.env("VIVAMO_LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut running = Self { process: child.unwrap(), log: None };
        let mut rest = BufReader::new(running.process.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("listening on") {
            assert_ne!(rest.read_line(&mut log).unwrap(), 0, "the server ended: {log}");
        }
        let address = log.split("listening on http://").nth(1).unwrap();
        let address: String =
            address.chars().take_while(|char| char.is_ascii_digit() || ".:".contains(*char)).collect();
        (running, format!("http://{address}"), log, rest)
    }

    /// Starts a server as [`start`](Self::start) does, and also returns the URL of its metrics.
    #[track_caller]
    pub fn start_with_metrics(command: &mut Command) -> (Self, String, String) {
        let (running, url, log) = Self::start_with_log(command.env("VIVAMO_METRICS", "127.0.0.1:0"));
        let metrics = log.split("metrics on ").nth(1).unwrap().split_whitespace().next().unwrap();
        (running, url, metrics.to_owned())
    }

    /// The process id.
    pub fn id(&self) -> String {
        self.process.id().to_string()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.id()]).status().unwrap().success());
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        assert!(Command::new("kill").args(["-KILL", &self.id()]).status().unwrap().success());
    }

    /// Stops the server, asserts that it succeeds, and returns its standard output. The log of the tests then contains
    /// the whole log of the server.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.terminate();
        assert!(self.process.wait().unwrap().success());
        self.log.take().unwrap().join().unwrap();
        std::io::read_to_string(self.process.stdout.take().unwrap()).unwrap()
    }
}
