use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

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
            // Each entry would look for three rows and lock them, two of which all writers of an operator share. Nothing
            // deletes them; an entry is written with its customer, by an operator and a key that were just seen.
            for (name, ..) in REFERENCES {
                manager.drop_foreign_key(ForeignKey::drop().table("customer_event").name(name).to_owned()).await?;
            }
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            for (name, column, table) in REFERENCES {
                let references = ForeignKey::create().name(name).from("customer_event", column).to(table, "id").take();
                manager.create_foreign_key(references).await?;
            }
        }
        manager.alter_table(Table::alter().table("customer").drop_column("revision").to_owned()).await
    }
}
