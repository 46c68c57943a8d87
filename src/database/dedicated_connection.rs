//! Connections outside the pools, for migrations, inspections and backups.

use std::time::Duration;

use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::sqlx::sqlite::SqlitePoolOptions;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, SqlxPostgresConnector, SqlxSqliteConnector};

use super::MAX_DATABASE_WAIT;
use super::retry::retry_on_conflict;
use super::url::{DatabaseOptions, failed_to_connect};

/// Copies a SQLite database into an empty file while other processes use it. The copy is complete: it needs no `-wal`
/// file. `copy` is an absolute path, because SQLite takes a path that starts with `file:` for a URI.
pub async fn backup(url: &str, copy: &str) -> Result<(), DbErr> {
    let connection = connect(DatabaseOptions::parse_read_only(url)?, MAX_DATABASE_WAIT).await?;
    let quoted = copy.replace('\'', "''");
    connection.execute_unprepared(&format!("VACUUM INTO '{quoted}'")).await?;
    connection.close().await
}

/// Opens a new connection, which may take up to `max_wait`. The connection is a [`DatabaseConnection`], because
/// SeaORM's migrator needs this type.
pub(super) async fn connect(options: DatabaseOptions, max_wait: Duration) -> Result<DatabaseConnection, DbErr> {
    retry_on_conflict(max_wait, || async {
        match &options {
            DatabaseOptions::Postgres(options) => {
                // The lock of migrations belongs to the connection, so the pool must not replace the connection.
                let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(max_wait);
                let pool = pool.max_lifetime(None).idle_timeout(None).test_before_acquire(false);
                pool.connect_with(options.clone()).await.map(SqlxPostgresConnector::from_sqlx_postgres_pool)
            }
            DatabaseOptions::Sqlite(options) => {
                let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(max_wait);
                pool.connect_with(options.clone()).await.map(SqlxSqliteConnector::from_sqlx_sqlite_pool)
            }
        }
        .map_err(failed_to_connect)
    })
    .await
}
