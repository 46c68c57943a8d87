//! Deletes the search words, because pairs of a first and a last name are now words too. `vivamo migrate` then writes
//! the words again from the customers.

use sea_orm_migration::prelude::*;

use crate::delete_search_words;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        delete_search_words(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        delete_search_words(manager).await
    }
}
