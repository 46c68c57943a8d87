//! Creates the table of the history of customers, and the table of the results of requests with an idempotency key.
//! The rows of both tables are written in the transaction of the change.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

use crate::{foreign_key, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let references = |name, column, table| foreign_key(name, "customer_event", column, table);
        manager
            .create_table(
                Table::create()
                    .table("customer_event")
                    .col(pk_uuid("id"))
                    .col(uuid("customer_id"))
                    .col(uuid("operator_id"))
                    .col(uuid("api_key_id"))
                    .col(uuid("request_id"))
                    .col(text("type"))
                    .col(integer("version"))
                    .col(json_binary("before"))
                    .col(json_binary("after"))
                    .col(timestamp_with_time_zone("occurred_at"))
                    .foreign_key(&mut references("customer_event_customer_id_fkey", "customer_id", "customer"))
                    .foreign_key(&mut references("customer_event_operator_id_fkey", "operator_id", "operator"))
                    .foreign_key(&mut references("customer_event_api_key_id_fkey", "api_key_id", "api_key"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("idempotency_key")
                    .col(uuid("operator_id"))
                    .col(blob("key_hash"))
                    .col(blob("input_hash"))
                    .col(json_binary_null("result"))
                    .col(timestamp_with_time_zone("expires_at"))
                    .primary_key(
                        Index::create().name("idempotency_key_pkey").col("operator_id").col("key_hash").primary(),
                    )
                    .to_owned(),
            )
            .await?;
        // The first two indexes are for reading all entries of a customer, or only its entries by one operator.
        for (name, table, columns) in [
            ("customer_event_customer_id_idx", "customer_event", &["customer_id", "id"][..]),
            ("customer_event_operator_id_idx", "customer_event", &["customer_id", "operator_id", "id"]),
            ("idempotency_key_expires_at_idx", "idempotency_key", &["expires_at"]),
        ] {
            manager.create_index(index(name, table, columns)).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["idempotency_key", "customer_event"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
