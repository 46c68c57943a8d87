//! Databases for tests: a new SQLite file, or a new database on the PostgreSQL of [`postgres`].

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use tempfile::TempDir;
use uuid::Uuid;
use vivamo::database::Database;

use crate::postgres;
use crate::process::vivamo;

/// The time between two queries of a test that waits for a state of the database. Queries without a pause would slow
/// down what the test waits for.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

pub struct TestDatabase {
    /// `sqlite://FILE` or `postgres://…`
    pub url: String,
    storage: Storage,
}

enum Storage {
    File(#[expect(dead_code, reason = "removes the folder when it is dropped")] TempDir),
    Postgres {
        server: String,
        name: String,
    },
    /// The database is removed by its owner, and not by this value.
    Borrowed,
}

impl TestDatabase {
    /// Creates an empty database. Returns `None` if `backend` is PostgreSQL and PostgreSQL is not installed.
    pub async fn create(backend: Backend) -> Option<Self> {
        match backend {
            Backend::Sqlite => {
                let folder = TempDir::with_prefix("vivamo-test-").unwrap();
                let url = format!("sqlite://{}", folder.path().join("vivamo.db").display());
                Some(Self { url, storage: Storage::File(folder) })
            }
            Backend::Postgres => {
                let isolation = std::env::var("VIVAMO_TEST_ISOLATION").ok();
                Some(Self::create_on(postgres::server().await?, isolation.as_deref()).await)
            }
        }
    }

    /// Creates a database on this PostgreSQL. `isolation` is the default isolation level of its transactions.
    pub async fn create_on(server: &str, isolation: Option<&str>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // The process id alone may be that of an earlier run that was killed and left its databases behind.
        let name = format!("vivamo_test_{}_{number}_{:08x}", std::process::id(), Uuid::new_v4().as_fields().0);
        let execute = async |sql: &str| postgres::execute(&format!("{server}/postgres"), sql).await.unwrap();
        execute(&format!("CREATE DATABASE {name}")).await;
        if let Some(isolation) = isolation {
            execute(&format!("ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")).await;
        }
        Self { url: format!("{server}/{name}"), storage: Storage::Postgres { server: server.to_owned(), name } }
    }

    /// Uses an existing database, and does not remove it.
    pub fn existing(url: String) -> Self {
        Self { url, storage: Storage::Borrowed }
    }

    /// The `vivamo` binary with these arguments, for this database.
    #[track_caller]
    pub fn vivamo(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = vivamo(folder, arguments);
        command.env("DATABASE_URL", &self.url);
        command
    }

    pub async fn remove(self) {
        if let Storage::Postgres { server, name } = self.storage {
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            postgres::execute(&format!("{server}/postgres"), &drop).await.unwrap();
        }
    }
}

/// Waits until the feed shows all committed changes. On PostgreSQL, an open transaction of any test delays the feed.
pub async fn wait_for_feed(database: &Database) {
    let hidden = "SELECT COUNT(*) AS n FROM customer_change WHERE position >= \
                  pg_snapshot_xmin(pg_current_snapshot())::text::bigint + (SELECT feed_base FROM deployment)";
    let is_postgres = database.reader().get_database_backend() == DbBackend::Postgres;
    let started = Instant::now();
    let mut interval = tokio::time::interval(POLL_INTERVAL);
    while is_postgres && select_number(database, hidden).await > 0 {
        assert!(started.elapsed() < Duration::from_secs(300), "an open transaction hides changes from the feed");
        interval.tick().await;
    }
}

/// Returns a statement that adds copies of each history entry, with the type `UPDATED` and the following versions.
pub fn copy_history(database: &Database, copies: u32) -> String {
    let columns =
        "customer_id, operator_id, api_key_id, request_id, 'updated', version + n, before, after, occurred_at";
    let copied = if database.reader().get_database_backend() == DbBackend::Postgres {
        format!("SELECT gen_random_uuid(), {columns} FROM customer_event, generate_series(1, {copies}) AS n")
    } else {
        format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {copies}) \
             SELECT randomblob(16), {columns} FROM customer_event, n"
        )
    };
    format!(
        "INSERT INTO customer_event (id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, \
         occurred_at) {copied}"
    )
}

/// Selects a number. The statement names its column `n`.
pub(crate) async fn select_number(database: &Database, sql: &str) -> i64 {
    let reader = database.reader();
    let statement = Statement::from_string(reader.get_database_backend(), sql);
    let row = reader.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get("", "n").unwrap()
}
