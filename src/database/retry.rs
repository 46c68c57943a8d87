//! Retries after transaction conflicts.
//!
//! An attempt is run again only if the database has certainly rolled it back (see `error::is_conflict`). The whole attempt
//! runs again: it reads the current rows and applies all rules to them.

use std::time::{Duration, Instant};

use rand::RngExt;
use sea_orm::DbErr;

use super::MAX_WAIT;
use super::error::{describe, is_conflict};
use crate::error::{Error, ErrorCode};

/// An error that ends one attempt of a transaction.
pub enum TransactionError {
    /// A conflict with another transaction. Nothing was written, and another attempt may succeed.
    Conflict(DbErr),
    /// Any other error, which is returned to the caller unchanged.
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

/// Runs `attempt` until it ends without a conflict. Returns `UNAVAILABLE` if conflicts last longer than
/// `MAX_WAIT`.
///
/// `operation` names the work in the log and in the metric, for example `key.create`.
pub async fn with_retry<T, F>(operation: &'static str, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, TransactionError>>,
{
    let mut backoff = Backoff::new(operation);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(TransactionError::Error(error)) => return Err(error),
            Err(TransactionError::Conflict(error)) if backoff.wait(&error).await => {}
            Err(TransactionError::Conflict(_)) => {
                let cause = format!("{operation}: transaction conflicts for too long");
                return Err(Error::Failed { code: ErrorCode::Unavailable, cause });
            }
        }
    }
}

/// Runs a single statement that writes nothing until it ends without a conflict. Returns the conflict itself if conflicts
/// last longer than `MAX_WAIT`.
pub(super) async fn retry_read<T, F>(attempt: impl Fn() -> F) -> Result<T, DbErr>
where
    F: Future<Output = Result<T, DbErr>>,
{
    let mut backoff = Backoff::new("read");
    loop {
        match attempt().await {
            Err(error) if is_conflict(&error) && backoff.wait(&error).await => {}
            outcome => return outcome,
        }
    }
}

/// Exponential backoff with full jitter. The time is limited and not the number of attempts: under the isolation level
/// `serializable` a busy row causes many consecutive conflicts, and every attempt may succeed.
struct Backoff {
    operation: &'static str,
    started: Instant,
    conflicts: u32,
}

impl Backoff {
    fn new(operation: &'static str) -> Self {
        Self { operation, started: Instant::now(), conflicts: 0 }
    }

    /// Waits up to 128 ms before the next attempt. Returns false without waiting if the time for attempts is over.
    async fn wait(&mut self, conflict: &DbErr) -> bool {
        self.conflicts += 1;
        if self.started.elapsed() > MAX_WAIT {
            return false;
        }
        tracing::debug!(self.operation, self.conflicts, cause = describe(conflict), "transaction conflict, retrying");
        metrics::counter!("vivamo_retries_total", "operation" => self.operation).increment(1);
        // Full jitter: attempts that wait equally long would collide again.
        let pause = rand::rng().random_range(0..1 << self.conflicts.min(7));
        #[expect(clippy::disallowed_methods, reason = "the backoff")]
        tokio::time::sleep(Duration::from_millis(pause)).await;
        true
    }
}
