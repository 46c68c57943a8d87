//! Access to the database: PostgreSQL or SQLite.
//!
//! [`Database`] holds the connections. Statements that only read go to its [`Reader`]. There are two ways to write:
//!
//! - An [`OptimisticWrite`] usually reads without locks at first, and with row locks after a conflict. The rows to
//!   write are collected in a [`WriteSet`], and written in one last step. Changes of customers use an
//!   [`OptimisticWrite`], except the removal of all customers of an operator and the completion of search words. On
//!   PostgreSQL, an attempt without locks usually shares its statements with concurrent requests (see `batch/mod.rs`).
//! - A [`Transaction`] begins and commits explicitly. Most code runs the transaction inside [`Database::with_retry`],
//!   which repeats the transaction after a conflict. All other writes use a [`Transaction`], for example writes of
//!   operators and API keys.
//!
//! | file | what it does |
//! | --- | --- |
//! | `url.rs`, `connect_error.rs` | parse the URL of the database; explain why the database cannot be opened |
//! | `connection.rs`, `pool.rs`, `row_size.rs` | open connections, run statements on them, and share them between requests |
//! | `reader.rs` | runs statements that only read |
//! | `transaction.rs`, `optimistic_write.rs`, `retry.rs` | the two ways to write, and retries after conflicts |
//! | `batch/` | statements that concurrent requests share, and the rows that a request writes |
//! | `pages/` | pages and counts of lists |
//! | `error.rs` | classifies and describes errors |
//! | `sql.rs`, `arrays.rs` | SQL and values that SeaORM cannot build, encode or read well |
//! | `dedicated_connection.rs`, `inspect.rs`, `migrate.rs` | connections outside the pools: backups, inspections, migrations |

mod arrays;
mod batch;
mod connect_error;
mod connection;
mod dedicated_connection;
mod error;
mod inspect;
mod migrate;
mod optimistic_write;
pub mod pages;
mod pool;
mod reader;
mod retry;
mod row_size;
mod sql;
mod transaction;
mod url;

pub use batch::{
    BatchedQuery, WriteSet, WriteStatement, delete_in_cte, insert_from_cte, insert_from_select, row_values,
    update_from_cte,
};
pub use connect_error::explain_connect_error;
pub use dedicated_connection::backup;
pub use error::{describe, error_code, is_unreachable, outdated_read};
pub use inspect::{Inspection, Problem};
pub use migrate::{migrate, migration_count};
pub use optimistic_write::OptimisticWrite;
pub use pool::PoolSize;
pub use reader::Reader;
pub use retry::TransactionError;
pub use sql::{Sql, is_one_of, subquery, try_get_time};
pub use transaction::Transaction;
pub use url::{check_url, sqlite_file};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use tokio::time::timeout;

use crate::error::Error;
use crate::request::Tenant;
use batch::BatchWriter;
use error::{OutdatedServer, wrap_own_error};
use pool::Pool;
use reader::ReadKind;
use retry::with_retry;
use url::DatabaseOptions;

/// A function that is called with the text of each SQL statement that counts as
/// [`Work::Statement`](crate::request::Work::Statement), without its values.
pub type StatementObserver = Arc<dyn Fn(&str) + Send + Sync>;

/// The default of [`DatabaseTimeouts::wait`]. Also the longest time for a rollback, and for closing the connections.
const MAX_DATABASE_WAIT: Duration = Duration::from_secs(4);

/// The time limits of the connections that serve requests. Only tests change the default values.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseTimeouts {
    /// The longest time that a request waits for a connection, for the opening of a new one or for SQLite's write lock,
    /// and the longest time for which a read or a write is retried after conflicts. After this time the request fails
    /// with `UNAVAILABLE`.
    pub wait: Duration,
    /// `lock_timeout` of PostgreSQL.
    pub lock: Duration,
    /// `statement_timeout` of PostgreSQL.
    pub statement: Duration,
    /// `idle_in_transaction_session_timeout` of PostgreSQL.
    pub idle_in_transaction: Duration,
    /// A connection is pinged before it is used again if it was last taken out of the pool longer ago than this.
    pub ping_after: Duration,
}

impl Default for DatabaseTimeouts {
    fn default() -> Self {
        Self {
            wait: MAX_DATABASE_WAIT,
            lock: Duration::from_millis(200),
            statement: Duration::from_secs(5),
            idle_in_transaction: Duration::from_secs(10),
            ping_after: Duration::from_secs(30),
        }
    }
}

/// The database of the service. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    // Shared, because each attempt of a write clones the database, and the options have several strings.
    options: Arc<DatabaseOptions>,
    reader: Reader,
    write_pool: Pool,
    batch_writer: Arc<BatchWriter>,
    /// True if this server is too old to write: see [`Database::update_may_write`].
    refuses_writes: Arc<AtomicBool>,
}

impl Database {
    /// The maximum number of connections in the PostgreSQL pool of one process, for reads and writes.
    /// [`Database::inspect`] opens one more.
    const POSTGRES_CONNECTIONS: usize = 10;
    /// The maximum number of read connections to SQLite. One more connection writes.
    const SQLITE_READERS: usize = 4;

    /// Connects like [`connect_with`](Self::connect_with) with the default time limits, for tests.
    pub async fn connect(url: &str, observer: Option<StatementObserver>) -> Result<Self, DbErr> {
        Self::connect_with(url, DatabaseTimeouts::default(), observer).await
    }

    /// Connects to `postgres://…` or `sqlite://…`. Creates the SQLite file if it does not exist.
    pub async fn connect_with(
        url: &str,
        timeouts: DatabaseTimeouts,
        observer: Option<StatementObserver>,
    ) -> Result<Self, DbErr> {
        let options = DatabaseOptions::parse(url)?;
        let (read_pool, write_pool) = match options {
            DatabaseOptions::Postgres(_) => {
                let shared = Pool::open(options.clone(), Self::POSTGRES_CONNECTIONS, timeouts, observer).await?;
                (shared.clone(), shared)
            }
            DatabaseOptions::Sqlite(ref file) => {
                url::create_private(file.get_filename());
                // SQLite takes one writer at a time. The writers of this process wait in a fair queue for one
                // connection, so they never get SQLITE_BUSY because of each other.
                let write_pool = Pool::open(options.clone(), 1, timeouts, observer.clone()).await?;
                let read_options = DatabaseOptions::parse_read_only(url)?;
                (Pool::open(read_options, Self::SQLITE_READERS, timeouts, observer).await?, write_pool)
            }
        };
        let batch_writer = Arc::new(BatchWriter::new(write_pool.clone()));
        let refuses_writes = Arc::default();
        let reader = Reader::new(read_pool);
        Ok(Self { options: Arc::new(options), reader, write_pool, batch_writer, refuses_writes })
    }

    /// Returns the reader, which runs statements that write nothing.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Returns a reader whose rows do not count for the size of the response, for lookups that decide a write, for
    /// example of the customers that have an email. The response does not contain these rows. If they counted, then
    /// near the limit of this size a request would fail if and only if a customer of another operator has the email.
    pub fn uncounted_reader(&self) -> Reader {
        self.reader.for_reads(ReadKind::Uncounted)
    }

    /// Runs `attempt` until it ends without a conflict. Returns `UNAVAILABLE` if conflicts last longer than
    /// [`DatabaseTimeouts::wait`].
    ///
    /// `operation` names the work in the log and in the metric, for example `key.create`.
    pub async fn with_retry<T, F>(&self, operation: &'static str, attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, TransactionError>>,
    {
        with_retry(self.max_wait(), operation, attempt).await
    }

    /// Begins a transaction that may write. The transaction rolls back if it is dropped without a commit.
    pub async fn begin_write(&self) -> Result<Transaction, DbErr> {
        self.check_may_write()?;
        Transaction::begin(&self.write_pool).await
    }

    /// Returns the longest time for which a write is retried after conflicts.
    fn max_wait(&self) -> Duration {
        self.write_pool.max_wait()
    }

    /// Fails if a newer version has migrated the database in a way that forbids this version to write. A job of `serve`
    /// finds this out every second. An erasure calls this method first, and other long operations call it before each
    /// batch.
    pub async fn ensure_may_write(&self) -> Result<(), DbErr> {
        self.update_may_write().await?;
        self.check_may_write()
    }

    fn check_may_write(&self) -> Result<(), DbErr> {
        let is_refused = self.refuses_writes.load(Ordering::Relaxed);
        if is_refused { Err(wrap_own_error(OutdatedServer)) } else { Ok(()) }
    }

    /// Returns the number of connections.
    pub fn connections(&self) -> PoolSize {
        let size = self.write_pool.size();
        match *self.options {
            DatabaseOptions::Postgres(_) => size,
            DatabaseOptions::Sqlite(_) => {
                let readers = self.reader.pool.size();
                PoolSize { open: size.open + readers.open, idle: size.idle + readers.idle }
            }
        }
    }

    /// Returns the number of requests that wait for a connection.
    pub fn waiting(&self) -> usize {
        match *self.options {
            DatabaseOptions::Postgres(_) => self.write_pool.waiting(),
            DatabaseOptions::Sqlite(_) => self.write_pool.waiting() + self.reader.pool.waiting(),
        }
    }

    /// Returns the number that [`vacuum_sqlite`](Self::vacuum_sqlite) has written to the header of the SQLite file. The
    /// number is 0 in a new file. `None` for PostgreSQL.
    pub async fn sqlite_user_version(&self) -> Result<Option<u64>, DbErr> {
        if matches!(*self.options, DatabaseOptions::Postgres(_)) {
            return Ok(None);
        }
        let query = Statement::from_string(DbBackend::Sqlite, "PRAGMA user_version");
        let row = self.reader.query_one_raw(query).await?;
        Ok(Some(row.map(|row| row.try_get_by_index::<i32>(0)).transpose()?.unwrap_or_default().unsigned_abs().into()))
    }

    /// Rewrites the SQLite file without its deleted content, empties the write-ahead log, and then writes
    /// `user_version` to the header of the file. Other writes wait for its end, up to [`DatabaseTimeouts::wait`].
    /// Secure deletion (`PRAGMA secure_delete`) is not enough: when SQLite moves rows to another page, it leaves copies
    /// in the old page.
    pub async fn vacuum_sqlite(&self, user_version: u64) -> Result<(), DbErr> {
        self.check_may_write()?;
        let mut connection = self.write_pool.get(Tenant::Service).await?;
        // `VACUUM` writes the whole file to the log. While a reader still uses the log, SQLite cannot empty it, so each
        // repeated `VACUUM` would make it longer.
        connection.empty_write_ahead_log().await?;
        connection.execute_unprepared("VACUUM").await?;
        connection.empty_write_ahead_log().await?;
        connection.execute_unprepared(&format!("PRAGMA user_version = {user_version}")).await?;
        Ok(())
    }

    /// Closes all connections. Stops waiting for the database after `MAX_DATABASE_WAIT`.
    pub async fn close(self) {
        let close_pools = async {
            self.reader.pool.close().await;
            self.write_pool.close().await;
        };
        timeout(MAX_DATABASE_WAIT, close_pools).await.ok();
    }
}
