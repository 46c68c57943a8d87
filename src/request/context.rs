//! The context of the current request, and the count of its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sea_orm::EnumIter;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::fair_queue::Tenant;
use super::response_size::ResponseSize;

tokio::task_local! {
    /// The request of the current task. Background jobs and commands have none, except work in [`run_as`].
    static REQUEST: RequestContext;
}

/// The facts about the request that a task works for.
#[derive(Clone, Default)]
pub struct RequestContext {
    /// The tenant for which connections are taken.
    pub tenant: Tenant,
    pub work: Arc<WorkCounter>,
    /// Counts the bytes of the response while it is built. `None` during authentication and in [`run_as`].
    pub response: Option<Arc<ResponseSize>>,
    /// True if the request executes one root field at a time. Such a request usually submits one read or write at a
    /// time, so its leader need not wait for another one.
    pub is_sequential: bool,
    /// Counts the request as running until its work ends. `None` in [`run_as`].
    pub running: Option<TaskTrackerToken>,
}

/// A kind of work that a request does. The amounts depend only on the request and on the rows that it finds, with these
/// exceptions. The number of [statements](Self::Statement) can vary, and with it the number of queries for lists below
/// several root fields. A write that runs again after a conflict repeats its work. If there is no memory for the rows
/// of a scan, all rows count that the scan may check.
#[derive(Clone, Copy, EnumIter)]
pub enum Work {
    /// A statement that was sent. `BEGIN`, `COMMIT` and `ROLLBACK` do not count.
    Statement,
    /// A query for rows. If several requests share a statement, each of them counts its own query. A `UNION ALL` of
    /// several lists counts as one query. `Operators::find_by_ids` counts nothing: operators are cached, and the cost
    /// of a request must not depend on the contents of the cache.
    Query,
    /// A row that was read.
    Row,
    /// An index entry that was counted or sorted, or that was skipped to find a milestone of a scan (see
    /// `database/pages/scan.rs`).
    Entry,
    /// A row that was checked against a filter of a scan.
    Check,
    /// A row that was written.
    Write,
    /// A value of the response that `graphql::json_writer` wrote, or a value of a list that was too large.
    Value,
    /// 4 KiB of the body or of the query string. Less than 4 KiB counts nothing.
    Parameters,
}

/// The amount of each kind of [`Work`].
#[derive(Default)]
pub struct WorkCounter {
    statements: AtomicU64,
    queries: AtomicU64,
    rows: AtomicU64,
    entries: AtomicU64,
    checks: AtomicU64,
    writes: AtomicU64,
    values: AtomicU64,
    parameters: AtomicU64,
}

impl WorkCounter {
    pub fn get(&self, work: Work) -> u64 {
        self.amount(work).load(Ordering::Relaxed)
    }

    /// Adds work.
    pub fn count(&self, work: Work, amount: u64) {
        self.amount(work).fetch_add(amount, Ordering::Relaxed);
    }

    fn amount(&self, work: Work) -> &AtomicU64 {
        match work {
            Work::Statement => &self.statements,
            Work::Query => &self.queries,
            Work::Row => &self.rows,
            Work::Entry => &self.entries,
            Work::Check => &self.checks,
            Work::Write => &self.writes,
            Work::Value => &self.values,
            Work::Parameters => &self.parameters,
        }
    }
}

impl RequestContext {
    /// Runs `work` as work of this request.
    pub fn scope<T>(self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        REQUEST.scope(self, work)
    }
}

/// Runs work that belongs to no request. The work takes its connections for `tenant`.
pub async fn run_as<T>(tenant: Tenant, work: impl Future<Output = T>) -> T {
    RequestContext { tenant, ..RequestContext::default() }.scope(work).await
}

/// Returns the tenant of the current request.
pub fn tenant() -> Tenant {
    REQUEST.try_with(|request| request.tenant).unwrap_or_default()
}

/// Returns the size of the response to the current request.
pub fn response() -> Option<Arc<ResponseSize>> {
    REQUEST.try_with(|request| request.response.clone()).ok().flatten()
}

/// Returns true if nothing can join a batch that the current request opens now.
pub fn is_alone() -> bool {
    let runs_alone = |token: &TaskTrackerToken| token.task_tracker().len() == 1;
    let is_alone = |request: &RequestContext| request.is_sequential && request.running.as_ref().is_some_and(runs_alone);
    REQUEST.try_with(is_alone).unwrap_or_default()
}

/// Adds work to the current request. Does nothing outside a request.
pub fn count_work(work: Work, amount: u64) {
    let _ = REQUEST.try_with(|request| request.work.count(work, amount));
}

/// Adds a query, and the number of rows that it has found, to the work of the current request.
pub fn count_query(rows: usize) {
    count_work(Work::Query, 1);
    count_work(Work::Row, rows as u64);
}
