//! Leaves a part of each page of the `customer` table free on PostgreSQL, so that the new version of an updated row
//! fits on the page of the old one. PostgreSQL then adds no entries to the indexes of the table (a "heap-only tuple").
//! On a full page, nearly each first update of a row adds an entry to each of these indexes.
//!
//! Pages that exist already stay full until their rows are updated or deleted.

use sea_orm_migration::prelude::*;

use crate::alter_customer_on_postgres;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // In percent. The rest of a page has space for the new versions of several rows.
        alter_customer_on_postgres(manager, "SET (fillfactor = 85)").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        alter_customer_on_postgres(manager, "RESET (fillfactor)").await
    }
}
