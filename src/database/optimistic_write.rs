//! Looking at rows, and writing what follows from them.

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};

use super::{Database, Transaction, TransactionError, WriteBatch, retrying};
use crate::error::Error;

/// Looks at rows, and then writes what follows from them.
///
/// At first it looks without a transaction, and what it writes says which rows must still be as they were. Where it loses
/// that race it begins anew in a transaction, and locks what it looks at: so it comes to its end in a crowd too.
pub struct OptimisticWrite {
    database: Database,
    transaction: Option<Transaction>,
}

impl OptimisticWrite {
    /// Makes an attempt, and others where it lost a race, which is judged anew each time.
    pub async fn run<T, F>(database: &Database, what: &'static str, attempt: impl Fn(Self) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, TransactionError>>,
    {
        let attempt = &attempt;
        retrying(what, |lost| async move {
            let transaction = if lost == 0 { None } else { Some(database.begin_write().await?) };
            // It is large, and would be moved several times.
            Box::pin(attempt(Self { database: database.clone(), transaction })).await
        })
        .await
    }

    /// Whether it locks what it looks at.
    pub fn is_locking(&self) -> bool {
        self.transaction.is_some()
    }

    /// WriteBatch all of it, or none.
    pub async fn write(self, writes: WriteBatch) -> Result<(), DbErr> {
        let transaction = match self.transaction {
            _ if writes.is_empty() => return Ok(()),
            None if self.database.writes_in_one_statement() => return self.database.write(writes).await,
            None => self.database.begin_write().await?,
            Some(transaction) => transaction,
        };
        transaction.write(writes).await?;
        transaction.commit().await
    }
}

/// For looks alone.
#[async_trait]
impl ConnectionTrait for OptimisticWrite {
    fn get_database_backend(&self) -> DbBackend {
        self.database.reader().get_database_backend()
    }

    async fn execute_raw(&self, _: Statement) -> Result<ExecResult, DbErr> {
        Err(DbErr::Custom("a unit of work writes once, at its end".to_owned()))
    }

    async fn execute_unprepared(&self, _: &str) -> Result<ExecResult, DbErr> {
        Err(DbErr::Custom("a unit of work writes once, at its end".to_owned()))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all_raw(statement).await?.into_iter().next())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.transaction {
            Some(transaction) => transaction.query_all_raw(statement).await,
            None => self.database.reader().query_all_raw(statement).await,
        }
    }
}
