use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let references = |name: &str, column: &'static str, table: &'static str| {
            ForeignKey::create().name(name).from("customer_event", column).to(table, "id").take()
        };
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
        // The history of a customer: all of it for the platform, what it caused for an operator.
        for (name, table, columns) in [
            ("customer_event_customer_id_idx", "customer_event", &["customer_id", "id"][..]),
            ("customer_event_operator_id_idx", "customer_event", &["customer_id", "operator_id", "id"]),
            ("idempotency_key_expires_at_idx", "idempotency_key", &["expires_at"]),
        ] {
            let mut index = Index::create().name(name).table(table).to_owned();
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
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
