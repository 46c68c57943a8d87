//! Allows history entries whose author is the platform, and history entries about the disconnection of a customer from
//! an operator.
//!
//! On PostgreSQL, the migration changes only the catalog. SQLite cannot drop the `NOT NULL` of a column, so on SQLite
//! the migration copies the table. Like the table on PostgreSQL, the copy has no foreign keys, because the history
//! outlives the rows that it refers to.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

use crate::{NewColumn, add_columns, drop_columns, foreign_key, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The columns that may be null from now on.
const NULLABLE: [&str; 2] = ["operator_id", "api_key_id"];

/// The columns of the table before this migration.
const COLUMNS: &str = "id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, occurred_at";

/// The new columns, each with its table.
fn columns() -> [NewColumn; 2] {
    [uuid_null("disconnected_operator_id"), text_null("reason")].map(|column| ("customer_event", column))
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let is_sqlite = manager.get_database_backend() == DatabaseBackend::Sqlite;
        if is_sqlite {
            copy_on_sqlite(manager, true).await?;
        } else {
            for column in NULLABLE {
                execute(manager, &format!("ALTER TABLE customer_event ALTER COLUMN {column} DROP NOT NULL")).await?;
            }
        }
        add_columns(manager, columns()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The earlier version cannot read these entries.
        let unknown = "operator_id IS NULL OR type NOT IN ('created', 'connected', 'updated')";
        execute(manager, &format!("DELETE FROM customer_event WHERE {unknown}")).await?;
        if manager.get_database_backend() == DatabaseBackend::Sqlite {
            return copy_on_sqlite(manager, false).await;
        }
        drop_columns(manager, columns()).await?;
        for column in NULLABLE {
            execute(manager, &format!("ALTER TABLE customer_event ALTER COLUMN {column} SET NOT NULL")).await?;
        }
        Ok(())
    }
}

/// Replaces the table by a copy. `is_nullable` decides whether the operator and the key may be null in the copy.
async fn copy_on_sqlite(manager: &SchemaManager<'_>, is_nullable: bool) -> Result<(), DbErr> {
    let id = if is_nullable { uuid_null } else { uuid };
    let mut copy = Table::create()
        .table("customer_event_copy")
        .col(pk_uuid("id"))
        .col(uuid("customer_id"))
        .col(id("operator_id"))
        .col(id("api_key_id"))
        .col(uuid("request_id"))
        .col(text("type"))
        .col(integer("version"))
        .col(json_binary("before"))
        .col(json_binary("after"))
        .col(timestamp_with_time_zone("occurred_at"))
        .to_owned();
    if !is_nullable {
        for (column, table) in [("customer_id", "customer"), ("operator_id", "operator"), ("api_key_id", "api_key")] {
            let name = format!("customer_event_{column}_fkey");
            copy.foreign_key(&mut foreign_key(&name, "customer_event_copy", column, table));
        }
    }
    manager.create_table(copy).await?;
    execute(manager, &format!("INSERT INTO customer_event_copy ({COLUMNS}) SELECT {COLUMNS} FROM customer_event"))
        .await?;
    manager.drop_table(Table::drop().table("customer_event").to_owned()).await?;
    manager.rename_table(Table::rename().table("customer_event_copy", "customer_event").to_owned()).await?;
    for (name, columns) in [
        ("customer_event_customer_id_idx", &["customer_id", "id"][..]),
        ("customer_event_operator_id_idx", &["customer_id", "operator_id", "id"]),
    ] {
        manager.create_index(index(name, "customer_event", columns)).await?;
    }
    Ok(())
}

async fn execute(manager: &SchemaManager<'_>, sql: &str) -> Result<(), DbErr> {
    manager.get_connection().execute_unprepared(sql).await.map(|_| ())
}
