//! Lets a loader fetch the values of its collected keys as soon as all resolvers wait for values.
//!
//! async-graphql's `DataLoader` fetches on a timer. On a busy machine, resolvers that run after the timer need another
//! statement. Here, a round of fetches starts only when all resolvers of the request are waiting, so the number of
//! statements depends on the query and not on the load. For example, operators with their customers and the history of
//! each customer take two rounds: one for the customers, one for the histories.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{self, Poll};

use async_graphql::futures_util::StreamExt;
use async_graphql::futures_util::future::BoxFuture;
use async_graphql::futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::task::block_in_place;

use crate::request::ResponseSize;

/// The fetches of one request that have not started.
#[derive(Clone, Default)]
pub struct LoadRounds(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl LoadRounds {
    /// Schedules a fetch for the next round.
    pub fn add(&self, fetch: BoxFuture<'static, ()>) {
        self.0.lock().push(fetch);
    }

    /// Runs the resolvers of a request. Starts the scheduled fetches whenever all resolvers wait.
    ///
    /// A large response is built outside the worker threads of the executor. The resolvers of a page run without a
    /// pause, so on a worker thread they would block other requests for tens of milliseconds.
    pub async fn run<T>(&self, resolvers: impl Future<Output = T>, size: &ResponseSize) -> T {
        let mut resolvers = pin!(resolvers);
        let mut running = FuturesUnordered::new();
        let mut poll = |context: &mut task::Context<'_>| {
            loop {
                if let Poll::Ready(output) = resolvers.as_mut().poll(context) {
                    return Poll::Ready(output);
                }
                running.extend(std::mem::take(&mut *self.0.lock()));
                match running.poll_next_unpin(context) {
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                }
            }
        };
        poll_fn(|context| if size.has_reservation() { block_in_place(|| poll(context)) } else { poll(context) }).await
    }
}
