//! Adds the status and the disclosure budget of operators, the staff member behind a change, and the administrative
//! audit log. The default of each new column is a constant, so no statement rewrites a table.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

use crate::{NewColumn, add_columns, drop_columns, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The new columns, each with its table.
fn columns() -> [NewColumn; 3] {
    [
        ("operator", text("status").default("active").take()),
        ("operator", integer_null("disclosures_per_hour").take()),
        ("customer_event", text_null("actor").take()),
    ]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_columns(manager, columns()).await?;
        // The table has no foreign keys, like the history of customers. Foreign keys are not necessary, because no code
        // deletes operators or API keys.
        manager
            .create_table(
                Table::create()
                    .table("admin_event")
                    .col(pk_uuid("id"))
                    .col(text("type"))
                    .col(timestamp_with_time_zone("occurred_at"))
                    .col(uuid("operator_id"))
                    .col(uuid_null("api_key_id"))
                    .col(json_binary("changed_fields"))
                    .col(uuid("request_id"))
                    .col(text_null("os_user"))
                    .col(text_null("actor"))
                    .to_owned(),
            )
            .await?;
        for (name, column) in
            [("admin_event_operator_id_idx", "operator_id"), ("admin_event_api_key_id_idx", "api_key_id")]
        {
            manager.create_index(index(name, "admin_event", &[column, "id"])).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("admin_event").to_owned()).await?;
        drop_columns(manager, columns()).await
    }
}
