//! Connections that are kept open. The pool of the driver asks each one that comes back whether it is alive, which costs as
//! much as a small statement; here it is asked only where there is reason to doubt.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts};
use sea_orm::sea_query::Values;
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::{PgArguments, PgConnectOptions};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{
    self, AssertSqlSafe, ConnectOptions, Connection as _, Database, Executor, IntoArguments, PgConnection, Postgres,
    Sqlite, SqliteConnection,
};
use sea_orm::{ConnAcquireErr, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use tokio::time::timeout;

use super::{CONNECTION_TIMEOUT, StatementObserver, batch, retry_read};

tokio::task_local! {
    /// How many statements the task's request has sent.
    pub(super) static STATEMENTS: Arc<AtomicUsize>;
}

/// Counts a statement as one of the task's request.
pub(super) fn count_statement() {
    let _ = STATEMENTS.try_with(|statements| statements.fetch_add(1, Ordering::Relaxed));
}

/// How to open a connection.
#[derive(Clone)]
pub(super) enum Options {
    Postgres(PgConnectOptions),
    Sqlite(SqliteConnectOptions),
}

impl Options {
    /// `postgres://…` or `sqlite://…`; a SQLite file is created where there is none.
    pub(super) fn of(url: &str) -> Result<Self, DbErr> {
        // The statements of a request would be logged with what failed in them.
        Ok(if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url).map_err(failed_to_connect)?.disable_statement_logging();
            let options = options.create_if_missing(true).foreign_keys(true).journal_mode(SqliteJournalMode::Wal);
            // What was acknowledged outlives a loss of power.
            Self::Sqlite(options.synchronous(SqliteSynchronous::Full).busy_timeout(CONNECTION_TIMEOUT))
        } else {
            let options = PgConnectOptions::from_str(url).map_err(failed_to_connect)?.disable_statement_logging();
            Self::Postgres(options.application_name("vivamo"))
        })
    }

    /// The same for statements that write nothing.
    pub(super) fn read_only(self) -> Self {
        match self {
            Self::Postgres(options) => Self::Postgres(options),
            Self::Sqlite(options) => Self::Sqlite(options.create_if_missing(false).read_only(true)),
        }
    }

    pub(super) fn backend(&self) -> DbBackend {
        match self {
            Self::Postgres(_) => DbBackend::Postgres,
            Self::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    async fn connect(&self) -> Result<Driver, DbErr> {
        /// A statement that takes longer is given up; so is the transaction of a client that died in the middle, whose
        /// locks would outlive it. A statement is planned once, as if its values were not known: each is made to be found
        /// by one index, whatever they are. Not as options of the connection, which a pooler in between may refuse.
        const SESSION: &str = "SET statement_timeout = '5s'; SET idle_in_transaction_session_timeout = '10s'; \
                               SET plan_cache_mode = 'force_generic_plan'; SET enable_memoize = off";
        Ok(match self {
            Self::Postgres(options) => {
                let mut connection = options.connect().await.map_err(failed_to_connect)?;
                connection.execute(SESSION).await.map_err(failed_to_connect)?;
                Driver::Postgres(connection)
            }
            Self::Sqlite(options) => Driver::Sqlite(options.connect().await.map_err(failed_to_connect)?),
        })
    }
}

pub(super) fn failed_to_connect(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}

enum Driver {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

pub(super) struct Connection {
    driver: Driver,
    state: State,
    observer: Option<StatementObserver>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// Its last statement failed, perhaps because it is broken.
    Doubtful,
    /// In the middle of a statement. If nobody waits for its end any more, it is of no use.
    Busy,
}

impl Connection {
    pub(super) async fn query_all(&mut self, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.count(&statement.sql);
        self.state = State::Busy;
        let rows = match &mut self.driver {
            Driver::Postgres(connection) => rows::<Postgres>(connection, statement).await,
            Driver::Sqlite(connection) => rows::<Sqlite>(connection, statement).await,
        };
        self.done(rows).map_err(|error| DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))))
    }

    pub(super) async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.count(&statement.sql);
        self.state = State::Busy;
        let result = match &mut self.driver {
            Driver::Postgres(connection) => written::<Postgres>(connection, statement).await,
            Driver::Sqlite(connection) => written::<Sqlite>(connection, statement).await,
        };
        self.executed(result)
    }

    pub(super) async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        self.count(sql);
        self.command(sql).await
    }

    /// Sends what begins or ends a transaction, which does not count.
    pub(super) async fn command(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        self.state = State::Busy;
        let result = match &mut self.driver {
            Driver::Postgres(connection) => connection.execute(AssertSqlSafe(sql)).await.map(Into::into),
            Driver::Sqlite(connection) => connection.execute(AssertSqlSafe(sql)).await.map(Into::into),
        };
        self.executed(result)
    }

    fn executed(&mut self, result: Result<ExecResult, sqlx::Error>) -> Result<ExecResult, DbErr> {
        self.done(result).map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error))))
    }

    fn done<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.state = if result.is_ok() { State::Ready } else { State::Doubtful };
        result
    }

    fn count(&self, sql: &str) {
        count_statement();
        if let Some(observer) = &self.observer {
            observer(sql);
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.state == State::Busy
    }

    async fn is_alive(&mut self) -> bool {
        let ping = async {
            match &mut self.driver {
                Driver::Postgres(connection) => connection.ping().await,
                Driver::Sqlite(connection) => connection.ping().await,
            }
        };
        matches!(timeout(Duration::from_secs(1), ping).await, Ok(Ok(())))
    }

    async fn close(self) -> Result<(), DbErr> {
        let closed = match self.driver {
            Driver::Postgres(connection) => connection.close().await,
            Driver::Sqlite(connection) => connection.close().await,
        };
        closed.map_err(failed_to_connect)
    }
}

/// A database to which values can be sent.
trait Receives: Database {
    type Values: IntoArguments<Self>;

    fn values(values: Values) -> Result<Self::Values, BoxDynError>;
}

impl Receives for Postgres {
    type Values = PgArguments;

    fn values(values: Values) -> Result<PgArguments, BoxDynError> {
        batch::arguments(values)
    }
}

impl Receives for Sqlite {
    type Values = SqlxValues;

    fn values(values: Values) -> Result<SqlxValues, BoxDynError> {
        Ok(SqlxValues(values))
    }
}

fn query<D: Receives>(sql: &str, values: Option<Values>) -> Result<sqlx::query::Query<'_, D, D::Values>, sqlx::Error> {
    let values = D::values(values.unwrap_or(Values(Vec::new()))).map_err(sqlx::Error::Encode)?;
    Ok(sqlx::query_with(AssertSqlSafe(sql), values))
}

async fn written<'c, D: Receives>(
    connection: &'c mut D::Connection,
    statement: Statement,
) -> Result<ExecResult, sqlx::Error>
where
    &'c mut D::Connection: Executor<'c, Database = D>,
    D::QueryResult: Into<ExecResult>,
{
    query::<D>(&statement.sql, statement.values)?.execute(connection).await.map(Into::into)
}

async fn rows<'c, D: Receives>(
    connection: &'c mut D::Connection,
    statement: &Statement,
) -> Result<Vec<QueryResult>, sqlx::Error>
where
    &'c mut D::Connection: Executor<'c, Database = D>,
    D::Row: Into<QueryResult>,
{
    Ok(query::<D>(&statement.sql, statement.values.clone())?
        .fetch_all(connection)
        .await?
        .into_iter()
        .map(Into::into)
        .collect())
}

pub(super) struct Manager {
    options: Options,
    observer: Option<StatementObserver>,
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = DbErr;

    async fn create(&self) -> Result<Connection, DbErr> {
        // SQLite's file may be locked for a moment while another process opens or closes it.
        let driver = retry_read(|| self.options.connect()).await?;
        Ok(Connection { driver, state: State::Ready, observer: self.observer.clone() })
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<DbErr> {
        const OLD: Duration = Duration::from_secs(30 * 60);
        const IDLE: Duration = Duration::from_secs(30);
        let is_alive = match connection.state {
            State::Busy => false,
            _ if metrics.age() > OLD => false,
            State::Ready if metrics.last_used() < IDLE => true,
            State::Ready | State::Doubtful => connection.is_alive().await,
        };
        if is_alive { Ok(()) } else { Err(RecycleError::message("the connection is of no use")) }
    }
}

/// So many connections at most.
#[derive(Clone)]
pub(super) struct Pool(managed::Pool<Manager>);

impl Pool {
    /// Opens the first connection, to see that it can be done.
    pub(super) async fn open(
        options: Options,
        connections: usize,
        observer: &Option<StatementObserver>,
    ) -> Result<Self, DbErr> {
        let manager = Manager { options, observer: observer.clone() };
        let pool = managed::Pool::builder(manager)
            .max_size(connections)
            .timeouts(Timeouts { wait: Some(CONNECTION_TIMEOUT), create: Some(CONNECTION_TIMEOUT), recycle: None })
            .runtime(Runtime::Tokio1)
            // The one that was used last knows the statements.
            .queue_mode(QueueMode::Lifo);
        let pool = Self(pool.build().map_err(|error| DbErr::Custom(error.to_string()))?);
        drop(pool.get().await?);
        Ok(pool)
    }

    pub(super) fn backend(&self) -> DbBackend {
        self.0.manager().options.backend()
    }

    pub(super) async fn get(&self) -> Result<Object<Manager>, DbErr> {
        match self.0.get().await {
            Ok(connection) => Ok(connection),
            Err(PoolError::Backend(error)) => Err(error),
            Err(PoolError::Closed) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
            Err(_) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)),
        }
    }

    /// How many connections there are, and how many of them nobody uses.
    pub(super) fn size(&self) -> (usize, usize) {
        let status = self.0.status();
        (status.size, status.available)
    }

    /// Ends the connections that nobody uses, and leaves the others to those who do.
    pub(super) async fn close(&self) -> Result<(), DbErr> {
        let idle = self.0.retain(|_, _| false).removed;
        self.0.close();
        for connection in idle {
            connection.close().await?;
        }
        Ok(())
    }
}
