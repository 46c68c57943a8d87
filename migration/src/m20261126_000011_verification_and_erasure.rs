//! Adds the times of verification to customers, the verified field to history entries, and the receipts of erasures. No
//! statement rewrites a table or reads its rows.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

use crate::{NewColumn, add_columns, drop_columns, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The new columns, each with its table.
fn columns() -> [NewColumn; 3] {
    [
        ("customer", timestamp_with_time_zone_null("email_verified_at").take()),
        ("customer", timestamp_with_time_zone_null("phone_verified_at").take()),
        ("customer_event", text_null("verified_field").take()),
    ]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_columns(manager, columns()).await?;
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
        drop_columns(manager, columns()).await
    }
}
