//! Statements that only read.

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};

use super::error::{own_error, wrap_own_error};
use super::pool::{Pool, PooledConnection};
use super::retry::retry_on_conflict;
use crate::request::{self, Claim, SizeError, Tenant};

/// Runs statements that write nothing, each on any free connection and without an explicit transaction.
///
/// PostgreSQL may reject such a statement with a serialization failure if its default isolation level is
/// `serializable`. The statement is then retried.
#[derive(Clone)]
pub struct Reader {
    pub(super) pool: Pool,
    kind: ReadKind,
}

/// A kind of read statement. The kind determines the tenant that the connection is taken for, whether the statement
/// counts as a long read, and whether its rows count for the size of the response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadKind {
    /// A statement of the current request.
    Short,
    /// A statement of the current request that may use a processor of the database for a long time.
    Long,
    /// A short statement of the current request whose rows do not count for the size of the response: see
    /// [`Database::uncounted_reader`](super::Database::uncounted_reader).
    Uncounted,
    /// A short read of a batch: of several requests, which may have several tenants.
    Batched,
}

impl Reader {
    /// Creates a reader for short statements of the current request.
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, kind: ReadKind::Short }
    }

    /// Returns a reader for statements of this kind.
    pub(super) fn for_reads(&self, kind: ReadKind) -> Self {
        Self { pool: self.pool.clone(), kind }
    }

    async fn connection(&self) -> Result<PooledConnection, DbErr> {
        let tenant = if self.kind == ReadKind::Batched { Tenant::BatchedReads } else { request::tenant() };
        self.pool.get(Claim { tenant, is_long_read: self.kind == ReadKind::Long }).await
    }
}

#[async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        self.pool.backend()
    }

    async fn execute_raw(&self, _: Statement) -> Result<ExecResult, DbErr> {
        Err(DbErr::Custom("a reader does not write: use a transaction".to_owned()))
    }

    async fn execute_unprepared(&self, _: &str) -> Result<ExecResult, DbErr> {
        Err(DbErr::Custom("a reader does not write: use a transaction".to_owned()))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all_raw(statement).await?.into_iter().next())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let response = match self.kind {
            ReadKind::Short | ReadKind::Long => request::response(),
            // A batched read is short and belongs to several responses, so its bytes count for none of them.
            ReadKind::Uncounted | ReadKind::Batched => None,
        };
        loop {
            let had_reservation = response.as_ref().is_some_and(|response| response.has_reservation());
            let query = || async { self.connection().await?.query_all(statement.clone(), response.as_deref()).await };
            let rows = retry_on_conflict(self.pool.max_wait(), query).await;
            if !had_reservation && response.as_ref().is_some_and(|response| response.has_reservation()) {
                // `LoadRounds::run` checks the size before each poll. The yield causes a new poll, so that the rest of
                // a large response is built outside the worker threads.
                tokio::task::yield_now().await;
            }
            match (&response, rows.as_ref().err().and_then(own_error)) {
                // The connection has been returned to the pool here, so the response does not hold a connection while
                // it waits.
                (Some(response), Some(SizeError::MustWait)) => {
                    response.wait_for_memory().await.map_err(wrap_own_error)?;
                }
                _ => return rows,
            }
        }
    }
}
