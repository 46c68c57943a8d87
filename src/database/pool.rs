//! The pool of connections.
//!
//! Requests do not use sqlx's own pool. That pool spawns a task and pings the server each time a connection is
//! returned, and no option turns this off. The pool of this module pings a connection only before reuse, and only if
//! the last statement failed or the connection was last taken out long ago ([`DatabaseTimeouts::ping_after`]). With a
//! single client, the pool of this module saves up to a quarter of the cost of a request (`docs/benchmarks.md`).

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts};
use parking_lot::Mutex;
use sea_orm::{ConnAcquireErr, DbBackend, DbErr};

use super::connection::{Connection, Ping};
use super::url::DatabaseOptions;
use super::{DatabaseTimeouts, StatementObserver};
use crate::request::{Claim, FairQueue, Permit, Tenant};

/// Opens connections for the pool and decides which of them can be used again.
pub(super) struct Manager {
    options: DatabaseOptions,
    timeouts: DatabaseTimeouts,
    observer: Option<StatementObserver>,
    /// The start and the result of the last ping without an answer.
    failed_ping: Mutex<Option<(Instant, Ping)>>,
}

impl Manager {
    /// Returns true if the connection was last taken out before another one failed its ping: both were probably lost
    /// together. Without this check, each lost connection would fail a request, or would be pinged for a second. A ping
    /// that timed out does not count for a connection that needs no ping: the database may only be slow.
    fn is_probably_lost(&self, metrics: &Metrics, needs_ping: bool) -> bool {
        let taken_at = metrics.recycled.unwrap_or(metrics.created);
        let failed_ping = *self.failed_ping.lock();
        failed_ping.is_some_and(|(start, ping)| taken_at <= start && (needs_ping || ping == Ping::Failed))
    }

    /// Pings a connection that is in the pool.
    async fn is_alive(&self, connection: &mut Connection) -> bool {
        let start = Instant::now();
        // Boxed, because this rare ping would otherwise make the future of every statement twice as large.
        let ping = Box::pin(connection.ping()).await;
        if ping != Ping::Answered {
            *self.failed_ping.lock() = Some((start, ping));
        }
        ping == Ping::Answered
    }
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = DbErr;

    async fn create(&self) -> Result<Connection, DbErr> {
        Connection::open(&self.options, &self.timeouts, self.observer.clone()).await
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<DbErr> {
        const MAX_AGE: Duration = Duration::from_secs(30 * 60);
        let needs_ping = !connection.is_ready() || metrics.last_used() >= self.timeouts.ping_after;
        let can_be_used = metrics.age() <= MAX_AGE && !self.is_probably_lost(metrics, needs_ping);
        let is_usable = can_be_used && (!needs_ping || self.is_alive(connection).await);
        if is_usable { Ok(()) } else { Err(RecycleError::message("the connection cannot be used again")) }
    }
}

/// A pool with a maximum number of connections. Clones share the connections.
///
/// - **Acquire:** [`get`](Self::get) returns an idle connection, opens a new one, or waits up to
///   [`DatabaseTimeouts::wait`] until a connection is returned. Tenants share the connections equally: see
///   [`FairQueue`].
/// - **Return:** a connection returns to the pool when it is dropped, without a round trip. It is checked before its
///   next use: see [`Manager`].
/// - **Error:** after a failed statement the connection is pinged before it is used again, or closed if the session is
///   read-only.
/// - **Cancellation:** if a future is dropped in the middle of a statement, its connection is closed immediately.
///   Otherwise the next statement would first have to wait for the end of this one and read its rows.
#[derive(Clone)]
pub(super) struct Pool {
    connections: managed::Pool<Manager>,
    /// Has one permit for each connection. Requests therefore wait only in this queue, and not in the queue of
    /// `connections`, which is not fair.
    queue: FairQueue,
}

/// The number of connections of a pool.
#[derive(Clone, Copy)]
pub struct PoolSize {
    /// All open connections, including the idle ones.
    pub open: usize,
    pub idle: usize,
}

/// A connection that was taken out of the pool. The connection returns to the pool when this value is dropped, unless
/// it is [unusable](Connection::is_unusable).
pub(super) struct PooledConnection {
    /// `None` only while this value is dropped.
    connection: Option<Object<Manager>>,
    /// Declared after the connection, so that it is dropped after the connection has returned to the pool.
    _permit: Permit,
}

impl PooledConnection {
    /// Closes the connection.
    pub(super) fn discard(mut self) {
        drop(self.connection.take().map(Object::take));
    }
}

impl Drop for PooledConnection {
    /// Closes an unusable connection. In the pool, the connection would stay open until its next use, and until then a
    /// stopped `BEGIN IMMEDIATE` could hold SQLite's write lock. A statement that is running ends when it sends its
    /// next row, or by itself: the database does not notice earlier that the connection was closed.
    fn drop(&mut self) {
        if let Some(unusable) = self.connection.take_if(|connection| connection.is_unusable()) {
            drop(Object::take(unusable));
        }
    }
}

impl Deref for PooledConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("the connection is set until the drop")
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("the connection is set until the drop")
    }
}

impl Pool {
    /// Creates a pool and opens its first connection, so that a wrong address fails here.
    pub(super) async fn open(
        options: DatabaseOptions,
        size: usize,
        timeouts: DatabaseTimeouts,
        observer: Option<StatementObserver>,
    ) -> Result<Self, DbErr> {
        let pool = managed::Pool::builder(Manager { options, timeouts, observer, failed_ping: Mutex::default() })
            .max_size(size)
            .timeouts(Timeouts { wait: None, create: Some(timeouts.wait), recycle: None })
            .runtime(Runtime::Tokio1)
            // The connection that was used last is the most likely to have the statement prepared.
            .queue_mode(QueueMode::Lifo);
        let connections = pool.build().map_err(|error| DbErr::Custom(error.to_string()))?;
        let pool = Self { connections, queue: FairQueue::new(size) };
        drop(pool.get(Tenant::Service).await?);
        Ok(pool)
    }

    pub(super) fn backend(&self) -> DbBackend {
        match self.connections.manager().options {
            DatabaseOptions::Postgres(_) => DbBackend::Postgres,
            DatabaseOptions::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    /// Returns the longest time that [`get`](Self::get) waits for its turn. For a new connection, it then waits at most
    /// as long again.
    pub(super) fn max_wait(&self) -> Duration {
        self.connections.manager().timeouts.wait
    }

    /// Takes a connection out of the pool.
    pub(super) async fn get(&self, claim: impl Into<Claim>) -> Result<PooledConnection, DbErr> {
        let permit = self.queue.acquire_within(claim, self.max_wait()).await;
        let permit = permit.ok_or(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))?;
        match self.connections.get().await {
            Ok(connection) => Ok(PooledConnection { connection: Some(connection), _permit: permit }),
            Err(PoolError::Backend(error)) => Err(error),
            Err(PoolError::Closed) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
            Err(_) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)),
        }
    }

    pub(super) fn size(&self) -> PoolSize {
        let status = self.connections.status();
        PoolSize { open: status.size, idle: status.available }
    }

    /// Returns the number of requests that wait for a connection.
    pub(super) fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Closes the idle connections. Connections in use are closed when they are returned.
    pub(super) async fn close(&self) {
        let idle = self.connections.retain(|_, _| false).removed;
        self.connections.close();
        for connection in idle {
            connection.close().await;
        }
    }
}
