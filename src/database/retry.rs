//! Retries after transaction conflicts.
//!
//! An attempt is run again only if the database has certainly rolled it back (see `error::is_conflict`). The whole
//! attempt runs again: it reads the current rows and applies all rules to them.

use std::time::{Duration, Instant};

use rand::RngExt;
use sea_orm::DbErr;

use super::error::{describe, is_conflict, is_lock_timeout};
use crate::error::{Error, ErrorCode, Violation};

/// An error that ends one attempt of a transaction.
pub enum TransactionError {
    /// A conflict with another transaction. Nothing was written, and another attempt may succeed.
    Conflict(DbErr),
    /// Any other error. It is returned to the caller unchanged.
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

impl From<Violation> for TransactionError {
    fn from(violation: Violation) -> Self {
        Self::Error(violation.into())
    }
}

impl From<TransactionError> for Error {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Conflict(error) => error.into(),
            TransactionError::Error(error) => error,
        }
    }
}

/// Runs `attempt` until it ends without a conflict. Returns `UNAVAILABLE` if conflicts last longer than `max_wait`.
///
/// `operation` names the work in the log and in the metric, for example `key.create`.
pub(super) async fn with_retry<T, F>(
    max_wait: Duration,
    operation: &'static str,
    attempt: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, TransactionError>>,
{
    let retried = retry(max_wait, operation, attempt, |error| match error {
        TransactionError::Conflict(error) => Some(error),
        TransactionError::Error(_) => None,
    });
    retried.await.map_err(|error| match error {
        TransactionError::Error(error) => error,
        TransactionError::Conflict(_) => {
            let cause = format!("{operation}: transaction conflicts for too long");
            Error::Failed { code: ErrorCode::Unavailable, cause, is_logged: false }
        }
    })
}

/// Runs an attempt that changes no rows, for example a single statement that only reads, or the opening of a
/// connection, until the attempt ends without a conflict. Returns the last conflict if conflicts last longer than
/// `max_wait`.
pub(super) async fn retry_on_conflict<T, F>(max_wait: Duration, attempt: impl FnMut() -> F) -> Result<T, DbErr>
where
    F: Future<Output = Result<T, DbErr>>,
{
    retry(max_wait, "read", attempt, |error| is_conflict(error).then_some(error)).await
}

/// Retries with exponential backoff and full jitter. Limits the time and not the number of attempts, because the next
/// attempt may succeed even after many conflicts. Under the isolation level `serializable`, a busy row causes many
/// consecutive conflicts.
async fn retry<T, E, F>(
    max_wait: Duration,
    operation: &'static str,
    mut attempt: impl FnMut() -> F,
    conflict_of: impl Fn(&E) -> Option<&DbErr>,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let mut conflicts = 0;
    loop {
        let outcome = attempt().await;
        let conflict = outcome.as_ref().err().and_then(&conflict_of);
        let Some(conflict) = conflict.filter(|_| started.elapsed() <= max_wait) else { return outcome };
        conflicts += 1;
        tracing::debug!(operation, conflicts, cause = describe(conflict), "transaction conflict, retrying");
        metrics::counter!("vivamo_retries_total", "operation" => operation).increment(1);
        // Full jitter, because attempts that pause for the same time would conflict again. After a lock timeout the
        // pause is longer, 400 ms on average. The transaction that holds the lock is slow, and each attempt holds a
        // connection for 200 ms while it waits for the lock.
        let pause =
            rand::rng().random_range(if is_lock_timeout(conflict) { 200..600 } else { 0..1 << conflicts.min(7) });
        #[expect(clippy::disallowed_methods, reason = "the backoff")]
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}
