//! Applies and counts migrations. Uses a separate connection, because SeaORM's migrator needs a [`DatabaseConnection`].

use migration::{Migrator, MigratorTrait};
use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::sqlx::sqlite::SqlitePoolOptions;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, IsolationLevel, SqliteTransactionMode,
    SqlxPostgresConnector, SqlxSqliteConnector, TransactionOptions, TransactionTrait,
};

use super::connection::{Options, failed_to_connect};
use super::retry::retry_read;
use super::{Database, MAX_WAIT};

/// Returns how many migrations the program knows.
pub fn migration_count() -> usize {
    Migrator::migrations().len()
}

/// Applies all pending migrations to the database at `url` in one transaction. Processes that start at the same time take
/// turns.
pub async fn migrate(url: &str) -> Result<(), DbErr> {
    let connection = connect(Options::parse(url)?).await?;
    let is_postgres = connection.get_database_backend() == DbBackend::Postgres;
    let transaction = connection
        .begin_with_options(TransactionOptions {
            // At a stricter isolation level, PostgreSQL would take the snapshot before the transaction gets the lock
            // below. The snapshot would then miss the migrations of the process that held the lock.
            isolation_level: is_postgres.then_some(IsolationLevel::ReadCommitted),
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        })
        .await?;
    if is_postgres {
        transaction.execute_unprepared("SELECT pg_advisory_xact_lock(8247619230001)").await?;
    }
    Migrator::up(&transaction, None).await?;
    transaction.commit().await?;
    connection.close().await
}

impl Database {
    /// Returns how many migrations have not been applied yet. Writes nothing.
    pub async fn pending_migrations(&self) -> Result<usize, DbErr> {
        let connection = connect(self.options.clone().read_only()).await?;
        let pending = retry_read(|| Migrator::get_pending_migrations_read_only(&connection)).await?;
        connection.close().await?;
        Ok(pending.len())
    }
}

async fn connect(options: Options) -> Result<DatabaseConnection, DbErr> {
    retry_read(|| async {
        match &options {
            Options::Postgres(options) => {
                let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(MAX_WAIT);
                pool.connect_with(options.clone()).await.map(SqlxPostgresConnector::from_sqlx_postgres_pool)
            }
            Options::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(MAX_WAIT);
                pool.connect_with(options.clone()).await.map(SqlxSqliteConnector::from_sqlx_sqlite_pool)
            }
        }
        .map_err(failed_to_connect)
    })
    .await
}
