//! Compares emails and phones byte by byte, as SQLite does. The order of a collation can change with an upgrade of the
//! operating system. The unique indexes would then be corrupt, and PostgreSQL would accept a second record of a person.
//!
//! PostgreSQL builds the indexes of the two columns again and does not rewrite the table.

use sea_orm_migration::prelude::*;

use crate::alter_customer_on_postgres;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

async fn set_collation(manager: &SchemaManager<'_>, collation: &str) -> Result<(), DbErr> {
    let columns = ["email", "phone"].map(|column| format!("ALTER COLUMN {column} TYPE text COLLATE \"{collation}\""));
    alter_customer_on_postgres(manager, &columns.join(", ")).await
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
