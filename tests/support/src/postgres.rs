//! A PostgreSQL to test on: the one that is named or runs already, else one that is started here.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait, Database};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// `postgres://…` without a database; `None` where there is no PostgreSQL at all.
pub async fn server() -> Option<&'static str> {
    static SERVER: OnceCell<Option<String>> = OnceCell::const_new();
    let server = SERVER.get_or_init(async || {
        if let Ok(named) = std::env::var("VIVAMO_TEST_POSTGRES") {
            assert!(answers(&named).await, "VIVAMO_TEST_POSTGRES does not answer");
            return Some(named);
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

pub async fn execute(database_url: &str, sql: &str) -> Result<(), sea_orm::DbErr> {
    let mut options = ConnectOptions::new(database_url);
    // Where nobody listens there is nothing to wait for.
    options.max_connections(1).acquire_timeout(Duration::from_secs(3)).sqlx_logging(false);
    let connection = Database::connect(options).await?;
    connection.execute_unprepared(sql).await?;
    connection.close().await
}

async fn answers(server: &str) -> bool {
    execute(&format!("{server}/postgres"), "SELECT 1").await.is_ok()
}

/// Starts a server out of the installed binaries, in a folder of its own. It ends with the next reboot at the latest;
/// a later run of the tests finds it by its port and uses it again.
async fn start() -> Option<String> {
    const PORT: u16 = 55432;
    let server = format!("postgres://postgres@127.0.0.1:{PORT}");
    if answers(&server).await {
        return Some(server);
    }
    let cluster = Cluster::at(std::env::temp_dir().join("vivamo-test-postgres"), PORT)?;
    if !cluster.data().exists() {
        cluster.initialise()?;
    }
    cluster.start("-c fsync=off")?;
    answers(&server).await.then_some(server)
}

/// A PostgreSQL whose life is in our hands.
pub struct Cluster {
    binaries: PathBuf,
    folder: PathBuf,
    pub port: u16,
}

impl Cluster {
    /// In this folder, on this port; `None` where PostgreSQL is not installed.
    pub fn at(folder: PathBuf, port: u16) -> Option<Self> {
        let binaries = binaries()?;
        std::fs::create_dir_all(&folder).ok()?;
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder))?;
        }
        Some(Self { binaries, folder, port })
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn program(&self, name: &str) -> Command {
        as_postgres(&self.binaries.join(name))
    }

    pub fn initialise(&self) -> Option<()> {
        run(self
            .program("initdb")
            .args(["--auth=trust", "--username=postgres", "--no-sync", "--pgdata"])
            .arg(self.data()))
    }

    /// Makes this a copy of another cluster, which follows it.
    pub fn follow(&self, primary: &Self) -> Option<()> {
        let connection = format!("host=127.0.0.1 port={} user=postgres", primary.port);
        run(self
            .program("pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", &connection, "--pgdata"])
            .arg(self.data()))
    }

    pub fn start(&self, settings: &str) -> Option<()> {
        let settings = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 {settings}",
            self.port
        );
        let log = self.folder.join("log");
        run(self
            .program("pg_ctl")
            .args(["start", "-w", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(log)
            .args(["-o", &settings]))
    }

    /// Whether it was started and not stopped.
    pub fn is_running(&self) -> bool {
        self.data().join("postmaster.pid").exists()
    }

    /// Ends it, at once or after it has told its clients.
    pub fn stop(&self, mode: &str) -> Option<()> {
        run(self.program("pg_ctl").args(["stop", "-w", "-m", mode, "-D"]).arg(self.data()))
    }

    /// Makes a copy that follows another cluster one that takes writes.
    pub fn promote(&self) -> Option<()> {
        run(self.program("pg_ctl").args(["promote", "-w", "-D"]).arg(self.data()))
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}", self.port)
    }
}

/// The newest PostgreSQL that is installed.
fn binaries() -> Option<PathBuf> {
    let of_debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut of_debian: Vec<_> = of_debian.map(|version| version.path().join("bin")).collect();
    of_debian.sort();
    of_debian.into_iter().rev().chain(path()).find(|folder| folder.join("initdb").exists())
}

/// Where a program of Debian's is installed, some of which are for administrators alone.
pub fn find(program: &str) -> Option<PathBuf> {
    path().chain([PathBuf::from("/usr/sbin")]).map(|folder| folder.join(program)).find(|file| file.exists())
}

fn path() -> impl Iterator<Item = PathBuf> {
    std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
}

/// A folder for a program that does not run as root, which ends with the test.
pub fn folder() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// PostgreSQL and pgbouncer do not run as root.
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

/// Projection what was not tested for want of a program. CI must not skip anything.
pub fn skip(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what}: a program is missing, and CI must not skip it");
    eprintln!("SKIPPED: {what}, because a program that it needs is not installed");
}
