//! Creates the search index. `vivamo migrate` then fills the index for the existing customers.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;
use sea_orm_migration::sea_orm::DatabaseBackend;

use crate::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let is_postgres = manager.get_database_backend() == DatabaseBackend::Postgres;
        // The column is compared byte by byte, so that a prefix is a range of the index on both databases.
        let mut word = text_null("word");
        if is_postgres {
            word.extra(r#"COLLATE "C""#);
        }
        // The table has no foreign keys, because they would cost a dozen checks per customer. Foreign keys are not
        // necessary, because the words of a link between a customer and an operator are written in the same transaction
        // as the link.
        let mut words = Table::create()
            .table("customer_word")
            .col(uuid("operator_id"))
            .col(uuid("customer_id"))
            .col(small_integer("place"))
            .col(word)
            .primary_key(
                Index::create().name("customer_word_pkey").col("operator_id").col("customer_id").col("place").primary(),
            )
            .to_owned();
        if !is_postgres {
            words.extra("WITHOUT ROWID");
        }
        manager.create_table(words).await?;
        let by_word = index("customer_word_word_idx", "customer_word", &["operator_id", "word", "customer_id"]);
        manager.create_index(by_word).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("customer_word").to_owned()).await
    }
}
