//! Batched writes: writes the rows of concurrent requests in one statement. If the database rejects that statement,
//! writes the rows of each request in a separate statement.

use sea_orm::{ConnAcquireErr, DbErr};

use super::Batcher;
use super::keyed_locks::KeyedLocks;
use super::write_set::{BatchKey, WriteSet};
use crate::database::error::{is_statement_error, log_shared_failure};
use crate::database::pool::Pool;
use crate::request::tenant;

/// Writes each [`WriteSet`] to PostgreSQL, completely or not at all, together with the rows of concurrent requests.
pub(in crate::database) struct BatchWriter {
    pool: Pool,
    batcher: Batcher<BatchKey, WriteSet, Outcome>,
}

/// The result of a batch for one of its members.
enum Outcome {
    Done(Result<(), DbErr>),
    /// The database rejected the statement of the batch. Nothing was written. Each caller gets its rows back, and
    /// writes them in a separate statement.
    WriteSeparately(WriteSet),
}

impl BatchWriter {
    pub(in crate::database) fn new(pool: Pool) -> Self {
        Self { pool, batcher: Batcher { locks: Some(KeyedLocks::default()), ..Batcher::default() } }
    }

    /// Writes all rows of `set`, or none. A conflict with another transaction is an error that
    /// [`is_conflict`](crate::database::error::is_conflict) recognises.
    pub(in crate::database) async fn write(&self, set: WriteSet) -> Result<(), DbErr> {
        match self.batcher.submit(set.key(), set, async |requests| self.run_batch(requests).await).await {
            Some(Outcome::Done(result)) => result,
            Some(Outcome::WriteSeparately(set)) => self.run_one(set).await,
            // The leader was cancelled. Its statement may have been committed, so a retry could report a conflict with
            // the request's own rows.
            None => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
        }
    }

    /// Runs the requests as one statement and returns an outcome for each request.
    async fn run_batch(&self, requests: Vec<WriteSet>) -> Vec<Outcome> {
        let requests = match <[_; 1]>::try_from(requests) {
            Ok([request]) => return vec![Outcome::Done(self.run_one(request).await)],
            Err(requests) => requests,
        };
        let Some(merged) = WriteSet::merge(&requests) else { return Vec::new() };
        match self.run_one(merged).await {
            Err(error) if is_statement_error(&error) => requests.into_iter().map(Outcome::WriteSeparately).collect(),
            result => {
                let result = result.map_err(|error| log_shared_failure(&error, requests.len()));
                requests.iter().map(|_| Outcome::Done(result.clone())).collect()
            }
        }
    }

    async fn run_one(&self, set: WriteSet) -> Result<(), DbErr> {
        self.pool.get(tenant()).await?.query_all(set.into_postgres_statement(), None).await?;
        Ok(())
    }
}
