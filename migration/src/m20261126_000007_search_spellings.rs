//! Deletes the search words, because words are now folded and split in another way. `vivamo migrate` then writes the
//! words again from the customers.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Neither statement reads the rows: SQLite executes a DELETE without a condition by emptying the whole table.
        let is_postgres = manager.get_database_backend() == DatabaseBackend::Postgres;
        let delete_all = if is_postgres { "TRUNCATE TABLE customer_word" } else { "DELETE FROM customer_word" };
        manager.get_connection().execute_unprepared(delete_all).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.up(manager).await
    }
}
