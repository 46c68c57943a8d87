//! Two processes that reach PostgreSQL through PgBouncer in session mode.

use std::path::Path;
use std::process::{Child, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::servers::Servers;
use support::postgres::{self, as_postgres};
use support::{TestDatabase, wait_until};

/// A running PgBouncer. The process is stopped when this value is dropped.
struct Pgbouncer {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Pgbouncer {
    async fn start(program: &Path, postgres_port: u16) -> Self {
        let (folder, port) = (postgres::folder(), postgres::free_port());
        let settings = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={postgres_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = session\ndefault_pool_size = 40\n\
             ignore_startup_parameters = extra_float_digits\n"
        );
        std::fs::write(&settings, text).unwrap();
        let process = as_postgres(program).arg(&settings).stderr(Stdio::null()).spawn().unwrap();
        let pgbouncer = Self { process, port, _folder: folder };
        let connect = async || TcpStream::connect(("127.0.0.1", port)).await.ok();
        wait_until("PgBouncer accepts connections", connect).await;
        pgbouncer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_behind_pgbouncer_behave_like_the_model() {
    let Some(server) = postgres::server().await else { return };
    let Some(program) = postgres::find("pgbouncer") else { return postgres::skip("the test with PgBouncer") };
    let test_database = TestDatabase::create_on(server, None).await;
    let mut url = reqwest::Url::parse(&test_database.url).unwrap();
    let pgbouncer = Pgbouncer::start(&program, url.port().unwrap_or(5432)).await;
    url.set_port(Some(pgbouncer.port)).unwrap();
    let servers = Servers::start_on(test_database, url.into(), 2).await;
    crate::model::run("two processes behind PgBouncer", servers, 5000).await;
}
