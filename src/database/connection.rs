//! A connection to PostgreSQL or SQLite.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use sea_orm::sea_query::Values;
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions, Connection as _, Executor, PgConnection, SqliteConnection};
use sea_orm::{DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use tokio::time::timeout;
use tracing::{Dispatch, debug, dispatcher};

use super::arrays::encode_for_postgres;
use super::error::{describe, is_outdated_statement, is_read_only, own_error};
use super::retry::retry_on_conflict;
use super::row_size::{postgres_row_size, sqlite_row_size};
use super::url::{DatabaseOptions, failed_to_connect};
use super::{DatabaseTimeouts, StatementObserver};
use crate::request::{ResponseSize, SizeError, Work, count_work};

/// The connection of the database driver.
enum Driver {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Driver {
    async fn connect(options: &DatabaseOptions, timeouts: &DatabaseTimeouts) -> Result<Self, DbErr> {
        Ok(match options {
            DatabaseOptions::Postgres(options) => {
                let mut connection = options.connect().await.map_err(failed_to_connect)?;
                connection.execute(AssertSqlSafe(session_settings(timeouts))).await.map_err(failed_to_connect)?;
                Self::Postgres(connection)
            }
            DatabaseOptions::Sqlite(options) => {
                let options = options.clone().busy_timeout(timeouts.wait);
                Self::Sqlite(options.connect().await.map_err(failed_to_connect)?)
            }
        })
    }
}

/// Returns the statements that set up a new connection to PostgreSQL.
///
/// - `statement_timeout`: a slow statement fails instead of holding its connection.
/// - `lock_timeout`: a statement fails if it waits too long for the lock of another transaction. Its request gives the
///   connection back, pauses and starts again. The timeout is shorter than `deadlock_timeout` (1 s), so it also ends
///   deadlocks.
/// - `idle_in_transaction_session_timeout`: if this service dies inside a transaction, PostgreSQL ends the session and
///   releases the locks of the transaction.
/// - `plan_cache_mode`: cached prepared statements are planned once per connection. Each statement is written so that
///   one index is good for all values, so a generic plan is as good as a custom plan.
/// - `enable_seqscan`: if this setting is on, a plan that was made while a table was empty scans the whole table after
///   the table has grown. This happened with the table of idempotency keys, which is emptied regularly: a create took
///   2.7 times as long.
/// - `jit`: compiling a plan takes longer than executing it. Up to version 17, PostgreSQL would compile plans that
///   contain a scan, because `enable_seqscan = off` makes scans look expensive.
/// - `enable_memoize`: the joins of a page look up each key once, so a cache of lookups only costs time.
///
/// These settings are sent as statements and not as startup parameters, because poolers such as pgbouncer may reject
/// startup parameters.
fn session_settings(timeouts: &DatabaseTimeouts) -> String {
    let DatabaseTimeouts { statement, lock, idle_in_transaction, .. } = timeouts;
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET plan_cache_mode = 'force_generic_plan'; SET enable_seqscan = off; SET jit = off; \
         SET enable_memoize = off",
        statement.as_millis(),
        lock.as_millis(),
        idle_in_transaction.as_millis()
    )
}

/// A connection to either database, and its [`State`].
pub(super) struct Connection {
    driver: Driver,
    state: State,
    /// The time after which PostgreSQL certainly has cancelled a statement.
    max_silence: Duration,
    observer: Option<StatementObserver>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// The last statement failed, perhaps because the connection is broken. The connection is pinged before reuse.
    Doubtful,
    /// A statement has been sent and has not ended. If the future of the statement was dropped, or the rest of its rows
    /// is not needed, the connection must be closed.
    Busy,
    /// PostgreSQL has rejected a statement for a reason that lasts as long as the session, so the connection must be
    /// closed: the session is read-only, and may stay so after the database accepts writes, or the statement
    /// [must be prepared again](is_outdated_statement).
    Rejecting,
}

/// The result of a ping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ping {
    Answered,
    /// The connection is lost.
    Failed,
    /// The database did not answer within a second: it is overloaded, or the connection is lost.
    TimedOut,
}

impl Connection {
    /// Opens a connection.
    pub(super) async fn open(
        options: &DatabaseOptions,
        timeouts: &DatabaseTimeouts,
        observer: Option<StatementObserver>,
    ) -> Result<Self, DbErr> {
        // The SQLite file may be locked for a moment while another process opens or closes it. The future is boxed,
        // because the future of each statement contains it and would otherwise be several times as large.
        let driver = Box::pin(retry_on_conflict(timeouts.wait, || Driver::connect(options, timeouts))).await?;
        // PostgreSQL needs a moment to cancel a statement, and the network needs a moment for its answer.
        let max_silence = timeouts.statement + Duration::from_secs(10);
        Ok(Self { driver, state: State::Ready, max_silence, observer })
    }

    /// Runs a query. Fails with a [`SizeError`] if the rows make `response` too large, or so large that the response
    /// must first wait for memory.
    pub(super) async fn query_all(
        &mut self,
        statement: Statement,
        response: Option<&ResponseSize>,
    ) -> Result<Vec<QueryResult>, DbErr> {
        self.count_statement(&statement.sql);
        let is_cached = is_cached(&statement.sql);
        let (sql, values) = (AssertSqlSafe(statement.sql), statement.values.unwrap_or(Values(Vec::new())));
        let query = async |driver: &mut Driver| {
            Ok(match driver {
                Driver::Postgres(connection) => {
                    let query = sqlx::query_with(sql, encode_for_postgres(values)?).persistent(is_cached);
                    collect(outside_spans(|| query.fetch(connection)), postgres_row_size, response).await?
                }
                Driver::Sqlite(connection) => {
                    let query = sqlx::query_with(sql, SqlxValues(values)).persistent(is_cached);
                    collect(outside_spans(|| query.fetch(connection)), sqlite_row_size, response).await?
                }
            })
        };
        let rows = self.run(query).await;
        if rows.as_ref().err().and_then(own_error::<SizeError>).is_some() {
            // The statement has not ended, and the database may still send many rows. A busy connection is closed when
            // it is dropped, and the statement ends because its next row cannot be sent. Otherwise the next request
            // with this connection would have to skip these rows.
            self.state = State::Busy;
        }
        rows
    }

    pub(super) async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.count_statement(&statement.sql);
        let is_cached = is_cached(&statement.sql);
        let (sql, values) = (AssertSqlSafe(statement.sql), statement.values.unwrap_or(Values(Vec::new())));
        let execute = async |driver: &mut Driver| {
            Ok(match driver {
                Driver::Postgres(connection) => sqlx::query_with(sql, encode_for_postgres(values)?)
                    .persistent(is_cached)
                    .execute(connection)
                    .await?
                    .into(),
                Driver::Sqlite(connection) => {
                    sqlx::query_with(sql, SqlxValues(values)).persistent(is_cached).execute(connection).await?.into()
                }
            })
        };
        self.run(execute).await
    }

    pub(super) async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        self.count_statement(sql);
        self.execute_uncounted(sql).await
    }

    /// Sends SQL without counting it as a statement of the request, for example `BEGIN`, `COMMIT` or `ROLLBACK`.
    pub(super) async fn execute_uncounted(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        let execute = async |driver: &mut Driver| match driver {
            Driver::Postgres(connection) => connection.execute(AssertSqlSafe(sql)).await.map(Into::into),
            Driver::Sqlite(connection) => connection.execute(AssertSqlSafe(sql)).await.map(Into::into),
        };
        self.run(execute).await
    }

    /// Copies SQLite's write-ahead log to the file and empties the log. Waits up to [`DatabaseTimeouts::wait`] for
    /// readers that use the log.
    pub(super) async fn empty_write_ahead_log(&mut self) -> Result<(), DbErr> {
        let checkpoint = Statement::from_string(DbBackend::Sqlite, "PRAGMA wal_checkpoint(TRUNCATE)");
        let rows = self.query_all(checkpoint, None).await?;
        // The first column is 1 if a reader still used the log.
        match rows.first().map(|row| row.try_get_by_index::<i32>(0)).transpose()? {
            Some(0) => Ok(()),
            Some(_) | None => Err(DbErr::Custom("a reader still uses the write-ahead log".to_owned())),
        }
    }

    /// Runs `send`, which sends a statement, and records the state of the connection. PostgreSQL cancels a statement
    /// earlier than `max_silence`. If it does not answer for so long, the connection counts as lost. It stays busy, so
    /// it is closed.
    async fn run<T>(&mut self, send: impl AsyncFnOnce(&mut Driver) -> Result<T, sqlx::Error>) -> Result<T, DbErr> {
        self.state = State::Busy;
        let is_postgres = matches!(self.driver, Driver::Postgres(_));
        let sent = send(&mut self.driver);
        let result = if is_postgres {
            let lost = |_| failed(sqlx::Error::Io(ErrorKind::TimedOut.into()));
            timeout(self.max_silence, sent).await.map_err(lost)?
        } else {
            sent.await
        };
        let result = result.map_err(failed);
        self.state = match &result {
            Ok(_) => State::Ready,
            Err(error) if is_postgres && (is_read_only(error) || is_outdated_statement(error)) => State::Rejecting,
            Err(_) => State::Doubtful,
        };
        result
    }

    /// Counts a statement and passes its text to the observer.
    fn count_statement(&self, sql: &str) {
        count_work(Work::Statement, 1);
        if let Some(observer) = &self.observer {
            observer(sql);
        }
    }

    /// Returns true if the connection must be closed.
    pub(super) fn is_unusable(&self) -> bool {
        matches!(self.state, State::Busy | State::Rejecting)
    }

    /// Returns true if the last statement has ended without an error.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Pings the database.
    pub(super) async fn ping(&mut self) -> Ping {
        let ping = self.run(async |driver| match driver {
            Driver::Postgres(connection) => connection.ping().await,
            Driver::Sqlite(connection) => connection.ping().await,
        });
        match timeout(Duration::from_secs(1), ping).await {
            Ok(Ok(())) => Ping::Answered,
            Ok(Err(_)) => Ping::Failed,
            Err(_elapsed) => Ping::TimedOut,
        }
    }

    pub(super) async fn close(self) {
        let closed = match self.driver {
            Driver::Postgres(connection) => connection.close().await,
            Driver::Sqlite(connection) => connection.close().await,
        };
        if let Err(error) = closed {
            // For example, PostgreSQL has closed the connection first.
            debug!(error = describe(&failed(error)), "cannot close a connection");
        }
    }
}

/// Returns true if the connection caches the prepared statement. A connection caches up to 100 prepared statements. The
/// longest statement of ordinary requests, for the histories of a page of 100 customers, has about 270 KiB. Longer
/// statements have a branch for each of many lists of different sizes, so they are rarely sent again, and would fill
/// the memory.
fn is_cached(sql: &str) -> bool {
    const MAX_BYTES: usize = 384 << 10;
    sql.len() <= MAX_BYTES
}

fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}

/// Makes a stream of rows outside of all spans. Otherwise sqlx enters and leaves the span of the request for each row.
fn outside_spans<S>(make: impl FnOnce() -> S) -> S {
    dispatcher::with_default(&Dispatch::none(), make)
}

/// Collects the rows of a query, and counts the bytes of the rows. Stops if the rows have too many bytes.
async fn collect<R: Into<QueryResult>>(
    mut rows: impl Stream<Item = Result<R, sqlx::Error>> + Unpin,
    size_of: fn(&R) -> usize,
    response: Option<&ResponseSize>,
) -> Result<Vec<QueryResult>, sqlx::Error> {
    let (mut results, mut size) = (Vec::new(), response.map(ResponseSize::rows));
    while let Some(row) = rows.try_next().await? {
        if let Some(size) = &mut size {
            size.add(size_of(&row)).map_err(|error| {
                // The caller counts only the rows that it gets. A read that must wait runs again, and counts then.
                if error == SizeError::TooLarge {
                    count_work(Work::Row, results.len() as u64);
                }
                sqlx::Error::Decode(error.into())
            })?;
        }
        results.push(row.into());
    }
    if let Some(size) = size {
        size.keep();
    }
    Ok(results)
}
