//! Creates the table of webhook endpoints, and adds two columns to the audit log: the endpoint, and the operator's key
//! that made the change. No statement rewrites a table or reads its rows.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

use crate::{NewColumn, add_columns, drop_columns, foreign_key, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The new columns, each with its table.
fn columns() -> [NewColumn; 2] {
    ["webhook_id", "caller_key_id"].map(|column| ("admin_event", uuid_null(column).take()))
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_columns(manager, columns()).await?;
        manager
            .create_table(
                Table::create()
                    .table("webhook")
                    .col(pk_uuid("id"))
                    .col(uuid("operator_id"))
                    .col(text("url"))
                    .col(json_binary_null("types"))
                    .col(integer("secret_version"))
                    .col(timestamp_with_time_zone("secret_created_at"))
                    .col(timestamp_with_time_zone_null("previous_secret_until"))
                    .col(big_integer("delivered_position"))
                    .col(uuid("delivered_id"))
                    .col(big_integer_null("sending_position"))
                    .col(uuid_null("sending_id"))
                    .col(integer("failed_attempts"))
                    .col(timestamp_with_time_zone_null("failing_since"))
                    .col(timestamp_with_time_zone("next_attempt_at"))
                    .col(timestamp_with_time_zone_null("lease_until"))
                    .col(timestamp_with_time_zone_null("last_attempt_at"))
                    .col(integer_null("last_status"))
                    .col(text_null("last_failure"))
                    .col(timestamp_with_time_zone_null("disabled_at"))
                    .col(timestamp_with_time_zone_null("paused_at"))
                    .col(timestamp_with_time_zone("created_at"))
                    .foreign_key(&mut foreign_key("webhook_operator_id_fkey", "webhook", "operator_id", "operator"))
                    .to_owned(),
            )
            .await?;
        for (name, columns) in [
            ("webhook_operator_id_idx", &["operator_id", "id"][..]),
            // The index finds the endpoints whose next attempt is due. In the rows of these endpoints, `disabled_at`
            // and `paused_at` are null.
            ("webhook_next_attempt_at_idx", &["disabled_at", "paused_at", "next_attempt_at"]),
        ] {
            manager.create_index(index(name, "webhook", columns)).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The earlier version cannot read these entries.
        manager.get_connection().execute_unprepared("DELETE FROM admin_event WHERE webhook_id IS NOT NULL").await?;
        manager.drop_table(Table::drop().table("webhook").to_owned()).await?;
        drop_columns(manager, columns()).await
    }
}
