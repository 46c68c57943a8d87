//! Adds three columns to `deployment`. A server reads these columns before it serves requests. `required_migration`
//! names the migration that a server must know in order to write. `words_migration` is the value that `SEARCH_WORDS`
//! had when the search words of all customers were last written. `key_fingerprint` is the fingerprint of the key
//! secret.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

use crate::{NewColumn, add_columns, drop_columns};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The new columns, each with its table.
fn columns() -> [NewColumn; 3] {
    let columns = [text_null("required_migration"), text_null("words_migration"), blob_null("key_fingerprint")];
    columns.map(|column| ("deployment", column))
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_columns(manager, columns()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_columns(manager, columns()).await
    }
}
