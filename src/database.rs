//! The two databases, alike: connect, begin a write, retry what surely rolled back.

use std::future::ready;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryFutureExt;
use migration::{Migrator, MigratorTrait};
use rand::RngExt;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{Connection, Executor, PgConnection};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    IsolationLevel, QueryResult, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{Error, ErrorCode, describe, is_lost_race};

/// Is told of each SQL statement, without its values.
pub type StatementObserver = Arc<dyn Fn(&str) + Send + Sync>;

tokio::task_local! {
    /// How many statements the task's request has sent.
    static STATEMENTS: Arc<AtomicUsize>;
}

/// A database that the service can read from and write to.
#[derive(Clone)]
pub struct Database {
    reads: Reads,
    writes: DatabaseConnection,
    /// Until when connections that come back to their pool are not trusted.
    distrust: Distrust,
}

/// Whether work was given up lately, so that connections may come back to their pool with an answer still to come. The
/// driver would wait for it without a limit.
#[derive(Clone, Default)]
struct Distrust(Arc<Mutex<Option<Instant>>>);

impl Distrust {
    const LIFE: Duration = Duration::from_secs(60);

    fn start(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_on(&self) -> bool {
        let started = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        started.is_some_and(|started| started.elapsed() < Self::LIFE)
    }
}

async fn is_alive(connection: &mut PgConnection) -> bool {
    matches!(timeout(Duration::from_secs(1), connection.ping()).await, Ok(Ok(())))
}

/// Where statements run that write nothing, each for itself. A database that serializes may refuse one of them for what
/// others have written; it has done nothing, and runs again.
#[derive(Clone)]
pub struct Reads(DatabaseConnection);

impl Database {
    /// PostgreSQL: connections kept open. Each replica of the service opens at most as many.
    const POSTGRES_CONNECTIONS: u32 = 10;
    /// SQLite: readers beside the one writer, which a file can have at a time.
    const SQLITE_READERS: u32 = 4;
    /// A statement that takes longer is given up; so is the transaction of a client that died in the middle, whose
    /// locks would outlive it.
    const SESSION: &str = "SET statement_timeout = '5s'; SET idle_in_transaction_session_timeout = '10s'";
    /// How long a request waits for a connection, or for SQLite's lock, before it is `UNAVAILABLE`.
    const PATIENCE: Duration = Duration::from_secs(4);

    /// Connects to `postgres://…` or `sqlite://…`; a SQLite file is created where there is none.
    pub async fn connect(url: &str, observer: Option<StatementObserver>) -> Result<Self, DbErr> {
        let distrust = Distrust::default();
        if url.starts_with("sqlite:") {
            // SQLite takes one writer at a time: a queue in front of one connection is fair, and never busy.
            let writes = open(sqlite(url, 1, false), &observer).await?;
            let reads = open(sqlite(url, Self::SQLITE_READERS, true), &observer).await?;
            Ok(Self { reads: Reads(reads), writes, distrust })
        } else {
            let mut options = postgres(url, Self::POSTGRES_CONNECTIONS);
            let distrusted = distrust.clone();
            options.map_sqlx_postgres_pool_opts(move |pool| {
                let distrusted = distrusted.clone();
                // Not as options of the connection, which a pooler in between may refuse.
                let pool =
                    pool.after_connect(|connection, _| Box::pin(connection.execute(Self::SESSION).map_ok(|_| ())));
                pool.after_release(move |connection, _| {
                    let is_trusted = !distrusted.is_on();
                    Box::pin(async move { Ok(is_trusted || is_alive(connection).await) })
                })
            });
            let both = open(options, &observer).await?;
            Ok(Self { reads: Reads(both.clone()), writes: both, distrust })
        }
    }

    /// For statements that write nothing.
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// A transaction that may write. Dropped without a commit, it rolls back.
    pub async fn begin_write(&self) -> Result<DatabaseTransaction, DbErr> {
        self.writes.begin_with_options(writing()).await
    }

    /// Does some work that uses the database, and does it to its end even if nobody waits for it any more: a connection
    /// that is let go in the middle of a statement may never come back to its pool. `None`: the database has gone silent.
    /// `statements` counts what it sends, but for the beginnings and ends of transactions.
    pub fn finish<T: Send + 'static>(
        &self,
        statements: Arc<AtomicUsize>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        const SILENCE: Duration = Duration::from_secs(30);
        let distrust = self.distrust.clone();
        tokio::spawn(async move {
            let mut work = pin!(STATEMENTS.scope(statements, work));
            let done = timeout(SILENCE, work.as_mut()).await.ok();
            if done.is_none() {
                distrust.start();
            }
            done
        })
    }

    /// How many connections there are for requests, and how many of them nobody uses.
    pub fn connections(&self) -> (u32, usize) {
        if self.writes.get_database_backend() == DbBackend::Postgres {
            let pool = self.writes.get_postgres_connection_pool();
            (pool.size(), pool.num_idle())
        } else {
            let (reads, writes) = (self.reads.0.get_sqlite_connection_pool(), self.writes.get_sqlite_connection_pool());
            (reads.size() + writes.size(), reads.num_idle() + writes.num_idle())
        }
    }

    /// How many migrations this database lacks.
    pub async fn pending_migrations(&self) -> Result<usize, DbErr> {
        Ok(again(|| Migrator::get_pending_migrations_read_only(&self.reads.0)).await?.len())
    }

    /// Ends all connections, but does not wait for those that have gone silent.
    pub async fn close(self) -> Result<(), DbErr> {
        let both = async {
            self.reads.0.close().await?;
            self.writes.close().await
        };
        timeout(Self::PATIENCE, both).await.unwrap_or(Ok(()))
    }
}

#[async_trait]
impl ConnectionTrait for Reads {
    fn get_database_backend(&self) -> DbBackend {
        self.0.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        again(|| self.0.execute_raw(statement.clone())).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        again(|| self.0.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        again(|| self.0.query_one_raw(statement.clone())).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        again(|| self.0.query_all_raw(statement.clone())).await
    }
}

/// How many migrations there are.
pub fn migrations() -> usize {
    Migrator::migrations().len()
}

/// Applies the migrations that the database at `url` lacks, all or none. Processes that start at once take turns.
pub async fn migrate(url: &str) -> Result<(), DbErr> {
    let options = if url.starts_with("sqlite:") { sqlite(url, 1, false) } else { postgres(url, 1) };
    let connection = open(options, &None).await?;
    let is_postgres = connection.get_database_backend() == DbBackend::Postgres;
    // Whoever has waited for its turn must see what the one before it did.
    let isolation_level = is_postgres.then_some(IsolationLevel::ReadCommitted);
    let transaction = connection.begin_with_options(TransactionOptions { isolation_level, ..writing() }).await?;
    if is_postgres {
        transaction.execute_unprepared("SELECT pg_advisory_xact_lock(8247619230001)").await?;
    }
    Migrator::up(&transaction, None).await?;
    transaction.commit().await?;
    connection.close().await
}

fn writing() -> TransactionOptions {
    // A deferred transaction of SQLite fails at its first write if another has written since it began.
    TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() }
}

async fn open(options: ConnectOptions, observer: &Option<StatementObserver>) -> Result<DatabaseConnection, DbErr> {
    // SQLite's file may be locked for a moment while another process opens or closes it.
    let mut connection = again(|| sea_orm::Database::connect(options.clone())).await?;
    let observer = observer.clone();
    connection.set_metric_callback(move |info| {
        let _ = STATEMENTS.try_with(|statements| statements.fetch_add(1, Ordering::Relaxed));
        if let Some(observer) = &observer {
            observer(&info.statement.sql);
        }
    });
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
    // A transaction that SQLite has rolled back by itself, as it does when the disk is full, can stay open for the driver.
    // What is written on that connection later would be acknowledged and never committed.
    options.map_sqlx_sqlite_before_acquire(|connection, _| Box::pin(ready(Ok(!connection.is_in_transaction()))));
    options
}

fn postgres(url: &str, connections: u32) -> ConnectOptions {
    let mut options = pool(url, connections);
    // A create has a statement of its own for each number of words.
    options.map_sqlx_postgres_opts(|options| options.application_name("vivamo").statement_cache_capacity(500));
    options
}

fn pool(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(Database::PATIENCE)
        .test_before_acquire_if_idle_for(Duration::from_secs(30))
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
    let mut patience = Patience::new(what);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(Aborted::Error(error)) => return Err(error),
            Err(Aborted::LostRace(error)) if patience.allows_another(&error).await => {}
            Err(Aborted::LostRace(_)) => {
                return Err(Error::Failed {
                    code: ErrorCode::Unavailable,
                    cause: format!("{what} lost too many races"),
                });
            }
        }
    }
}

/// The same for a single statement that writes nothing.
async fn again<T, F>(attempt: impl Fn() -> F) -> Result<T, DbErr>
where
    F: Future<Output = Result<T, DbErr>>,
{
    let mut patience = Patience::new("read");
    loop {
        match attempt().await {
            Err(error) if is_lost_race(&error) && patience.allows_another(&error).await => {}
            outcome => return outcome,
        }
    }
}

/// How often something that lost a race begins anew.
struct Patience {
    what: &'static str,
    started: Instant,
    lost: u32,
}

impl Patience {
    /// A database that serializes refuses one in a crowd many times over.
    const ATTEMPTS: u32 = 20;

    fn new(what: &'static str) -> Self {
        Self { what, started: Instant::now(), lost: 0 }
    }

    /// Waits before the next attempt, if there is to be one.
    async fn allows_another(&mut self, error: &DbErr) -> bool {
        self.lost += 1;
        tracing::warn!(self.what, self.lost, cause = describe(error), "lost a race");
        metrics::counter!("vivamo_lost_races_total", "what" => self.what).increment(1);
        if self.lost == Self::ATTEMPTS || self.started.elapsed() > Database::PATIENCE / 2 {
            return false;
        }
        // Full jitter: losers that wait equally long collide again.
        let pause = rand::rng().random_range(0..1 << self.lost.min(7));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        true
    }
}
