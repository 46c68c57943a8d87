//! Batches: concurrent requests share one statement of PostgreSQL, because the round trip is most of the cost of a small one.
//!
//! 1. A caller submits a request under a key. Requests with the same key can be run by one statement.
//! 2. The first caller per key becomes the leader. Later callers only wait for their results.
//! 3. The leader yields once to the scheduler, so that every task that is ready can submit its request too.
//! 4. The leader takes all requests of its key. A caller that comes later becomes the leader of the next batch.
//! 5. The leader runs the requests as one statement. A single request runs as an ordinary statement, so a server without
//!    concurrent requests pays nothing for batching.
//! 6. Each caller receives the result of its own request.
//!
//! [`Batcher`] is this protocol, [`BatchedQuery`] (`reads.rs`) and [`BatchWriter`] (`writes.rs`) use it. SQLite has no arrays
//! and no round trip, so there every request runs alone.
//!
//! # Failures
//!
//! - **The leader is cancelled.** The other callers get `None`. Reads then run alone. Writes return a lost connection
//!   (`UNAVAILABLE`), because the statement may have been committed.
//! - **The connection is lost.** All callers get that error.
//! - **One write is rejected**, for example by a unique constraint or a stale revision. The whole statement rolls back, and
//!   each write then runs alone, so only the one at fault fails.
//! - **One write waits for a row lock.** A batch waits 100 ms (`lock_timeout`), less than PostgreSQL takes to look for a
//!   deadlock. Then the statement rolls back, and each write runs alone.
//! - **Two batches write the same rows.** Each batch writes in the order of its members' ids, so that two batches do not
//!   wait for each other in a circle.
//! - **Operators** never share a batch of writes: the key contains the operator. One operator's rejected or blocked writes
//!   do not delay those of another.
//!
//! # A batched read
//!
//! Each parameter becomes an array with one element per request. Each row is labelled with the number of its request.
//!
//! ```sql
//! SELECT found.*, number
//! FROM unnest($1, $2) WITH ORDINALITY AS request (value_0, value_1, number)
//! CROSS JOIN LATERAL (
//!   SELECT … FROM "customer_operator" … WHERE "operator_id" = "request"."value_0" AND "email" = "request"."value_1"
//! ) AS found
//! ```
//!
//! # A batched write
//!
//! `new_0` holds the rows of the first statement of all members, `write_0` writes them, and so on. The final `SELECT` counts
//! the rows of the statements that must write all of theirs. If a row is missing, it divides by zero, which rolls back the
//! whole statement. The dividend is evaluated first and sets `lock_timeout`.
//!
//! ```sql
//! WITH new_0 ("id", "name", "revision") AS (SELECT * FROM unnest($1, $2, $3)),
//!      write_0 AS (UPDATE "customer" SET "name" = "new_0"."name", "revision" = "new_0"."revision" FROM "new_0"
//!                  WHERE "id" = "new_0"."id" AND "revision" = "new_0"."revision" - 1 RETURNING 1),
//!      new_1 ("operator_id", "customer_id", "place", "word") AS (SELECT * FROM unnest($4, $5, $6, $7)),
//!      write_1 AS (INSERT INTO "customer_word" ("operator_id", "customer_id", "place", "word")
//!                  SELECT "operator_id", "customer_id", "place", "word" FROM "new_1")
//! SELECT (SELECT 1 FROM set_config('lock_timeout', '100ms', true))
//!      / ((SELECT COUNT(*) FROM write_0) = cardinality($1))::int
//! ```

mod reads;
mod write_batch;
mod writes;

pub use reads::BatchedQuery;
pub use write_batch::{WriteBatch, WriteStatement, insert_from_select, row_values};
pub(super) use writes::BatchWriter;

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task;

use super::connection::count_statement;

/// Collects requests `T` of concurrent callers per key `K`, and distributes the results `R`.
struct Batcher<K, T, R> {
    /// Pending requests, grouped by batch key.
    open: Mutex<HashMap<K, Vec<Waiter<T, R>>>>,
}

/// A request, and the channel to its caller.
type Waiter<T, R> = (T, oneshot::Sender<R>);

impl<K: Clone + Eq + Hash, T, R> Batcher<K, T, R> {
    /// Submits a request and returns its result. The leader of the batch calls `run`, which must return the results in the
    /// order of the requests. Returns `None` if the leader was cancelled.
    async fn submit(&self, key: K, request: T, run: impl AsyncFnOnce(Vec<T>) -> Vec<R>) -> Option<R> {
        let (sender, result) = oneshot::channel();
        let is_leader = {
            let mut open = self.open.lock();
            let waiters = open.entry(key.clone()).or_default();
            waiters.push((request, sender));
            waiters.len() == 1
        };
        if is_leader {
            let mut batch = OpenBatch { batcher: self, key: Some(key) };
            task::yield_now().await;
            let (requests, senders): (Vec<_>, Vec<_>) = batch.close().into_iter().unzip();
            for (sender, result) in senders.into_iter().zip(run(requests).await) {
                let _ = sender.send(result);
            }
        } else {
            // The leader's statement is also one of this request.
            count_statement();
        }
        result.await.ok()
    }
}

impl<K, T, R> Default for Batcher<K, T, R> {
    fn default() -> Self {
        Self { open: Mutex::default() }
    }
}

/// The leader's hold on a batch that others may still join. If the leader is cancelled, it drops the waiters, whose callers
/// then get `None`.
struct OpenBatch<'a, K: Eq + Hash, T, R> {
    batcher: &'a Batcher<K, T, R>,
    /// `None` once the batch is closed.
    key: Option<K>,
}

impl<K: Eq + Hash, T, R> OpenBatch<'_, K, T, R> {
    /// Closes the batch and returns its waiters.
    fn close(&mut self) -> Vec<Waiter<T, R>> {
        self.key.take().and_then(|key| self.batcher.open.lock().remove(&key)).unwrap_or_default()
    }
}

impl<K: Eq + Hash, T, R> Drop for OpenBatch<'_, K, T, R> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Batcher;

    #[tokio::test]
    async fn requests_that_are_ready_together_run_as_one_batch() {
        let batcher = Batcher::default();
        let submit =
            |request| batcher.submit("key", request, async |requests: Vec<u8>| vec![requests.clone(); requests.len()]);
        let (one, two, three) = tokio::join!(submit(1), submit(2), submit(3));
        assert_eq!([one, two, three], [Some(vec![1, 2, 3]), Some(vec![1, 2, 3]), Some(vec![1, 2, 3])]);
    }

    #[tokio::test]
    async fn a_cancelled_leader_leaves_the_others_without_a_result() {
        let batcher = Batcher::default();
        let submit = |request| Box::pin(batcher.submit("key", request, async |requests: Vec<u8>| requests));
        let (mut leader, mut follower) = (submit(1), submit(2));
        assert!(futures::poll!(&mut leader).is_pending() && futures::poll!(&mut follower).is_pending());
        drop(leader);
        assert_eq!(tokio::join!(follower, submit(3)), (None, Some(3)));
    }

    #[tokio::test]
    async fn nothing_is_stored_after_the_batch() {
        let (key, request) = (Arc::new("key"), Arc::new("request"));
        let batcher = Batcher::default();
        let submit = || batcher.submit(key.clone(), request.clone(), async |requests: Vec<_>| requests);
        assert_eq!(tokio::join!(submit(), submit()), (Some(request.clone()), Some(request.clone())));
        assert_eq!((Arc::strong_count(&key), Arc::strong_count(&request)), (1, 1));
    }
}
