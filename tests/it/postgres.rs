//! A PostgreSQL to test on: the one that is named or runs already, else one that is started here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait, Database};
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
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is missing, and CI must not skip it");
            eprintln!("SKIPPED: the tests on PostgreSQL, because none runs and none is installed");
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
    let binaries = binaries()?;
    let folder = std::env::temp_dir().join("vivamo-test-postgres");
    let data = folder.join("data");
    std::fs::create_dir_all(&folder).ok()?;
    if is_root() {
        run(Command::new("chown").arg("postgres").arg(&folder))?;
    }
    if !data.exists() {
        let mut initdb = as_postgres(&binaries.join("initdb"));
        run(initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "--pgdata"]).arg(&data))?;
    }
    let settings = format!(
        "-p {PORT} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c max_connections=200"
    );
    let mut start = as_postgres(&binaries.join("pg_ctl"));
    run(start.args(["start", "-w", "-D"]).arg(&data).arg("-l").arg(folder.join("log")).args(["-o", &settings]))?;
    answers(&server).await.then_some(server)
}

/// The newest PostgreSQL that is installed.
fn binaries() -> Option<PathBuf> {
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let of_debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut of_debian: Vec<_> = of_debian.map(|version| version.path().join("bin")).collect();
    of_debian.sort();
    of_debian.into_iter().rev().chain(on_path).find(|folder| folder.join("initdb").exists())
}

/// PostgreSQL does not run as root.
fn as_postgres(program: &Path) -> Command {
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
