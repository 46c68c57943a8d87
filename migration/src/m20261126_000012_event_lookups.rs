//! Adds the indexes that find the history entries of a request and of an API key. On PostgreSQL, the program has built
//! these indexes before the migrations begin, if the table existed at that time: see
//! [`build_large_indexes`](crate::build_large_indexes).

use sea_orm_migration::prelude::*;

use crate::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

pub(super) const TABLE: &str = "customer_event";

/// The indexes: name and columns.
pub(super) const INDEXES: [(&str, [&str; 2]); 2] =
    [("customer_event_request_id_idx", ["request_id", "id"]), ("customer_event_api_key_id_idx", ["api_key_id", "id"])];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, columns) in INDEXES {
            manager.create_index(index(name, TABLE, &columns).if_not_exists().to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in INDEXES {
            manager.drop_index(Index::drop().name(name).table(TABLE).to_owned()).await?;
        }
        Ok(())
    }
}
