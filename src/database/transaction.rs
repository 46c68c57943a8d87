//! Transactions that may write.

use deadpool::managed::Object;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::CONNECTION_TIMEOUT;
use super::batch::{Prepared, WriteBatch};
use super::connection::{Connection, Manager, Pool};

/// A transaction that may write. Dropped without a commit, it rolls back.
pub struct Transaction {
    backend: DbBackend,
    /// `None` after the end.
    connection: Mutex<Option<Object<Manager>>>,
}

impl Transaction {
    pub(super) async fn begin(pool: &Pool) -> Result<Self, DbErr> {
        let (backend, mut connection) = (pool.backend(), pool.get().await?);
        // A deferred transaction of SQLite fails at its first write if another has written since it began.
        let begin = if backend == DbBackend::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        connection.command(begin).await?;
        Ok(Self { backend, connection: Mutex::new(Some(connection)) })
    }

    /// Makes all that was written last.
    pub async fn commit(mut self) -> Result<(), DbErr> {
        match self.connection.get_mut().take() {
            Some(connection) => end(connection, "COMMIT").await,
            None => Ok(()),
        }
    }

    /// WriteBatch all of it.
    pub async fn write(&self, writes: WriteBatch) -> Result<(), DbErr> {
        for Prepared { statement, decisive } in writes.build(self.backend) {
            Prepared::check(decisive, self.execute_raw(statement).await)?;
        }
        Ok(())
    }

    async fn run<T>(&self, work: impl AsyncFnOnce(&mut Connection) -> Result<T, DbErr>) -> Result<T, DbErr> {
        match self.connection.lock().await.as_mut() {
            Some(connection) => work(connection).await,
            None => Err(DbErr::Custom("the transaction is over".to_owned())),
        }
    }
}

/// Ends a transaction. Where that fails it may still be open, and what is written on its connection later would be
/// acknowledged and never committed: SQLite rolls back by itself when the disk is full.
async fn end(mut connection: Object<Manager>, command: &str) -> Result<(), DbErr> {
    let ended = connection.command(command).await;
    if ended.is_err() {
        drop(Object::take(connection));
    }
    ended.map(|_| ())
}

impl Drop for Transaction {
    fn drop(&mut self) {
        match self.connection.get_mut().take() {
            // The database ends the transaction when it finds that nobody is there any more.
            Some(connection) if connection.is_busy() => drop(Object::take(connection)),
            Some(connection) => {
                tokio::spawn(timeout(CONNECTION_TIMEOUT, end(connection, "ROLLBACK")));
            }
            None => {}
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
        self.run(async |connection| connection.query_all(&statement).await).await
    }
}
