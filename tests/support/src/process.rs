//! The binary as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The `vivamo` binary with these arguments and the default settings. `cargo test` names its path in the environment.
#[track_caller]
pub fn vivamo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO_BIN_EXE_vivamo").unwrap());
    command.current_dir(folder).args(arguments);
    for (setting, _) in std::env::vars_os() {
        if setting == "DATABASE_URL" || setting.to_string_lossy().starts_with("VIVAMO_") {
            command.env_remove(setting);
        }
    }
    command
}

/// A server that runs, until it is dropped.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts a server on a free port, and reads what it logs until it listens.
    pub fn start(command: &mut Command) -> (Self, String) {
        let (running, url, _) = Self::start_and_read(command);
        (running, url)
    }

    /// The same with what it has logged so far.
    pub fn start_and_read(command: &mut Command) -> (Self, String, String) {
        let child = command.env("VIVAMO_LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut running = Self(child.unwrap());
        let mut logs = BufReader::new(running.0.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("listening on") {
            assert_ne!(logs.read_line(&mut log).unwrap(), 0, "the server ended: {log}");
        }
        let address = log.split("listening on http://").nth(1).unwrap();
        let address: String =
            address.chars().take_while(|char| char.is_ascii_digit() || ".:".contains(*char)).collect();
        crate::logs::take(&log);
        // The rest goes on being read, so that the server does not block on a full pipe.
        crate::logs::follow(logs);
        (running, format!("http://{address}"), log)
    }

    pub fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// Asks the server to stop.
    pub fn ask_to_stop(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.id()]).status().unwrap().success());
    }

    /// Ends the server as a loss of power would.
    pub fn kill_now(&self) {
        assert!(Command::new("kill").args(["-KILL", &self.id()]).status().unwrap().success());
    }

    /// Asks the server to stop, and waits for it; what it printed.
    pub fn stop(mut self) -> String {
        self.ask_to_stop();
        assert!(self.0.wait().unwrap().success());
        std::io::read_to_string(self.0.stdout.take().unwrap()).unwrap()
    }
}
