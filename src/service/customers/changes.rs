//! Writes a changed customer together with its search words.

use entity::customer;
use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{ColumnTrait, IdenStatic, Iterable};

use super::search;
use crate::database::{WriteSet, WriteStatement, row_values};
use crate::service::now;

/// Replaces a customer only if the stored revision is one less than the revision of the new row.
const REPLACE: WriteStatement = WriteStatement {
    name: "replace customers",
    columns: || customer::Column::iter().map(|column| column.as_str()).collect(),
    statement: |new| {
        use customer::Column::{Id, Revision};
        let new_value = |column| Expr::col((new.clone(), column));
        let columns = customer::Column::iter().filter(|column| !matches!(column, Id));
        let update = Query::update()
            .table(customer::Entity)
            .values(columns.map(|column| (column, new_value(column))))
            .from(new.clone())
            .and_where(Id.into_expr().eq(new_value(Id)))
            .and_where(Revision.into_expr().eq(new_value(Revision).sub(1)))
            .take();
        Box::new(update)
    },
    must_write_all: true,
    multiplies: false,
};

/// Replaces `current` by `changed` and returns the row as it is written.
///
/// If a value differs, the row gets a new version and the customer's search words are updated. If no value differs,
/// only the revision is incremented, so that concurrent writers that have read the old revision conflict. The write
/// fails if `current` is outdated.
pub(super) fn replace(
    writes: &mut WriteSet,
    current: &customer::Model,
    mut changed: customer::Model,
) -> customer::Model {
    let is_changed = changed != *current;
    if is_changed {
        changed.version = current.version + 1;
        changed.updated_at = now();
    }
    changed.revision = current.revision + 1;
    writes.push(REPLACE, vec![row_values(&changed)]);
    if is_changed {
        search::change(writes, current, &changed);
    }
    changed
}
