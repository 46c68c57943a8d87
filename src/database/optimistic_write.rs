//! Optimistic writes: read without locks, write with a revision check, retry under row locks.
//!
//! Most requests meet no conflict, so the first attempt of most writes reads without locks and without a transaction.
//! The attempt then writes everything in one step: usually one statement on PostgreSQL, and one transaction on SQLite.
//! The step fails if the rows have changed since they were read. The column `customer.revision` and the unique
//! constraints detect such a change. After a conflict, the next attempt runs in a transaction and locks the rows that
//! it reads. With these locks, the attempt can succeed even if many requests write the same rows.

use std::mem;

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};

use super::retry::with_retry;
use super::{Database, Transaction, TransactionError, WriteSet};
use crate::error::Error;
use crate::request::{Work, count_work};

/// One attempt to read rows, to compute new rows from these rows, and to write the new rows. Implements
/// [`ConnectionTrait`] for the reads of the attempt.
///
/// - **Commit:** [`write`](Self::write) ends the attempt. It writes all rows, or none.
/// - **Error:** a conflict starts the next attempt, which reads again. Any other error ends [`run`](Self::run).
/// - **Drop:** if an attempt is dropped before `write` is called, nothing is written and the locks are released.
/// - **Cancellation:** if the future of `write` is dropped, the rows may or may not be written.
///   [`run_to_completion`](crate::request::run_to_completion()) prevents this when a client disconnects.
pub struct OptimisticWrite {
    database: Database,
    /// `None` if the attempt reads without locks. The first attempt of most writes takes no locks. Boxed, because an
    /// `OptimisticWrite` is moved several times, and a transaction is large.
    transaction: Option<Box<Transaction>>,
}

impl OptimisticWrite {
    /// Runs `attempt` until it ends without a conflict, as [`Database::with_retry`] does. `operation` names the work in
    /// the log and in the metric, for example `customer.create`.
    pub async fn run<T, F>(
        database: &Database,
        operation: &'static str,
        attempt: impl Fn(Self) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, TransactionError>>,
    {
        let attempt = &attempt;
        let mut is_retry = false;
        with_retry(database.max_wait(), operation, || {
            let must_lock = mem::replace(&mut is_retry, true);
            async move {
                let transaction = if must_lock { Some(Box::new(database.begin_write().await?)) } else { None };
                // Boxed: the future is large and would be copied several times.
                Box::pin(attempt(Self { database: database.clone(), transaction })).await
            }
        })
        .await
    }

    /// Returns true if this attempt must lock the rows that it reads.
    pub fn is_locking(&self) -> bool {
        self.transaction.is_some()
    }

    /// Begins the transaction if this attempt has none, so that the attempt locks the rows that it reads from now on.
    pub async fn into_locking(mut self) -> Result<Self, DbErr> {
        if self.transaction.is_none() {
            self.transaction = Some(Box::new(self.database.begin_write().await?));
        }
        Ok(self)
    }

    /// Writes all rows of `set`, or none, and ends the attempt. Does nothing if `set` is empty.
    pub async fn write(self, set: WriteSet) -> Result<(), DbErr> {
        // Boxed: the future is large and would be copied several times.
        let rows = set.row_count();
        Box::pin(self.write_rows(set)).await?;
        count_work(Work::Write, rows);
        Ok(())
    }

    async fn write_rows(self, set: WriteSet) -> Result<(), DbErr> {
        let transaction = match self.transaction {
            _ if set.is_empty() => return Ok(()),
            Some(transaction) => *transaction,
            None if self.get_database_backend() == DbBackend::Postgres && set.earlier.is_empty() => {
                self.database.check_may_write()?;
                return self.database.batch_writer.write(set).await;
            }
            None => self.database.begin_write().await?,
        };
        transaction.write(set).await?;
        transaction.commit().await
    }
}

/// Runs queries only. To write, call [`OptimisticWrite::write`].
#[async_trait]
impl ConnectionTrait for OptimisticWrite {
    fn get_database_backend(&self) -> DbBackend {
        self.database.reader().get_database_backend()
    }

    async fn execute_raw(&self, _: Statement) -> Result<ExecResult, DbErr> {
        Err(DbErr::Custom("an optimistic write writes only at its end, with `write`".to_owned()))
    }

    async fn execute_unprepared(&self, _: &str) -> Result<ExecResult, DbErr> {
        Err(DbErr::Custom("an optimistic write writes only at its end, with `write`".to_owned()))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all_raw(statement).await?.into_iter().next())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.transaction {
            Some(transaction) => transaction.query_all_raw(statement).await,
            None => self.database.uncounted_reader().query_all_raw(statement).await,
        }
    }
}
