//! Creates the change feed, and adds the `feed_base` column to `deployment`. On PostgreSQL, the position of a change is
//! the id of its transaction plus `feed_base`. No statement rewrites a table: the default of the new column is a
//! constant.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

use crate::{NewColumn, add_columns, drop_columns};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The new column, with its table.
fn columns() -> [NewColumn; 1] {
    [("deployment", big_integer("feed_base").default(0).take())]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_columns(manager, columns()).await?;
        // No foreign keys: a row outlives its customer.
        manager
            .create_table(
                Table::create()
                    .table("customer_change")
                    .col(uuid("reader_id"))
                    .col(big_integer("position"))
                    .col(uuid("id"))
                    .col(uuid("customer_id"))
                    .col(text_null("external_customer_id"))
                    .col(text("type"))
                    .col(integer("version"))
                    .col(json_binary("changed_fields"))
                    .col(boolean("own"))
                    .col(timestamp_with_time_zone("occurred_at"))
                    .col(boolean("swept"))
                    .primary_key(
                        Index::create()
                            .name("customer_change_pkey")
                            .col("reader_id")
                            .col("position")
                            .col("id")
                            .primary(),
                    )
                    .to_owned(),
            )
            .await?;
        // The index is for erasures, which remove the external ids of one customer, in ranges of entries.
        let index = "CREATE INDEX customer_change_customer_id_idx ON customer_change (customer_id, id) \
                     WHERE external_customer_id IS NOT NULL";
        manager.get_connection().execute_unprepared(index).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("customer_change").to_owned()).await?;
        drop_columns(manager, columns()).await
    }
}
