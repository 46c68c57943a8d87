//! Adds three columns to `deployment`, which a server compares before it serves: the migration that the server must know,
//! the last migration for which all search words were written, and the fingerprint of the key secret.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The new columns. Each takes a statement of its own, because SQLite alters one column at a time.
fn columns() -> [ColumnDef; 3] {
    [text_null("required_migration").take(), text_null("words_migration").take(), blob_null("key_fingerprint").take()]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for mut column in columns() {
            manager.alter_table(Table::alter().table("deployment").add_column(&mut column).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in columns() {
            manager
                .alter_table(Table::alter().table("deployment").drop_column(column.get_column_name()).to_owned())
                .await?;
        }
        Ok(())
    }
}
