//! Replaces the index that reads the history of a customer: the entries are now in the order of the customer's
//! versions.

use sea_orm_migration::prelude::*;

use crate::index;
use crate::m20261126_000012_event_lookups::TABLE;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

pub(super) const INDEX: &str = "customer_event_customer_version_idx";

const OLD_INDEX: &str = "customer_event_customer_id_idx";

pub(super) fn history_order() -> IndexCreateStatement {
    index(INDEX, TABLE, &["customer_id", "version", "id"])
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_index(history_order().if_not_exists().take()).await?;
        manager.drop_index(Index::drop().name(OLD_INDEX).table(TABLE).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_index(index(OLD_INDEX, TABLE, &["customer_id", "id"])).await?;
        manager.drop_index(Index::drop().name(INDEX).table(TABLE).to_owned()).await
    }
}
