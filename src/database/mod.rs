//! The two databases, alike: connect, begin a write, retry what surely rolled back.

mod batch;
mod connection;
mod error;
mod optimistic_write;
pub mod pages;
mod run_to_completion;
mod sql;
mod transaction;

pub use batch::{BatchedQuery, Dml, WriteBatch, WriteStatement, insert_from_select, row_values};
pub use error::describe;
pub use optimistic_write::OptimisticWrite;
pub use run_to_completion::RunToCompletion;
pub use sql::Sql;
pub use transaction::Transaction;

use batch::{BatchKey, Batcher, Prepared};
use error::{is_conflict, is_refusal};

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryFutureExt;
use migration::{Migrator, MigratorTrait};
use rand::RngExt;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::sqlx::sqlite::SqlitePoolOptions;
use sea_orm::{
    ConnAcquireErr, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult,
    SqliteTransactionMode, SqlxPostgresConnector, SqlxSqliteConnector, Statement, TransactionOptions, TransactionTrait,
};
use tokio::time::timeout;

use crate::error::{Error, ErrorCode};
use connection::{Options, Pool, failed_to_connect};

/// Is told of each SQL statement, without its values.
pub type StatementObserver = Arc<dyn Fn(&str) + Send + Sync>;

/// How long a request waits for a connection, or for SQLite's lock, before it is `UNAVAILABLE`.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(4);

/// A database that the service can read from and write to.
#[derive(Clone)]
pub struct Database {
    options: Options,
    reads: Reader,
    writes: Pool,
    writing: Arc<Batcher<BatchKey, WriteBatch, Written>>,
}

/// What became of writes that were to be written together; `Err`: nothing, because one of them stood in the way.
type Written = Result<Result<(), DbErr>, WriteBatch>;

/// Where statements run that write nothing, each for itself. A database that serializes may refuse one of them for what
/// others have written; it has done nothing, and runs again.
#[derive(Clone)]
pub struct Reader(Pool);

impl Database {
    /// PostgreSQL: connections kept open. Each replica of the service opens at most as many.
    const POSTGRES_CONNECTIONS: usize = 10;
    /// SQLite: readers beside the one writer, which a file can have at a time.
    const SQLITE_READERS: usize = 4;

    /// Connects to `postgres://…` or `sqlite://…`; a SQLite file is created where there is none.
    pub async fn connect(url: &str, observer: Option<StatementObserver>) -> Result<Self, DbErr> {
        let options = Options::of(url)?;
        let (reads, writes) = match options {
            Options::Postgres(_) => {
                let both = Pool::open(options.clone(), Self::POSTGRES_CONNECTIONS, &observer).await?;
                (both.clone(), both)
            }
            Options::Sqlite(_) => {
                // SQLite takes one writer at a time: a queue in front of one connection is fair, and never busy.
                let writes = Pool::open(options.clone(), 1, &observer).await?;
                (Pool::open(options.clone().read_only(), Self::SQLITE_READERS, &observer).await?, writes)
            }
        };
        Ok(Self { options, reads: Reader(reads), writes, writing: Arc::default() })
    }

    /// For statements that write nothing.
    pub fn reader(&self) -> &Reader {
        &self.reads
    }

    /// A transaction that may write. Dropped without a commit, it rolls back.
    pub async fn begin_write(&self) -> Result<Transaction, DbErr> {
        Transaction::begin(&self.writes).await
    }

    /// Whether several writes are one statement, which needs no transaction to be all or none.
    fn writes_in_one_statement(&self) -> bool {
        self.writes.backend() == DbBackend::Postgres
    }

    /// WriteBatch all of it in one statement, beside what others write at this moment. Where those stand in the way, it writes
    /// this alone.
    async fn write(&self, writes: WriteBatch) -> Result<(), DbErr> {
        let all = async |asked: Vec<WriteBatch>| {
            let asked = match <[_; 1]>::try_from(asked) {
                Ok([alone]) => return vec![Ok(self.write_one(alone).await)],
                Err(asked) => asked,
            };
            match self.write_one(WriteBatch::together(&asked)).await {
                Err(error) if is_refusal(&error) => asked.into_iter().map(Err).collect(),
                written => asked.iter().map(|_| Ok(written.clone())).collect(),
            }
        };
        match self.writing.submit(writes.kind(), writes, all).await {
            Some(Ok(written)) => written,
            Some(Err(writes)) => self.write_one(writes).await,
            // It may be written, or not.
            None => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
        }
    }

    async fn write_one(&self, writes: WriteBatch) -> Result<(), DbErr> {
        let mut connection = self.writes.get().await?;
        for Prepared { statement, decisive } in writes.build(self.writes.backend()) {
            Prepared::check(decisive, connection.execute(statement).await)?;
        }
        Ok(())
    }

    /// How many connections there are for requests, and how many of them nobody uses.
    pub fn connections(&self) -> (usize, usize) {
        let (size, idle) = self.writes.size();
        match self.options {
            Options::Postgres(_) => (size, idle),
            Options::Sqlite(_) => {
                let (readers, idle_readers) = self.reads.0.size();
                (size + readers, idle + idle_readers)
            }
        }
    }

    /// How many migrations this database lacks.
    pub async fn pending_migrations(&self) -> Result<usize, DbErr> {
        let connection = for_migrations(self.options.clone().read_only()).await?;
        let pending = retry_read(|| Migrator::get_pending_migrations_read_only(&connection)).await?;
        connection.close().await?;
        Ok(pending.len())
    }

    /// Ends all connections, but does not wait for those that have gone silent.
    pub async fn close(self) -> Result<(), DbErr> {
        let both = async {
            self.reads.0.close().await?;
            self.writes.close().await
        };
        timeout(CONNECTION_TIMEOUT, both).await.unwrap_or(Ok(()))
    }
}

#[async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        self.0.backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        retry_read(|| async { self.0.get().await?.execute(statement.clone()).await }).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        retry_read(|| async { self.0.get().await?.execute_unprepared(sql).await }).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all_raw(statement).await?.into_iter().next())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        retry_read(|| async { self.0.get().await?.query_all(&statement).await }).await
    }
}

/// How many migrations there are.
pub fn migration_count() -> usize {
    Migrator::migrations().len()
}

/// Applies the migrations that the database at `url` lacks, all or none. Processes that start at once take turns.
pub async fn migrate(url: &str) -> Result<(), DbErr> {
    let connection = for_migrations(Options::of(url)?).await?;
    let is_postgres = connection.get_database_backend() == DbBackend::Postgres;
    let transaction = connection
        .begin_with_options(TransactionOptions {
            // Whoever has waited for its turn must see what the one before it did.
            isolation_level: is_postgres.then_some(IsolationLevel::ReadCommitted),
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        })
        .await?;
    if is_postgres {
        transaction.execute_unprepared("SELECT pg_advisory_xact_lock(8247619230001)").await?;
    }
    Migrator::up(&transaction, None).await?;
    transaction.commit().await?;
    connection.close().await
}

/// One connection, as the migrations want it.
async fn for_migrations(options: Options) -> Result<DatabaseConnection, DbErr> {
    let connected = || async {
        match &options {
            Options::Postgres(options) => {
                let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECTION_TIMEOUT);
                pool.connect_with(options.clone()).await.map(SqlxPostgresConnector::from_sqlx_postgres_pool)
            }
            Options::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(CONNECTION_TIMEOUT);
                pool.connect_with(options.clone()).await.map(SqlxSqliteConnector::from_sqlx_sqlite_pool)
            }
        }
    };
    retry_read(|| connected().map_err(failed_to_connect)).await
}

/// The file of a SQLite URL, for people to find.
pub fn sqlite_file(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite:")?.trim_start_matches("//");
    Some(Path::new(path.split('?').next()?))
}

/// Why a transaction did not come to its end.
pub enum TransactionError {
    /// It lost a race and left nothing behind: it may start anew.
    Conflict(DbErr),
    Error(Error),
}

impl From<DbErr> for TransactionError {
    fn from(error: DbErr) -> Self {
        if is_conflict(&error) { Self::Conflict(error) } else { Self::Error(error.into()) }
    }
}

impl From<Error> for TransactionError {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Runs a whole transaction, and again when it lost a race, which is judged anew each time.
pub async fn with_retry<T, F>(what: &'static str, attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, TransactionError>>,
{
    retrying(what, |_| attempt()).await
}

/// Makes an attempt, told how many races were lost before, until one is not lost.
async fn retrying<T, F>(what: &'static str, attempt: impl Fn(u32) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, TransactionError>>,
{
    let mut backoff = Backoff::new(what);
    loop {
        match attempt(backoff.lost).await {
            Ok(done) => return Ok(done),
            Err(TransactionError::Error(error)) => return Err(error),
            Err(TransactionError::Conflict(error)) if backoff.allows_another(&error).await => {}
            Err(TransactionError::Conflict(_)) => {
                return Err(Error::Failed {
                    code: ErrorCode::Unavailable,
                    cause: format!("{what} lost too many races"),
                });
            }
        }
    }
}

/// The same for a single statement that writes nothing.
async fn retry_read<T, F>(attempt: impl Fn() -> F) -> Result<T, DbErr>
where
    F: Future<Output = Result<T, DbErr>>,
{
    let mut backoff = Backoff::new("read");
    loop {
        match attempt().await {
            Err(error) if is_conflict(&error) && backoff.allows_another(&error).await => {}
            outcome => return outcome,
        }
    }
}

/// How long something that loses races begins anew. A database that serializes refuses one in a crowd many times over.
struct Backoff {
    what: &'static str,
    started: Instant,
    lost: u32,
}

impl Backoff {
    fn new(what: &'static str) -> Self {
        Self { what, started: Instant::now(), lost: 0 }
    }

    /// Waits before the next attempt, if there is to be one.
    async fn allows_another(&mut self, error: &DbErr) -> bool {
        self.lost += 1;
        tracing::warn!(self.what, self.lost, cause = describe(error), "lost a race");
        metrics::counter!("vivamo_retries_total", "what" => self.what).increment(1);
        if self.started.elapsed() > CONNECTION_TIMEOUT {
            return false;
        }
        // Full jitter: losers that wait equally long collide again.
        let pause = rand::rng().random_range(0..1 << self.lost.min(7));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        true
    }
}
