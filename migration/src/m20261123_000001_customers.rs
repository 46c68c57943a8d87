//! Creates the tables of the deployment, operators, API keys, customers, and the links between customers and operators.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

use crate::{foreign_key, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("deployment")
                    .col(integer("id").primary_key())
                    .col(text("environment"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("operator")
                    .col(pk_uuid("id"))
                    .col(text("name"))
                    .col(timestamp_with_time_zone("created_at"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("api_key")
                    .col(pk_uuid("id"))
                    .col(uuid("operator_id"))
                    .col(text("name"))
                    .col(text("prefix"))
                    .col(blob("hash"))
                    .col(text("access"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone_null("revoked_at"))
                    .foreign_key(&mut foreign_key("api_key_operator_id_fkey", "api_key", "operator_id", "operator"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("customer")
                    .col(pk_uuid("id"))
                    .col(text("email"))
                    .col(text_null("phone"))
                    .col(text_null("first_name"))
                    .col(text_null("last_name"))
                    .col(json_binary_null("address"))
                    .col(integer("version"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone("updated_at"))
                    .to_owned(),
            )
            .await?;

        // PostgreSQL compares the column byte by byte, as SQLite does. Both databases then sort in the same order, and
        // the index supports prefix searches.
        let mut external_customer_id = text("external_customer_id");
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            external_customer_id.extra(r#"COLLATE "C""#);
        }
        manager
            .create_table(
                Table::create()
                    .table("customer_operator")
                    .col(uuid("operator_id"))
                    .col(uuid("customer_id"))
                    .col(external_customer_id)
                    .col(timestamp_with_time_zone("connected_at"))
                    .primary_key(
                        Index::create().name("customer_operator_pkey").col("operator_id").col("customer_id").primary(),
                    )
                    .foreign_key(&mut foreign_key(
                        "customer_operator_operator_id_fkey",
                        "customer_operator",
                        "operator_id",
                        "operator",
                    ))
                    .foreign_key(&mut foreign_key(
                        "customer_operator_customer_id_fkey",
                        "customer_operator",
                        "customer_id",
                        "customer",
                    ))
                    .to_owned(),
            )
            .await?;

        // The names follow PostgreSQL's convention. The service does not depend on them: after any unique violation it
        // reads the rows again to find the cause.
        for (name, table, columns) in [
            ("customer_email_key", "customer", &["email"][..]),
            ("customer_phone_key", "customer", &["phone"]),
            (
                "customer_operator_external_customer_id_key",
                "customer_operator",
                &["operator_id", "external_customer_id"],
            ),
            ("api_key_hash_key", "api_key", &["hash"]),
        ] {
            manager.create_index(index(name, table, columns).unique().to_owned()).await?;
        }
        for (name, table, columns) in [
            // The first two indexes are for pages of an operator's customers and for pages of a customer's operators.
            (
                "customer_operator_connected_at_idx",
                "customer_operator",
                &["operator_id", "connected_at", "customer_id"][..],
            ),
            ("customer_operator_customer_id_idx", "customer_operator", &["customer_id", "connected_at", "operator_id"]),
            ("api_key_operator_id_idx", "api_key", &["operator_id"]),
        ] {
            manager.create_index(index(name, table, columns)).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["customer_operator", "customer", "api_key", "operator", "deployment"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
