//! Adds two indexes of history entries, which together have each entry once. The first index has the entries that all
//! operators of the customer see. The second index has the other entries, which only the operator that made the change
//! sees. An operator reads its part of the history from both, without reading entries that it does not see.

use sea_orm_migration::prelude::*;

use crate::index;
use crate::m20261126_000012_event_lookups::TABLE;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The condition of the first index.
const IS_SHOWN: &str = r#"("type" IN ('updated', 'verified') OR ("type" IN ('connected') AND "before" <> "after"))"#;

pub(super) fn indexes() -> [(&'static str, IndexCreateStatement); 2] {
    let shown = ("customer_event_shown_idx", &["customer_id", "version", "id"][..], IS_SHOWN.to_owned());
    let hidden =
        ("customer_event_hidden_idx", &["customer_id", "operator_id", "version", "id"][..], format!("NOT {IS_SHOWN}"));
    [shown, hidden]
        .map(|(name, columns, condition)| (name, index(name, TABLE, columns).and_where(Expr::cust(condition)).take()))
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (_, mut index) in indexes() {
            manager.create_index(index.if_not_exists().take()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in indexes() {
            manager.drop_index(Index::drop().name(name).table(TABLE).to_owned()).await?;
        }
        Ok(())
    }
}
