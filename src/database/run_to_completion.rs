//! Work that is done to its end.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::connection::STATEMENTS;

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// Work on the database that comes to its end even if nobody waits for it any more: a connection that is let go in the
/// middle of a statement is of no use to others. An error is what it panicked with.
pub struct RunToCompletion<T: Send + 'static> {
    /// `None` after the end.
    work: Option<BoxFuture<'static, Outcome<T>>>,
    span: Span,
}

impl<T: Send + 'static> RunToCompletion<T> {
    /// `statements` counts what it sends, but for the beginnings and ends of transactions.
    pub fn new(statements: Arc<AtomicUsize>, work: impl Future<Output = T> + Send + 'static) -> Self {
        let work = AssertUnwindSafe(STATEMENTS.scope(statements, work)).catch_unwind();
        Self { work: Some(work.boxed()), span: Span::current() }
    }
}

impl<T: Send + 'static> Future for RunToCompletion<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for RunToCompletion<T> {
    fn drop(&mut self) {
        /// After this long the database has gone silent.
        const SILENCE: Duration = Duration::from_secs(20);
        if let Some(work) = self.work.take() {
            tokio::spawn(timeout(SILENCE, work).instrument(self.span.clone()));
        }
    }
}
