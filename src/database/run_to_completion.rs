//! Runs database work to completion even if the client disconnects.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tracing::Instrument;

use super::connection::STATEMENTS;

/// Spawns `work` in a task of its own, so that it completes even if the returned handle is dropped. Adds the number of
/// SQL statements that the work sends to `statements`. Does not count `BEGIN`, `COMMIT` and `ROLLBACK`.
///
/// The HTTP server drops the future of a request when the client disconnects or the request times out. Without a task
/// of its own, the work would be dropped too. Its connection would have to be closed if a statement was running, and if
/// the work was the leader of a batch of writes, the whole batch would fail. The task is cancelled after 20 s, because
/// by then the database will most likely never answer.
pub fn run_to_completion<T: Send + 'static>(
    statements: Arc<AtomicUsize>,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<Result<T, Elapsed>> {
    const TIMEOUT: Duration = Duration::from_secs(20);
    tokio::spawn(timeout(TIMEOUT, STATEMENTS.scope(statements, work)).in_current_span())
}
