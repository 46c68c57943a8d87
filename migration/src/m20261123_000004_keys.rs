//! Adds the expiry and the time of last use to API keys.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The new columns. Each takes a separate statement, because SQLite alters one column at a time.
fn columns() -> [ColumnDef; 2] {
    [timestamp_with_time_zone_null("expires_at").take(), timestamp_with_time_zone_null("last_used_at").take()]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for mut column in columns() {
            manager.alter_table(Table::alter().table("api_key").add_column(&mut column).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in columns() {
            manager
                .alter_table(Table::alter().table("api_key").drop_column(column.get_column_name()).to_owned())
                .await?;
        }
        Ok(())
    }
}
