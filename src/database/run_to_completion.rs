//! Runs database work to completion even if the client disconnects.

use std::any::Any;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Fuse, FusedFuture};
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::connection::STATEMENTS;

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// A future that completes even if it is dropped.
///
/// The HTTP server drops the future of a request when the client disconnects or the request times out. A connection that is
/// dropped in the middle of a statement must be closed, and the writes of a batch fail for all members if the leader is
/// dropped.
///
/// - **Output:** the output of the work. If the work panics, `Err` with the panic's payload.
/// - **Drop:** the rest of the work moves to a spawned task, in the span in which this future was created. The task is
///   cancelled after 20 s: by then the database is assumed not to answer any more.
///
/// `tokio::spawn` and its `JoinHandle` would do the same with less code, but cost every request a task and a wake-up of
/// another thread, while few clients disconnect.
pub struct RunToCompletion<T: Send + 'static> {
    work: Fuse<BoxFuture<'static, Outcome<T>>>,
    span: Span,
}

impl<T: Send + 'static> RunToCompletion<T> {
    /// Wraps `work`. Adds to `statements` the SQL statements that the work sends, without `BEGIN`, `COMMIT` and `ROLLBACK`.
    pub fn new(statements: Arc<AtomicUsize>, work: impl Future<Output = T> + Send + 'static) -> Self {
        let work = AssertUnwindSafe(STATEMENTS.scope(statements, work)).catch_unwind();
        Self { work: work.boxed().fuse(), span: Span::current() }
    }
}

impl<T: Send + 'static> Future for RunToCompletion<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        self.work.poll_unpin(context)
    }
}

impl<T: Send + 'static> Drop for RunToCompletion<T> {
    fn drop(&mut self) {
        const TIMEOUT: Duration = Duration::from_secs(20);
        if !self.work.is_terminated() {
            let work = mem::replace(&mut self.work, Fuse::terminated());
            tokio::spawn(timeout(TIMEOUT, work).instrument(self.span.clone()));
        }
    }
}
