//! Leaves a part of each page of the `customer` table free on PostgreSQL, so that the new version of an updated row
//! fits on the page of the old one. PostgreSQL then adds no entries to the indexes of the table (a "heap-only tuple").
//! On a full page, nearly each first update of a row adds an entry to each of these indexes.
//!
//! Pages that exist already stay full until their rows are updated or deleted.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

async fn alter(manager: &SchemaManager<'_>, change: &str) -> Result<(), DbErr> {
    if manager.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    manager.get_connection().execute_unprepared(&format!("ALTER TABLE customer {change}")).await?;
    Ok(())
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // In percent. The rest of a page has space for the new versions of several rows.
        alter(manager, "SET (fillfactor = 85)").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        alter(manager, "RESET (fillfactor)").await
    }
}
