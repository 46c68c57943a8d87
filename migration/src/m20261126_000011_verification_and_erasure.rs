//! Adds the times of verification to customers, the verified field to history entries, and the receipts of erasures. No
//! statement rewrites a table or reads its rows.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

use crate::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The new columns, each with its table. Each takes a statement of its own, because SQLite alters one column at a time.
fn columns() -> [(&'static str, ColumnDef); 3] {
    [
        ("customer", timestamp_with_time_zone_null("email_verified_at").take()),
        ("customer", timestamp_with_time_zone_null("phone_verified_at").take()),
        ("customer_event", text_null("verified_field").take()),
    ]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, mut column) in columns() {
            manager.alter_table(Table::alter().table(table).add_column(&mut column).to_owned()).await?;
        }
        manager
            .create_table(
                Table::create()
                    .table("erasure")
                    .col(pk_uuid("id"))
                    .col(uuid("customer_id"))
                    .col(timestamp_with_time_zone("erased_at"))
                    .col(text("reference"))
                    .col(uuid("request_id"))
                    .col(integer("operators"))
                    .col(integer("entries"))
                    .to_owned(),
            )
            .await?;
        manager.create_index(index("erasure_customer_id_key", "erasure", &["customer_id"]).unique().to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("erasure").to_owned()).await?;
        for (table, column) in columns() {
            manager.alter_table(Table::alter().table(table).drop_column(column.get_column_name()).to_owned()).await?;
        }
        Ok(())
    }
}
