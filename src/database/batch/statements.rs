//! Builders of statements that take their rows from a query, or from the common table expression (`cte`) of a
//! [`WriteStatement`](super::WriteStatement).

use sea_orm::sea_query::{
    Alias, DeleteStatement, Expr, ExprTrait, InsertStatement, Query, SelectStatement, UpdateStatement,
};
use sea_orm::{ColumnTrait, EntityTrait, Iterable};

/// Builds `INSERT INTO … SELECT …` with all columns of the entity, in their order.
///
/// If an `ON CONFLICT` clause follows, `rows` needs a `WHERE` clause. Without the `WHERE` clause, SQLite would read the
/// `ON` as part of a join.
pub fn insert_from_select<E: EntityTrait>(rows: SelectStatement) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table(E::default().table_ref()).columns(E::Column::iter());
    let result = insert.select_from(rows).map(|_| ());
    debug_assert_eq!(result, Ok(()), "rows must have as many columns as the entity");
    insert
}

/// Builds an `INSERT` of the rows of `cte`, which must have all columns of the entity. An `ON CONFLICT` clause may
/// follow.
pub fn insert_from_cte<E: EntityTrait>(cte: &Alias) -> InsertStatement {
    let columns = E::Column::iter().map(Expr::col);
    insert_from_select::<E>(Query::select().exprs(columns).from(cte.clone()).and_where(Expr::cust("TRUE")).take())
}

/// Builds an `UPDATE` that sets `columns` to the values in the row of `cte` with the same `keys`.
pub fn update_from_cte<E: EntityTrait>(
    cte: &Alias,
    keys: &[E::Column],
    columns: impl IntoIterator<Item = E::Column>,
) -> UpdateStatement {
    let new_value = |column: E::Column| Expr::col((cte.clone(), column));
    let mut update = Query::update();
    update.table(E::default().table_ref()).from(cte.clone());
    update.values(columns.into_iter().map(|column| (column, new_value(column))));
    for key in keys {
        update.and_where(key.into_expr().eq(new_value(*key)));
    }
    update
}

/// Builds a `DELETE` of the rows whose `keys` have the values of a row of `cte`.
pub fn delete_in_cte<E: EntityTrait>(cte: &Alias, keys: &[E::Column]) -> DeleteStatement {
    let listed = Query::select().columns(keys.iter().copied()).from(cte.clone()).take();
    let is_listed = Expr::tuple(keys.iter().map(|key| key.into_expr())).in_subquery(listed);
    Query::delete().from_table(E::default().table_ref()).and_where(is_listed).take()
}
