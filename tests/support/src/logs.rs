//! The log of the service under test: written to a file, and searched for personal data, keys and SQL.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, Once};
use std::thread::JoinHandle;

use entity::deployment::Environment;
use vivamo::telemetry;

use crate::app::PLATFORM_KEY;

static LOG: LazyLock<Mutex<Log>> = LazyLock::new(|| {
    let path = path();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    Mutex::new(Log { file: File::create(path).unwrap(), leaks: Vec::new() })
});

/// The path of the log: `target/tmp/it.log` for the test binary `target/debug/deps/it-0123456789abcdef`.
fn path() -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    let name = binary.file_stem().unwrap().to_str().unwrap().split('-').next().unwrap();
    binary.ancestors().nth(3).unwrap().join("tmp").join(name).with_extension("log")
}

/// Returns the number of bytes that were logged so far, by all tests of this run.
pub fn length() -> u64 {
    // Replaces the log of the previous run, if nothing was logged yet.
    LazyLock::force(&LOG);
    std::fs::metadata(path()).unwrap().len()
}

/// Reads what was logged after the first `length` bytes, by all tests of this run. See also
/// [`TestApp::log`](crate::TestApp::log).
pub fn read_after(length: u64) -> String {
    let (mut file, mut bytes) = (File::open(path()).unwrap(), Vec::new());
    file.seek(SeekFrom::Start(length)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    // The first byte may be in the middle of a character of another test.
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Log {
    file: File,
    leaks: Vec<String>,
}

impl Log {
    fn add(&mut self, line: &str) {
        self.file.write_all(line.as_bytes()).unwrap();
        if is_leak(line) {
            self.leaks.push(line.to_owned());
        }
    }
}

/// True if a line contains a typical part of a test customer's values, a key, an SQL keyword, or one of the table names
/// below.
pub fn is_leak(line: &str) -> bool {
    const FORBIDDEN: [&str; 19] = [
        "@",
        "vivamo_sandbox_",
        "vivamo_production_",
        PLATFORM_KEY,
        "Ada",
        "Lovelace",
        "O'Brien",
        "Main St",
        "SELECT",
        "INSERT",
        "UPDATE ",
        "DELETE ",
        "customer_operator",
        "customer_event",
        "customer_change",
        "customer_word",
        "admin_event",
        "api_key",
        "idempotency_key",
    ];
    // PostgreSQL names the kind of the statement that a read-only database rejects. The name is not the statement.
    let line = &line.replace("cannot execute SELECT in a read-only transaction", "");
    let is_phone = |digits: &str| digits.chars().take_while(char::is_ascii_digit).count() >= 7;
    FORBIDDEN.iter().any(|text| line.contains(text)) || line.split('+').skip(1).any(is_phone)
}

/// Adds the written bytes to [`LOG`]. tracing-subscriber writes each event in one call.
#[derive(Clone, Copy)]
struct Writer;

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().add(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts logging in this process, in the format of production and at level debug.
pub fn start() {
    static START: Once = Once::new();
    START.call_once(|| {
        let filter = "debug,hyper_util=info,reqwest=info,sqlx=warn".parse().unwrap();
        telemetry::log_to(|| Writer, filter, Environment::Production).unwrap();
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            telemetry::log_panic(panic);
            default_hook(panic);
        }));
    });
}

/// Adds the remaining log of another process, in a thread that ends when the log ends.
pub fn add_in_background(logs: BufReader<impl Read + Send + 'static>) -> JoinHandle<()> {
    std::thread::spawn(move || logs.lines().map_while(Result::ok).for_each(|line| add(&(line + "\n"))))
}

/// Adds lines of the log of another process.
pub fn add(lines: &str) {
    LOG.lock().unwrap().add(lines);
}

/// Asserts that nothing forbidden was logged since the last call. All tests of a run write to one log, so another test
/// may have logged the forbidden text.
pub fn assert_clean() {
    let leaks = std::mem::take(&mut LOG.lock().unwrap().leaks);
    assert!(leaks.is_empty(), "the log contains forbidden text: {leaks:?}");
}
