//! Transactions that may write.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::MAX_DATABASE_WAIT;
use super::batch::WriteSet;
use super::connection::Connection;
use super::error::{Code, is_conflict, outdated_read, reported};
use super::pool::{Pool, PooledConnection};
use crate::request::tenant;

/// A transaction that may write, on its own connection.
///
/// - **Commit:** [`commit`](Self::commit) makes everything durable. If the commit fails because the connection was
///   lost, the transaction may have been committed or not. In that case the error does not count as a conflict, so the
///   transaction is not retried.
/// - **Error:** after a failed statement, further statements and the commit fail. Return the error and drop the
///   transaction.
/// - **Drop:** a transaction that is dropped without a commit rolls back in a spawned task, and its connection returns
///   to the pool afterwards.
/// - **Cancellation:** if a future of this transaction is dropped in the middle of a statement, the connection is
///   closed and does not return to the pool. The database rolls back when it notices the closed connection. If the
///   future of `commit` is dropped, the transaction may have been committed or not.
pub struct Transaction {
    backend: DbBackend,
    /// `None` only while the transaction ends.
    connection: Mutex<Option<PooledConnection>>,
    /// True if a statement has failed, or while a statement runs.
    has_failed: AtomicBool,
}

impl Transaction {
    /// Begins a transaction on a connection of `pool`.
    pub(super) async fn begin(pool: &Pool) -> Result<Self, DbErr> {
        let (backend, mut connection) = (pool.backend(), pool.get(tenant()).await?);
        // A deferred transaction of SQLite fails at its first write if another connection has written since the
        // transaction began.
        let begin = if backend == DbBackend::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        connection.execute_uncounted(begin).await?;
        Ok(Self { backend, connection: Mutex::new(Some(connection)), has_failed: AtomicBool::default() })
    }

    /// Commits the transaction. Fails and rolls back if a statement has failed: PostgreSQL would answer such a
    /// `COMMIT` with `ROLLBACK`, which is not an error.
    pub async fn commit(mut self) -> Result<(), DbErr> {
        let has_failed = *self.has_failed.get_mut();
        match self.connection.get_mut().take_if(|_| !has_failed) {
            Some(connection) => end(connection, "COMMIT").await,
            None => Err(DbErr::Custom(HAS_FAILED.to_owned())),
        }
    }

    /// Writes all rows of `set`. Returns a conflict if a statement with `must_write_all` left out a row.
    pub async fn write(&self, mut set: WriteSet) -> Result<(), DbErr> {
        for earlier in mem::take(&mut set.earlier) {
            Box::pin(self.write(earlier)).await?;
        }
        if self.backend == DbBackend::Postgres {
            self.query_all_raw(set.into_postgres_statement()).await?;
            return Ok(());
        }
        for (statement, must_affect) in set.into_sqlite_statements() {
            let affected = self.execute_raw(statement).await?.rows_affected();
            if affected < must_affect as u64 {
                return Err(outdated_read());
            }
        }
        Ok(())
    }

    async fn run<T>(&self, work: impl AsyncFnOnce(&mut Connection) -> Result<T, DbErr>) -> Result<T, DbErr> {
        let mut connection = self.connection.lock().await;
        let Some(connection) = connection.as_mut() else {
            return Err(DbErr::Custom("the transaction has ended".to_owned()));
        };
        // SQLite would execute further statements, and after some errors it would commit each of them.
        if self.has_failed.swap(true, Ordering::Relaxed) {
            return Err(DbErr::Custom(HAS_FAILED.to_owned()));
        }
        let result = work(connection).await;
        self.has_failed.store(result.is_err(), Ordering::Relaxed);
        result
    }
}

const HAS_FAILED: &str = "a statement of the transaction has failed, so it can only be rolled back";

/// Sends `COMMIT` or `ROLLBACK`. If the command fails, closes the connection, because the state of the transaction is
/// then unknown. For example, when the disk is full, SQLite may roll back the transaction by itself, and `ROLLBACK`
/// then fails. Exception: if PostgreSQL rejects a `COMMIT` with a conflict, it has rolled back.
async fn end(mut connection: PooledConnection, command: &str) -> Result<(), DbErr> {
    let ended = connection.execute_uncounted(command).await;
    let is_rolled_back = |error: &DbErr| matches!(reported(error), Some((Code::Sqlstate(_), _))) && is_conflict(error);
    if ended.as_ref().is_err_and(|error| !is_rolled_back(error)) {
        connection.discard();
    }
    ended.map(|_| ())
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // An unusable connection is not taken. It is closed when it is dropped with this value.
        if let Some(connection) = self.connection.get_mut().take_if(|connection| !connection.is_unusable()) {
            tokio::spawn(timeout(MAX_DATABASE_WAIT, end(connection, "ROLLBACK")));
        }
    }
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.run(async |connection| connection.execute(statement).await).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.run(async |connection| connection.execute_unprepared(sql).await).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all_raw(statement).await?.into_iter().next())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.run(async |connection| connection.query_all(statement, None).await).await
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use sea_orm::ConnectionTrait;
    use sea_orm::sqlx::{ConnectOptions, Executor};
    use tempfile::TempDir;

    use crate::database::Database;
    use crate::database::url::DatabaseOptions;

    fn url_in(folder: &TempDir) -> String {
        format!("sqlite://{}", folder.path().join("test.db").display())
    }

    #[tokio::test]
    async fn a_transaction_with_a_failed_statement_is_not_committed() {
        let folder = TempDir::new().unwrap();
        let database = Database::connect(&url_in(&folder), None).await.unwrap();
        let begin = async || database.begin_write().await.unwrap();
        let transaction = begin().await;
        transaction.execute_unprepared("CREATE TABLE written (id INTEGER PRIMARY KEY)").await.unwrap();
        transaction.execute_unprepared("INSERT INTO missing VALUES (1)").await.unwrap_err();
        let further = transaction.execute_unprepared("INSERT INTO written VALUES (1)").await.unwrap_err();
        let error = transaction.commit().await.unwrap_err();
        assert!([further, error].iter().all(|error| error.to_string().contains("has failed")));
        // The table does not exist, so nothing was committed.
        let transaction = begin().await;
        transaction.execute_unprepared("CREATE TABLE written (id INTEGER PRIMARY KEY)").await.unwrap();
        transaction.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_stopped_begin_does_not_keep_the_write_lock() {
        let folder = TempDir::new().unwrap();
        let url = url_in(&folder);
        let database = Database::connect(&url, None).await.unwrap();
        let open = async || match DatabaseOptions::parse(&url).unwrap() {
            DatabaseOptions::Sqlite(options) => options.connect().await.unwrap(),
            DatabaseOptions::Postgres(_) => panic!("{url} is a URL of SQLite"),
        };
        let (mut holder, mut other) = (open().await, open().await);
        holder.execute("BEGIN IMMEDIATE").await.unwrap();
        let open_before = database.connections().open;
        {
            let mut begin = Box::pin(database.begin_write());
            assert!(poll!(&mut begin).is_pending());
        }
        assert_eq!(database.connections().open, open_before - 1);
        holder.execute("ROLLBACK").await.unwrap();
        // Waits until the stopped `BEGIN` has ended.
        other.execute("BEGIN IMMEDIATE").await.unwrap();
    }
}
