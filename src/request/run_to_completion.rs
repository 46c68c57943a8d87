//! Runs database work to completion even if the client disconnects.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tracing::Instrument;

use super::RequestContext;

/// Spawns `work` in a separate task, so that it completes even if the returned handle is dropped. The work counts as
/// work of `request`.
///
/// The HTTP server drops the future of a request when the client disconnects or the request times out. Without a
/// separate task, the work would be dropped too. If a statement was running, its connection would have to be closed. If
/// the work was the leader of a batch of writes, the whole batch would fail. The task is cancelled after `time_limit`.
pub fn run_to_completion<T: Send + 'static>(
    request: RequestContext,
    time_limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<Result<T, Elapsed>> {
    tokio::spawn(timeout(time_limit, request.scope(work)).in_current_span())
}
