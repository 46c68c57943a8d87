//! Adds the revision of a customer, by which writes detect concurrent changes. On PostgreSQL, also drops the foreign
//! keys of the history, because these keys made the writers of one operator wait for each other.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

use crate::foreign_key;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The foreign keys of `customer_event`: name, column and referenced table.
const REFERENCES: [(&str, &str, &str); 3] = [
    ("customer_event_customer_id_fkey", "customer_id", "customer"),
    ("customer_event_operator_id_fkey", "operator_id", "operator"),
    ("customer_event_api_key_id_fkey", "api_key_id", "api_key"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let revision = &mut integer("revision").default(1).take();
        manager.alter_table(Table::alter().table("customer").add_column(revision).to_owned()).await?;
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            // A foreign key locks the referenced row at each insert, and all writers of an operator would lock the same
            // rows: the operator and its key. The foreign keys are not necessary, because each request reads the
            // referenced rows before it inserts.
            for (name, ..) in REFERENCES {
                manager.drop_foreign_key(ForeignKey::drop().table("customer_event").name(name).to_owned()).await?;
            }
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            for (name, column, table) in REFERENCES {
                manager.create_foreign_key(foreign_key(name, "customer_event", column, table)).await?;
            }
        }
        manager.alter_table(Table::alter().table("customer").drop_column("revision").to_owned()).await
    }
}
