//! Applies migrations, inspects databases and backs up databases. Uses a separate connection, because SeaORM's migrator
//! needs a [`DatabaseConnection`].

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use migration::{Migrator, MigratorTrait};
use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::sqlx::sqlite::SqlitePoolOptions;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, IsolationLevel, SqliteTransactionMode,
    SqlxPostgresConnector, SqlxSqliteConnector, Statement, TransactionOptions, TransactionTrait,
};

use super::connect_error::grant_tables;
use super::error::{is_busy, is_conflict, is_lock_timeout, is_read_only};
use super::retry::retry_read;
use super::url::{Options, failed_to_connect};
use super::{Database, MAX_DATABASE_WAIT, url};

/// Facts about a database that decide whether this version may use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Names of the migrations that have not been applied yet.
    pub pending: Vec<String>,
    /// Names of applied migrations that this version does not know.
    pub unknown: Vec<String>,
    /// The reason why the database cannot be used: its encoding is wrong, or the service cannot write to it. `None` if
    /// no such reason was found. Write privileges are not checked while migrations are pending.
    pub problem: Option<Problem>,
    /// True if only a newer version of the program may write to the database. Always false while migrations are
    /// pending.
    pub is_outdated: bool,
}

/// A reason why a database cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The problem, as a sentence for the log.
    pub cause: String,
    /// An instruction that removes the problem. May contain an SQL statement to run.
    pub remedy: String,
}

/// Returns the number of migrations that the program knows.
pub fn migration_count() -> usize {
    Migrator::migrations().len()
}

/// Applies all pending migrations to the database at `url` in one transaction. On PostgreSQL, first builds the indexes
/// that `migration::build_large_indexes` lists. Processes that start at the same time take turns. Returns the names of
/// the migrations that this call applied.
pub async fn migrate(url: &str) -> Result<Vec<String>, DbErr> {
    /// The time between two attempts to lock the tables. Requests to a table wait behind a migration that waits for its
    /// lock, so they run between the attempts.
    const PAUSE: Duration = Duration::from_secs(1);
    /// The longest time to wait for other writers of a SQLite file. Not every command shows that it waits.
    const MAX_SQLITE_WAIT: Duration = Duration::from_secs(60);
    let connection = connect(Options::parse(url)?).await?;
    if connection.get_database_backend() == DbBackend::Postgres {
        // The role or the database may have time limits, which the build of an index on a large table would exceed.
        connection.execute_unprepared("SET statement_timeout = 0; SET lock_timeout = 0").await?;
        lock_migrations(&connection).await?;
        migration::build_large_indexes(&connection).await?;
    }
    let (started, mut is_waiting) = (Instant::now(), false);
    let applied = loop {
        match apply_pending(&connection).await {
            Err(error) if is_lock_timeout(&error) => {}
            Err(error) if is_busy(&error) && started.elapsed() < MAX_SQLITE_WAIT => {}
            applied => break applied?,
        }
        if !is_waiting {
            is_waiting = true;
            let cause = if connection.get_database_backend() == DbBackend::Postgres {
                "another transaction holds a lock on a table that they change: look for an old transaction in \
                 pg_stat_activity and pg_prepared_xacts, and end it"
            } else {
                "another process is writing to the database file"
            };
            tracing::warn!("migrations are waiting: {cause}");
        }
        #[expect(clippy::disallowed_methods, reason = "the backoff")]
        tokio::time::sleep(PAUSE).await;
    };
    connection.close().await?;
    Ok(applied)
}

/// Applies all pending migrations in one transaction, and returns their names. On PostgreSQL, fails with a lock timeout
/// if a migration waits for a lock longer than half a second.
async fn apply_pending(connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let is_postgres = connection.get_database_backend() == DbBackend::Postgres;
    let transaction = connection
        .begin_with_options(TransactionOptions {
            // A stricter isolation level would reject the update below if a server updates `deployment` in the
            // meantime.
            isolation_level: is_postgres.then_some(IsolationLevel::ReadCommitted),
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        })
        .await?;
    let apply = async || {
        if is_postgres {
            // While an `ALTER TABLE` waits for an older transaction, all later statements on the table wait for the
            // `ALTER TABLE`. The older transaction may itself wait for another table that the migrations have locked.
            transaction.execute_unprepared("SET LOCAL lock_timeout = '500ms'").await?;
        }
        let pending = Migrator::get_pending_migrations(&transaction).await?;
        Migrator::up(&transaction, None).await?;
        // The same transaction stores the required migration, so that an older server that still runs cannot write
        // after the migrations.
        let require = format!("UPDATE deployment SET required_migration = '{}'", migration::REQUIRED);
        transaction.execute_unprepared(&require).await?;
        Ok(pending.iter().map(|migration| migration.name().to_owned()).collect())
    };
    let applied = apply().await;
    match applied {
        Ok(_) => transaction.commit().await?,
        // A transaction that is only dropped is rolled back with the next statement on the connection. Until then it
        // would keep its locks.
        Err(_) => drop(transaction.rollback().await),
    }
    applied
}

/// Waits for the lock of migrations, which the connection then holds until it is closed. Asks for the lock repeatedly
/// instead of waiting in one statement. A waiting statement would hold a snapshot. The process that has the lock may
/// run `CREATE INDEX CONCURRENTLY`, which would wait for this snapshot.
async fn lock_migrations(connection: &DatabaseConnection) -> Result<(), DbErr> {
    const PAUSE: Duration = Duration::from_millis(100);
    /// Processes that start at the same time usually wait for less than this.
    const LONG: Duration = Duration::from_secs(5);
    let lock = Statement::from_string(DbBackend::Postgres, "SELECT pg_try_advisory_lock(8247619230001) AS is_locked");
    let (started, mut has_warned) = (Instant::now(), false);
    loop {
        let row = connection.query_one_raw(lock.clone()).await?;
        if row.is_some_and(|row| row.try_get("", "is_locked") == Ok(true)) {
            return Ok(());
        }
        if started.elapsed() > LONG && !has_warned {
            has_warned = true;
            tracing::warn!("migrations are waiting: another process is migrating the database");
        }
        #[expect(clippy::disallowed_methods, reason = "the backoff")]
        tokio::time::sleep(PAUSE).await;
    }
}

impl Database {
    /// Inspects the database on a new connection, so that the inspection fails if new connections are impossible.
    /// Changes nothing.
    pub async fn inspect(&self) -> Result<Inspection, DbErr> {
        let connection = connect((*self.options).clone().existing()).await?;
        let inspection = retry_read(|| inspect(&connection, &self.options)).await;
        connection.close().await?;
        inspection
    }

    /// Reads which migration a server must know in order to write, and rejects or allows the writes of this process
    /// accordingly. Returns false if writes are rejected.
    pub async fn check_version(&self) -> Result<bool, DbErr> {
        let may_write = knows_required_migration(self.reader()).await?;
        self.refuses_writes.store(!may_write, Ordering::Relaxed);
        Ok(may_write)
    }
}

async fn knows_required_migration(connection: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let sql = "SELECT required_migration FROM deployment";
    let row = connection.query_one_raw(Statement::from_string(connection.get_database_backend(), sql)).await?;
    let required: Option<String> = row.map(|row| row.try_get("", "required_migration")).transpose()?.flatten();
    Ok(required.is_none_or(|required| Migrator::migrations().iter().any(|migration| migration.name() == required)))
}

async fn inspect(connection: &DatabaseConnection, options: &Options) -> Result<Inspection, DbErr> {
    /// The encoding of the texts, and whether any migration was applied.
    const POSTGRES: &str = "SELECT current_setting('server_encoding') AS encoding, \
                            to_regclass('seaql_migrations') IS NOT NULL AS is_migrated";
    const SQLITE: &str = "SELECT encoding, EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'seaql_migrations') \
                          AS is_migrated FROM pragma_encoding";
    let backend = connection.get_database_backend();
    let sql = if backend == DbBackend::Postgres { POSTGRES } else { SQLITE };
    let row = connection.query_one_raw(Statement::from_string(backend, sql)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the encoding".to_owned()))?;
    let encoding: String = row.try_get("", "encoding")?;
    let mut applied = BTreeSet::new();
    if row.try_get("", "is_migrated")? {
        let versions = Statement::from_string(backend, "SELECT version FROM seaql_migrations");
        for row in connection.query_all_raw(versions).await? {
            applied.insert(row.try_get::<String>("", "version")?);
        }
    }
    let known: BTreeSet<_> = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let pending: Vec<_> = known.difference(&applied).cloned().collect();
    let is_unicode = ["UTF8", "UTF-8"].contains(&encoding.as_str());
    let problem = |cause: String, remedy: String| Some(Problem { cause, remedy });
    let problem = match options {
        Options::Postgres(_) if !is_unicode => problem(
            format!("The database encoding is {encoding}, which cannot store all Unicode names."),
            format!(
                "Use a database in UTF-8: CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'; then change \
                 {}.",
                url::SETTING
            ),
        ),
        Options::Sqlite(_) if !is_unicode => problem(
            format!("The database encoding is {encoding}, in which the order of strings differs from UTF-8."),
            format!("Use a new file: change {}.", url::SETTING),
        ),
        // The pending migrations will write, so they report if writing is impossible.
        _ if !pending.is_empty() => None,
        Options::Postgres(options) => postgres_write_problem(connection, options.get_username()).await?,
        Options::Sqlite(options) => {
            match connection.execute_unprepared("UPDATE deployment SET id = id WHERE 1 = 0").await {
                Err(error) if is_read_only(&error) => problem(
                    format!("The database file {} cannot be written.", options.get_filename().display()),
                    format!(
                        "Check the permissions of the file, of its -wal and -shm files and of its folder, and the parameters of {}.",
                        url::SETTING
                    ),
                ),
                // Another connection of this or another process is writing, so the database can be written.
                Err(error) if is_conflict(&error) => None,
                written => written.map(|_| None)?,
            }
        }
    };
    let is_outdated = pending.is_empty() && !knows_required_migration(connection).await?;
    Ok(Inspection { pending, unknown: applied.difference(&known).cloned().collect(), problem, is_outdated })
}

/// Returns a problem if the database is read-only, or if the role may not read or write a table. Checks only the tables
/// that have the same owner as the table of migrations, because an extension may have tables of its own.
async fn postgres_write_problem(connection: &DatabaseConnection, role: &str) -> Result<Option<Problem>, DbErr> {
    const SQL: &str = "SELECT current_setting('transaction_read_only') = 'on' AS is_read_only, \
        (SELECT COUNT(*) FROM pg_class AS t, pg_class AS m WHERE m.oid = to_regclass('seaql_migrations') AND t.oid <> m.oid \
         AND t.relkind = 'r' AND t.relnamespace = m.relnamespace AND t.relowner = m.relowner \
         AND NOT (has_table_privilege(t.oid, 'SELECT') AND has_table_privilege(t.oid, 'INSERT') \
         AND has_table_privilege(t.oid, 'UPDATE') AND has_table_privilege(t.oid, 'DELETE'))) AS closed_tables";
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, SQL)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the privileges".to_owned()))?;
    if row.try_get("", "is_read_only")? {
        let cause = "PostgreSQL does not accept writes to this database: it is a standby, or \
                     default_transaction_read_only is set.";
        let remedy = format!("Connect to the primary server: change {}.", url::SETTING);
        return Ok(Some(Problem { cause: cause.to_owned(), remedy }));
    }
    let closed_tables: i64 = row.try_get("", "closed_tables")?;
    Ok((closed_tables > 0).then(|| Problem {
        cause: format!("The role `{role}` lacks read or write privileges. Number of tables: {closed_tables}."),
        remedy: grant_tables(role),
    }))
}

/// Copies a SQLite database into an empty file while other processes use it. The copy is complete: it needs no `-wal`
/// file. `copy` is an absolute path, because SQLite takes a path that starts with `file:` for a URI.
pub async fn backup(url: &str, copy: &str) -> Result<(), DbErr> {
    let connection = connect(Options::parse_read_only(url)?).await?;
    let quoted = copy.replace('\'', "''");
    connection.execute_unprepared(&format!("VACUUM INTO '{quoted}'")).await?;
    connection.close().await
}

async fn connect(options: Options) -> Result<DatabaseConnection, DbErr> {
    retry_read(|| async {
        match &options {
            Options::Postgres(options) => {
                // The lock of migrations belongs to the connection, so the pool must not replace the connection.
                let pool =
                    PgPoolOptions::new().max_connections(1).acquire_timeout(MAX_DATABASE_WAIT).max_lifetime(None);
                pool.connect_with(options.clone()).await.map(SqlxPostgresConnector::from_sqlx_postgres_pool)
            }
            Options::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(MAX_DATABASE_WAIT);
                pool.connect_with(options.clone()).await.map(SqlxSqliteConnector::from_sqlx_sqlite_pool)
            }
        }
        .map_err(failed_to_connect)
    })
    .await
}
