//! Runs database work to completion even if the client disconnects.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tracing::Instrument;

use super::connection::STATEMENTS;

/// Spawns `work` in a task of its own, so that it completes even if the returned handle is dropped. Adds to `statements` the
/// SQL statements that the work sends, without `BEGIN`, `COMMIT` and `ROLLBACK`.
///
/// The HTTP server drops the future of a request when the client disconnects or the request times out. A connection that is
/// dropped in the middle of a statement must be closed, and the writes of a batch whose leader is dropped fail. The task is
/// cancelled after 20 s; by then the database is assumed not to answer any more.
pub fn run_to_completion<T: Send + 'static>(
    statements: Arc<AtomicUsize>,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<Result<T, Elapsed>> {
    const TIMEOUT: Duration = Duration::from_secs(20);
    tokio::spawn(timeout(TIMEOUT, STATEMENTS.scope(statements, work)).in_current_span())
}
