//! When what a loader collected is fetched: once every resolver that can go on has gone on.
//!
//! A loader that runs beside the resolvers fetches whenever its timer says so, and splits a page's rows into as many
//! statements as the load of the machine happens to make of it. Here it runs in their midst, after them, so that the
//! number of statements depends on the query alone.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use async_graphql::futures_util::StreamExt;
use async_graphql::futures_util::future::BoxFuture;
use async_graphql::futures_util::stream::FuturesUnordered;

/// The fetches of one request that have not begun.
#[derive(Clone, Default)]
pub struct LoadRounds(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl LoadRounds {
    pub fn add(&self, fetch: BoxFuture<'static, ()>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fetch);
    }

    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs the resolvers, and each time they all wait, the fetches that they have added.
    pub async fn during<T>(&self, resolvers: impl Future<Output = T>) -> T {
        let mut resolvers = pin!(resolvers);
        let mut running = FuturesUnordered::new();
        poll_fn(|context| {
            loop {
                if let Poll::Ready(done) = resolvers.as_mut().poll(context) {
                    return Poll::Ready(done);
                }
                running.extend(self.take());
                match running.poll_next_unpin(context) {
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}
