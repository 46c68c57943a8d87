//! Replaces an index of history entries by a partial index. An operator sees the history of a customer from the entry
//! that connected the customer to the operator. The partial index has only such entries, so updates do not write to it.

use sea_orm_migration::prelude::*;

use crate::index;
use crate::m20261126_000012_event_lookups::TABLE;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

pub(super) const INDEX: &str = "customer_event_connecting_idx";

const OLD_INDEX: &str = "customer_event_operator_id_idx";

pub(super) fn connecting_entries() -> IndexCreateStatement {
    let columns = ["customer_id", "operator_id", "version", "id"];
    index(INDEX, TABLE, &columns).and_where(Expr::col("type").is_in(["created", "connected"])).take()
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_index(connecting_entries().if_not_exists().take()).await?;
        manager.drop_index(Index::drop().name(OLD_INDEX).table(TABLE).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_index(index(OLD_INDEX, TABLE, &["customer_id", "operator_id", "id"])).await?;
        manager.drop_index(Index::drop().name(INDEX).table(TABLE).to_owned()).await
    }
}
