//! Applies the migrations.

use std::time::{Duration, Instant};

use migration::{Migrator, MigratorTrait};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, IsolationLevel, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};

use super::dedicated_connection::connect;
use super::error::{is_busy, is_lock_timeout};
use super::url::DatabaseOptions;

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
    /// The longest time to wait for a connection, and for other writers of a SQLite file. Not every command shows that
    /// it waits.
    const MAX_WAIT: Duration = Duration::from_secs(60);
    let connection = connect(DatabaseOptions::parse(url)?, MAX_WAIT).await?;
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
            Err(error) if is_busy(&error) && started.elapsed() < MAX_WAIT => {}
            applied => break applied?,
        }
        if !is_waiting {
            is_waiting = true;
            let cause = if connection.get_database_backend() == DbBackend::Postgres {
                "another transaction holds a lock on a table. Find the transaction in pg_stat_activity or \
                 pg_prepared_xacts, and end it"
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
