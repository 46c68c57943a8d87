//! Compares emails and phones byte by byte, as SQLite does. The order of a collation can change with an upgrade of the
//! operating system. The unique indexes would then be corrupt, and PostgreSQL would accept a second record of a person.
//!
//! PostgreSQL builds the indexes of the two columns again and does not rewrite the table.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

async fn set_collation(manager: &SchemaManager<'_>, collation: &str) -> Result<(), DbErr> {
    if manager.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let columns = ["email", "phone"].map(|column| format!("ALTER COLUMN {column} TYPE text COLLATE \"{collation}\""));
    manager.get_connection().execute_unprepared(&format!("ALTER TABLE customer {}", columns.join(", "))).await?;
    Ok(())
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        set_collation(manager, "C").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        set_collation(manager, "default").await
    }
}
