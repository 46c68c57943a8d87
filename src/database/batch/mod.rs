//! Batches: concurrent requests share one PostgreSQL statement, because most of the cost of a small statement is its
//! round trip.
//!
//! 1. A caller submits a request under a key. Requests with the same key can be run by one statement. Each
//!    [`BatchedQuery`] has its own batches and a single key, so all its reads can share a statement. The key of a write
//!    is its operator and the names of its [`WriteStatement`]s.
//! 2. The first caller per key becomes the leader. Later callers only wait for their results.
//! 3. The leader yields once to the scheduler, so that every task that is ready can submit its request too. If nothing
//!    else can join the batch, the leader does not yield, because a yield would wake another thread for nothing.
//! 4. If a batch of writes with this key is running whose leader has yielded, the leader waits until that batch ends,
//!    but not longer than 2 ms (`keyed_locks.rs`). In the meantime, more requests join the new batch. Batches of reads
//!    do not wait, because all operators share them.
//! 5. The leader takes all requests of its key. The first caller after that becomes the leader of the next batch.
//! 6. The leader runs the requests as one statement. A single write runs as a statement of the same form. A
//!    [`WriteStatement`] with one or two rows has `VALUES` instead of `unnest`. A single read runs as an ordinary
//!    query. A server without concurrent requests therefore pays nothing for batching.
//! 7. Each caller receives the result of its own request.
//!
//! If 32 clients send requests, batched reads, batched writes and the yield of step 3 each divide the processor time of
//! a request by 1.3 to 2.2 (`docs/benchmarks.md`). Without the yield, few batches would have more than one request.
//!
//! [`Batcher`] implements this protocol. [`BatchedQuery`] (`reads.rs`) and [`BatchWriter`] (`writes.rs`) use it. A
//! batch has no maximum size: only the number of requests in flight limits it.
//!
//! SQLite has no arrays and no round trip. On SQLite, a [`BatchedQuery`] runs each request by itself, and
//! [`OptimisticWrite`](super::OptimisticWrite) does not use the [`BatchWriter`]. On PostgreSQL, attempts that take row
//! locks and sets with [earlier sets](WriteSet::add_earlier) do not use it either.
//!
//! # Failures of reads
//!
//! - **The statement fails.** All members get the error. The [`Reader`](super::Reader) has already retried
//!   serialization failures.
//! - **The leader is cancelled.** Every other member runs its own read.
//!
//! # Failures of writes
//!
//! - **The database rejects the statement** (`error::is_statement_error`), for example because one member violates a
//!   unique constraint or has read an outdated revision. Nothing is written. Each caller then writes its own rows in a
//!   separate statement, at the same time as the other callers. Only the member at fault fails again.
//!   [`OptimisticWrite`](super::OptimisticWrite) then starts that member's request again, with row locks, if the error
//!   is a conflict.
//! - **Two members write the same row.** If both update the same customer, the `UPDATE` changes the row only once, so
//!   one row is missing, and the statement divides by zero (see below). If both have the same idempotency key, the
//!   `INSERT` fails, because `ON CONFLICT DO UPDATE` cannot change a row twice. In both cases the database rejects the
//!   statement. Then one of the two members succeeds, and the other member gets a conflict.
//! - **One member waits for a row lock.** A statement waits up to 200 ms for each lock (`lock_timeout`). After 200 ms
//!   the database rejects the statement. Then each caller runs a separate statement, and only the statement that needs
//!   the lock is rejected again, after another 200 ms. This second rejection counts as a conflict, so
//!   [`OptimisticWrite`](super::OptimisticWrite) pauses without a connection and then starts the request again.
//! - **Two batches write the same rows.** A batch writes the rows of its members in the order of their customer ids.
//!   Two batches therefore lock customers in the same order, which avoids most deadlocks. The order does not help for
//!   new customers, because new customers conflict by email or phone and not by id. The order does not help for
//!   idempotency keys either. If two batches wait for each other, `lock_timeout` ends at least one of them.
//! - **Any other error**, for example a lost connection, no free connection or a statement timeout. All members get the
//!   error, which is `UNAVAILABLE` in these examples. After a lost connection the rows may or may not be written.
//! - **The leader is cancelled.** All other members get the error of a lost connection (`UNAVAILABLE`), even if the
//!   leader had sent nothing yet. The members cannot know whether their rows were written. A request with an
//!   idempotency key then looks up its stored result once more.
//!
//! Operators never share a batch of writes, because the key contains the operator. A rejected or blocked write
//! therefore rolls back only writes of the same operator.
//!
//! # Cancelled leaders
//!
//! [`run_to_completion`](crate::request::run_to_completion()) finishes the work of a request even if its client
//! disconnects or the request times out. These events cancel no leader. A leader is cancelled if
//!
//! - its work is not done when its time limit ends,
//! - it panics,
//! - the process ends, or
//! - it reads for a GraphQL field, and another field of the same request fails: async-graphql drops the futures of the
//!   fields beside a failed non-null field. Mutations run one after the other, so this affects no write.
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
//! `new_0` holds the rows that all members write with their first statement, `write_0` writes these rows, and so on.
//!
//! ```sql
//! WITH new_0 ("id", "name", "revision") AS (SELECT * FROM unnest($1, $2, $3)),
//!      write_0 AS (UPDATE "customer" SET "name" = "new_0"."name", "revision" = "new_0"."revision" FROM "new_0"
//!                  WHERE "id" = "new_0"."id" AND "revision" = "new_0"."revision" - 1 RETURNING 1),
//!      new_1 ("operator_id", "customer_id", "place", "word") AS (SELECT * FROM unnest($4, $5, $6, $7)),
//!      write_1 AS (INSERT INTO "customer_word" ("operator_id", "customer_id", "place", "word")
//!                  SELECT "operator_id", "customer_id", "place", "word" FROM "new_1" WHERE TRUE)
//! SELECT 1 / ((SELECT COUNT(*) FROM write_0) = cardinality($1))::int
//! ```
//!
//! A [`WriteStatement`] with `must_write_all` must affect every row that it is given. Each such statement adds one
//! divisor. The divisor compares the number of rows that this statement has written with the number of rows that it was
//! given. A batch may have several divisors (`1 / … / …`), or none. If a row is missing, the divisor is 0, and the
//! division error rolls back everything. The whole SQL statement runs without `BEGIN` and `COMMIT`, which saves two
//! round trips. Without `BEGIN`, only an error inside the SQL statement can undo its writes. The error is a division by
//! zero, because SQL has no expression that raises an error on purpose.

mod keyed_locks;
mod reads;
mod statements;
mod write_set;
mod writes;

pub use reads::BatchedQuery;
pub use statements::{delete_in_cte, insert_from_cte, insert_from_select, update_from_cte};
pub use write_set::{WriteSet, WriteStatement, row_values};
pub(super) use writes::BatchWriter;

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task;

use crate::request::{Work, count_work, is_alone};
use keyed_locks::KeyedLocks;

/// Collects requests `T` of concurrent callers per key `K`, and distributes the results `R`.
struct Batcher<K, T, R> {
    /// Pending requests, grouped by batch key.
    open: Mutex<HashMap<K, Vec<Waiter<T, R>>>>,
    /// The locks of the running batches. `None` if batches of one key may run at the same time.
    locks: Option<KeyedLocks<K>>,
}

/// A request, and the channel to its caller.
type Waiter<T, R> = (T, oneshot::Sender<R>);

impl<K: Clone + Eq + Hash, T, R> Batcher<K, T, R> {
    /// Submits a request and returns its result. The leader of the batch calls `run`, which must return the results in
    /// the order of the requests. Returns `None` if the leader was cancelled, because a cancelled leader drops the
    /// senders of all results.
    async fn submit(&self, key: K, request: T, run: impl AsyncFnOnce(Vec<T>) -> Vec<R>) -> Option<R> {
        let (sender, result) = oneshot::channel();
        let is_leader = {
            let mut open = self.open.lock();
            let waiters = open.entry(key.clone()).or_default();
            waiters.push((request, sender));
            waiters.len() == 1
        };
        if is_leader {
            let mut batch = OpenBatch { batcher: self, key: Some(key.clone()) };
            let mut guard = None;
            if !is_alone() {
                task::yield_now().await;
                if let Some(locks) = &self.locks {
                    guard = Some(locks.lock_or_time_out(key).await);
                }
            }
            let (requests, senders): (Vec<_>, Vec<_>) = batch.close().into_iter().unzip();
            for (sender, result) in senders.into_iter().zip(run(requests).await) {
                let _ = sender.send(result);
            }
            drop(guard);
        } else {
            // The shared statement counts as one statement of each request in the batch.
            count_work(Work::Statement, 1);
        }
        result.await.ok()
    }
}

impl<K, T, R> Default for Batcher<K, T, R> {
    fn default() -> Self {
        Self { open: Mutex::default(), locks: None }
    }
}

/// A batch that callers may still join, owned by its leader. If the leader is cancelled, the batch and its requests are
/// dropped, and the callers get `None`.
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
    use std::task::Poll;

    use tokio_util::task::TaskTracker;

    use super::Batcher;
    use crate::request::RequestContext;

    #[tokio::test]
    async fn requests_that_are_ready_together_run_as_one_batch() {
        let batcher = Batcher::default();
        let submit =
            |request| batcher.submit("key", request, async |requests: Vec<u8>| vec![requests.clone(); requests.len()]);
        let (one, two, three) = tokio::join!(submit(1), submit(2), submit(3));
        assert_eq!([one, two, three], [Some(vec![1, 2, 3]), Some(vec![1, 2, 3]), Some(vec![1, 2, 3])]);
    }

    #[tokio::test]
    async fn a_leader_without_concurrent_requests_does_not_yield() {
        let batcher = Batcher::default();
        let running = TaskTracker::new();
        let polled = async |is_sequential| {
            let context = RequestContext { is_sequential, running: Some(running.token()), ..RequestContext::default() };
            let submit = batcher.submit("key", 1, async |requests: Vec<u8>| requests);
            let mut submit = Box::pin(context.scope(submit));
            futures::poll!(&mut submit)
        };
        assert_eq!(polled(true).await, Poll::Ready(Some(1)));
        assert_eq!(polled(false).await, Poll::Pending);
        let _other = running.token();
        assert_eq!(polled(true).await, Poll::Pending);
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
