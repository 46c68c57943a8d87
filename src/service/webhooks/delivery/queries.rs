//! The parts of queries that the claim, the poll and the gauges share.

use entity::webhook::Column;
use sea_orm::sea_query::{SelectStatement, SimpleExpr};
use sea_orm::{ColumnTrait, Condition, DbBackend, QuerySelect, QueryTrait};

use crate::service::feed;

/// Returns the condition for the endpoints to which changes are delivered.
pub(super) fn is_active() -> Condition {
    Condition::all().add(Column::DisabledAt.is_null()).add(Column::PausedAt.is_null())
}

/// Selects `expression` from the visible changes after the cursor of the endpoint in the outer query.
pub(super) fn undelivered_changes(backend: DbBackend, expression: SimpleExpr) -> SelectStatement {
    let cursor = [Column::DeliveredPosition, Column::DeliveredId].map(|column| column.into_expr());
    let changes = feed::visible_after(backend, Column::OperatorId.into_expr(), cursor);
    changes.select_only().expr(expression).into_query()
}
