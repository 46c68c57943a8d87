//! The request that database work belongs to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fair_queue::Tenant;
use super::response_size::ResponseSize;

tokio::task_local! {
    /// The request of the current task. Background jobs and commands have none.
    pub(super) static REQUEST: RequestContext;
}

/// The facts about a request that the database layer needs.
#[derive(Clone, Default)]
pub struct RequestContext {
    /// The party that waits for connections.
    pub tenant: Tenant,
    /// The number of statements that the request has sent, without `BEGIN`, `COMMIT` and `ROLLBACK`.
    pub statements: Arc<AtomicUsize>,
    /// The size of the response. `None` during authentication.
    pub response: Option<Arc<ResponseSize>>,
}

/// Returns the tenant of the current request.
pub(super) fn tenant() -> Tenant {
    REQUEST.try_with(|request| request.tenant).unwrap_or_default()
}

/// Returns the size of the response to the current request.
pub(super) fn response() -> Option<Arc<ResponseSize>> {
    REQUEST.try_with(|request| request.response.clone()).ok().flatten()
}

/// Adds one to the statements of the current request. Does nothing outside a request.
pub(super) fn count_statement() {
    let _ = REQUEST.try_with(|request| request.statements.fetch_add(1, Ordering::Relaxed));
}
