//! The two databases, alike: connect, begin a write, retry what surely rolled back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryFutureExt;
use migration::{Migrator, MigratorTrait};
use rand::RngExt;
use sea_orm::sqlx::Executor;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};

use crate::error::{Error, ErrorCode, describe, is_lost_race};

/// Is told of each SQL statement, without its values.
pub type StatementObserver = Arc<dyn Fn(&str) + Send + Sync>;

/// A database that the service can read from and write to.
#[derive(Clone)]
pub struct Database {
    reads: DatabaseConnection,
    writes: DatabaseConnection,
}

impl Database {
    /// PostgreSQL: connections kept open. Each replica of the service opens at most as many.
    const POSTGRES_CONNECTIONS: u32 = 10;
    /// SQLite: readers beside the one writer, which a file can have at a time.
    const SQLITE_READERS: u32 = 4;
    /// A statement that takes longer is given up; so is the transaction of a client that died in the middle, whose
    /// locks would outlive it.
    const SESSION: &str = "SET statement_timeout = '5s'; SET idle_in_transaction_session_timeout = '10s'";
    /// How long a request waits for a connection, or for SQLite's lock, before it is `UNAVAILABLE`.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Connects to `postgres://…` or `sqlite://…`; a SQLite file is created where there is none.
    pub async fn connect(url: &str, observer: Option<StatementObserver>) -> Result<Self, DbErr> {
        if url.starts_with("sqlite:") {
            // SQLite takes one writer at a time: a queue in front of one connection is fair, and never busy.
            let writes = open(sqlite(url, 1, false), &observer).await?;
            let reads = open(sqlite(url, Self::SQLITE_READERS, true), &observer).await?;
            Ok(Self { reads, writes })
        } else {
            let mut options = postgres(url, Self::POSTGRES_CONNECTIONS);
            options.test_before_acquire_if_idle_for(Duration::from_secs(30)).map_sqlx_postgres_pool_opts(|pool| {
                // Not as options of the connection, which a pooler in between may refuse.
                pool.after_connect(|connection, _| Box::pin(connection.execute(Self::SESSION).map_ok(|_| ())))
            });
            let both = open(options, &observer).await?;
            Ok(Self { reads: both.clone(), writes: both })
        }
    }

    /// For statements that write nothing.
    pub fn reads(&self) -> &DatabaseConnection {
        &self.reads
    }

    /// A transaction that may write. Dropped without a commit, it rolls back.
    pub async fn begin_write(&self) -> Result<DatabaseTransaction, DbErr> {
        // A deferred transaction of SQLite fails at its first write if another has written since it began.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.writes.begin_with_options(options).await
    }

    /// How many migrations this database lacks.
    pub async fn pending_migrations(&self) -> Result<usize, DbErr> {
        Ok(Migrator::get_pending_migrations_read_only(&self.reads).await?.len())
    }

    pub async fn close(self) -> Result<(), DbErr> {
        self.reads.close().await?;
        self.writes.close().await
    }
}

/// How many migrations there are.
pub fn migrations() -> usize {
    Migrator::migrations().len()
}

/// Applies the migrations that the database at `url` lacks. Processes that start at once take turns.
pub async fn migrate(url: &str) -> Result<(), DbErr> {
    let options = if url.starts_with("sqlite:") { sqlite(url, 1, false) } else { postgres(url, 1) };
    // One connection, so that the lock of its session is held throughout.
    let connection = open(options, &None).await?;
    if connection.get_database_backend() == DbBackend::Postgres {
        connection.execute_unprepared("SELECT pg_advisory_lock(8247619230001)").await?;
    }
    Migrator::up(&connection, None).await?;
    connection.close().await
}

async fn open(options: ConnectOptions, observer: &Option<StatementObserver>) -> Result<DatabaseConnection, DbErr> {
    let mut connection = sea_orm::Database::connect(options).await?;
    if let Some(observer) = observer.clone() {
        connection.set_metric_callback(move |info| observer(&info.statement.sql));
    }
    Ok(connection)
}

fn sqlite(url: &str, connections: u32, read_only: bool) -> ConnectOptions {
    let mut options = pool(url, connections);
    options.map_sqlx_sqlite_opts(move |options| {
        options
            .create_if_missing(!read_only)
            .read_only(read_only)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was acknowledged outlives a loss of power.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Database::PATIENCE)
    });
    options
}

fn postgres(url: &str, connections: u32) -> ConnectOptions {
    let mut options = pool(url, connections);
    options.map_sqlx_postgres_opts(|options| options.application_name("vivamo"));
    options
}

fn pool(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(Database::PATIENCE)
        // The statements of a request would be logged with what failed in them.
        .sqlx_logging(false);
    options
}

/// The file of a SQLite URL, for people to find.
pub fn sqlite_file(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite:")?.trim_start_matches("//");
    Some(Path::new(path.split('?').next()?))
}

/// Why a transaction did not come to its end.
pub enum Aborted {
    /// It lost a race and left nothing behind: it may start anew.
    LostRace(DbErr),
    Error(Error),
}

impl From<DbErr> for Aborted {
    fn from(error: DbErr) -> Self {
        if is_lost_race(&error) { Self::LostRace(error) } else { Self::Error(error.into()) }
    }
}

impl From<Error> for Aborted {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Runs a whole transaction, and again when it lost a race, which is judged anew each time.
pub async fn with_retry<T, F>(what: &'static str, attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Aborted>>,
{
    const ATTEMPTS: u32 = 10;
    let started = Instant::now();
    for number in 1..=ATTEMPTS {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(Aborted::Error(error)) => return Err(error),
            Err(Aborted::LostRace(error)) => {
                tracing::warn!(what, number, cause = describe(&error), "transaction lost a race");
                if started.elapsed() > Database::PATIENCE / 2 {
                    break;
                }
                // Full jitter: losers that wait equally long collide again.
                let pause = rand::rng().random_range(0..1 << number.min(6));
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }
    Err(Error::Failed { code: ErrorCode::Unavailable, cause: format!("{what} lost too many races") })
}
