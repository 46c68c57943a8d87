//! The PostgreSQL for the tests: the server in `VIVAMO_TEST_POSTGRES`, otherwise a running server on port 5432,
//! otherwise a server that is started from the installed binaries. Tests can also start clusters of their own.

use std::fs::Permissions;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait, Database};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The URL of the server, without a database. Returns `None` if PostgreSQL is not installed.
pub async fn server() -> Option<&'static str> {
    static SERVER: OnceCell<Option<String>> = OnceCell::const_new();
    let server = SERVER.get_or_init(async || {
        if let Ok(configured) = std::env::var("VIVAMO_TEST_POSTGRES") {
            assert!(answers(&configured).await, "VIVAMO_TEST_POSTGRES does not answer");
            return Some(configured);
        }
        let local = "postgres://postgres@127.0.0.1:5432".to_owned();
        if answers(&local).await {
            return Some(local);
        }
        let started = start().await;
        if started.is_none() {
            skip("the tests on PostgreSQL");
        }
        started
    });
    server.await.as_deref()
}

/// Runs statements on a new connection, without the service.
pub async fn execute(database_url: &str, sql: &str) -> Result<(), sea_orm::DbErr> {
    execute_within(Duration::from_secs(60), database_url, sql).await
}

/// Runs statements like [`execute`]. `connect_timeout` is the time for which it tries to connect, also if the server
/// refuses connections.
async fn execute_within(connect_timeout: Duration, database_url: &str, sql: &str) -> Result<(), sea_orm::DbErr> {
    let mut options = ConnectOptions::new(database_url);
    options.max_connections(1).acquire_timeout(connect_timeout).sqlx_logging(false);
    let connection = Database::connect(options).await?;
    connection.execute_unprepared(sql).await?;
    connection.close().await
}

/// Returns statements that create a trigger: each row for which the condition holds waits for [`LOCK`], without a
/// timeout. `event` is for example `INSERT ON customer`.
pub fn waiting_trigger(event: &str, condition: &str) -> String {
    format!(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM set_config('lock_timeout', '0', true); PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$; \
         CREATE TRIGGER wait BEFORE {event} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION wait()"
    )
}

/// Takes the lock for which [`waiting_trigger`] waits, until the transaction ends.
pub const LOCK: &str = "SELECT pg_advisory_xact_lock(1)";

async fn answers(server: &str) -> bool {
    execute_within(Duration::from_secs(3), &format!("{server}/postgres"), "SELECT 1").await.is_ok()
}

/// Starts a server from the installed binaries. The server keeps running, and later test runs use it again.
async fn start() -> Option<String> {
    const PORT: u16 = 15432;
    let server = format!("postgres://postgres@127.0.0.1:{PORT}");
    if answers(&server).await {
        return Some(server);
    }
    let cluster = Cluster::at(std::env::temp_dir().join("vivamo-test-postgres"), PORT)?;
    if !cluster.data().exists() {
        cluster.initialise().expect("initdb succeeds");
    }
    cluster.start("-c fsync=off").expect("the installed PostgreSQL starts");
    assert!(answers(&server).await, "the installed PostgreSQL was started and does not answer");
    Some(server)
}

/// A PostgreSQL cluster that a test starts and stops.
pub struct Cluster {
    binaries: PathBuf,
    folder: PathBuf,
    pub port: u16,
}

impl Cluster {
    /// A cluster in this folder, on this port. Returns `None` if PostgreSQL is not installed.
    pub fn at(folder: PathBuf, port: u16) -> Option<Self> {
        let binaries = binaries()?;
        std::fs::create_dir_all(&folder).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder)).expect("the user postgres exists");
        }
        Some(Self { binaries, folder, port })
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The path of the log of the server.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn program(&self, name: &str) -> Command {
        as_postgres(&self.binaries.join(name))
    }

    /// Creates the data directory with initdb.
    pub fn initialise(&self) -> Option<()> {
        run(self
            .program("initdb")
            .args(["--auth=trust", "--username=postgres", "--no-sync", "--pgdata"])
            .arg(self.data()))
    }

    /// Makes this cluster a standby of another cluster.
    fn follow(&self, primary: &Self) -> Option<()> {
        let connection = format!("host=127.0.0.1 port={} user=postgres", primary.port);
        run(self
            .program("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", &connection, "--pgdata"])
            .arg(self.data()))
    }

    /// Starts the server and a standby. The server acknowledges a commit only after the standby has the commit.
    pub async fn start_with_standby(&self, standby: &Self) -> Option<()> {
        self.start("")?;
        standby.follow(self)?;
        standby.start("")?;
        for sql in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
            execute(&format!("{}/postgres", self.url()), sql).await.ok()?;
        }
        Some(())
    }

    /// Starts the server. `settings` are further options, for example `-c fsync=off`.
    pub fn start(&self, settings: &str) -> Option<()> {
        let settings = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 {settings}",
            self.port
        );
        run(self
            .program("pg_ctl")
            .args(["start", "-w", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.log())
            .args(["-o", &settings]))
    }

    /// True if the server was started and not stopped.
    pub fn is_running(&self) -> bool {
        self.data().join("postmaster.pid").exists()
    }

    /// Stops the server. `mode` is `fast` or `immediate`.
    pub fn stop(&self, mode: &str) -> Option<()> {
        run(self.program("pg_ctl").args(["stop", "-w", "-m", mode, "-D"]).arg(self.data()))
    }

    /// Makes a standby the primary.
    pub fn promote(&self) -> Option<()> {
        run(self.program("pg_ctl").args(["promote", "-w", "-D"]).arg(self.data()))
    }

    /// Makes this number the next transaction id of the stopped server. The number must be a multiple of 2^20, because
    /// each file in `pg_xact` holds the states of 2^20 transactions. The file of the next transaction must exist, so
    /// this method creates the file.
    pub fn set_next_transaction(&self, id: u32) -> Option<()> {
        let states = self.data().join("pg_xact").join(format!("{:04X}", id >> 20));
        run(as_postgres(Path::new("truncate")).arg("--size=256K").arg(states))?;
        run(self.program("pg_resetwal").args(["--next-transaction-id", &id.to_string(), "--pgdata"]).arg(self.data()))
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}", self.port)
    }
}

/// A PostgreSQL cluster in its own folder. The cluster is stopped when this value is dropped.
pub struct OwnCluster {
    pub cluster: Cluster,
    _folder: TempDir,
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        if self.cluster.is_running() {
            self.cluster.stop("immediate");
        }
    }
}

/// A new cluster that only this test uses. Returns `None` if PostgreSQL is not installed.
pub fn own_cluster() -> Option<OwnCluster> {
    let folder = folder();
    let cluster = Cluster::at(folder.path().join("postgres"), free_port());
    if cluster.is_none() {
        skip("a test that starts its own PostgreSQL");
    }
    Some(OwnCluster { cluster: cluster?, _folder: folder })
}

/// The folder with `initdb`: of the newest PostgreSQL that Debian's packages have installed, otherwise the first one in
/// `PATH`.
fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.into_iter().rev().chain(path()).find(|folder| folder.join("initdb").exists())
}

/// The path of an installed program. Debian installs some programs in /usr/sbin, which is not in every PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    path().chain([PathBuf::from("/usr/sbin")]).map(|folder| folder.join(program)).find(|file| file.exists())
}

fn path() -> impl Iterator<Item = PathBuf> {
    std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
}

/// A temporary folder that other users can enter, for programs that do not run as root.
pub fn folder() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// A port that is not in use, for a process that this test starts. The ports are below the range from which systems
/// take the local ports of connections. A port of that range may be in use by a connection when the process starts.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_768;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time begin with different ports.
    let mut ports = (0..COUNT).map(|_| {
        let number = std::process::id().wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        u16::try_from(FIRST + number % COUNT).unwrap()
    });
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// A command that runs as the user postgres if the tests run as root, because PostgreSQL and PgBouncer refuse to run as
/// root.
pub fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir("/");
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.starts_with(b"0\n"))
}

fn run(command: &mut Command) -> Option<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().ok()?;
    status.success().then_some(())
}

/// Reports that a test was skipped because a program is not installed. Panics in CI, which must not skip anything.
pub fn skip(test: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test}: a program is not installed, and CI must not skip tests");
    // The test runner hides the output of `eprintln!` if the test passes, but not a direct write.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}, because a program that it needs is not installed");
}
