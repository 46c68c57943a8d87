//! Writes the rows of the feed for each history entry.
//!
//! The platform gets a row for each entry. An operator gets a row if the entry is about its own link: a new, changed or
//! removed link, or the link to an erased customer. The operators of all other links get a row if
//! `history::visibility_to_others` shows them the entry. No row tells an operator that the customer has other
//! operators.

use entity::customer_change::{Column, Entity, Model};
use entity::customer_event::{self, EventType};
use entity::customer_operator;
use entity::value::{ChangedFields, OperatorId};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query, SelectStatement, SimpleExpr, UnionType};
use sea_orm::{ActiveEnum, ColumnTrait, DbBackend, IdenStatic, Iterable, JoinType, Value};

use super::field::CustomerField;
use super::row_reads::Link;
use crate::database::{WriteSet, WriteStatement, insert_from_select, row_values};
use crate::service::feed_positions;

/// Inserts a row for each operator with a link to the customer, and a row for the platform.
const INSERT_FOR_ALL: WriteStatement = WriteStatement {
    name: "feed of all readers",
    columns: || {
        let columns = SHARED.into_iter().map(|column| column.as_str());
        columns.chain([Column::Type.as_str(), TYPE_FOR_OPERATORS, AUTHOR]).collect()
    },
    build: |new, backend| Box::new(insert_from_select::<Entity>(rows_for_all(new, backend))),
    must_write_all: false,
};

/// Selects the rows of [`INSERT_FOR_ALL`].
fn rows_for_all(new: &Alias, backend: DbBackend) -> SelectStatement {
    use customer_operator::Column::{CustomerId, ExternalCustomerId, OperatorId};
    let of_new = |column: &'static str| Expr::col((new.clone(), Alias::new(column)));
    let is_linked = CustomerId.into_expr().eq(of_new(Column::CustomerId.as_str()));
    let operator = [OperatorId.into_expr(), ExternalCustomerId.into_expr(), of_new(TYPE_FOR_OPERATORS)];
    let platform = [feed_positions::platform_id_literal(backend), Expr::cust("NULL"), of_new(Column::Type.as_str())];
    let rows_for = |[reader_id, external_id, r#type]: [SimpleExpr; 3]| {
        let values = [
            (Column::Own, reader_id.clone().eq(of_new(AUTHOR))),
            (Column::ReaderId, reader_id),
            (Column::ExternalCustomerId, external_id),
            (Column::Type, r#type),
        ];
        rows(new, backend, &values)
    };
    if backend == DbBackend::Postgres {
        // The union of the readers is in a `LATERAL` join. PostgreSQL then reads the base of the position once, and not
        // for each branch of the union.
        let columns = ["reader_id", "external_customer_id", "type"];
        let select = |values: [SimpleExpr; 3]| {
            let mut select = Query::select();
            values
                .into_iter()
                .zip(columns)
                .fold(&mut select, |select, (value, name)| select.expr_as(value, name))
                .take()
        };
        let mut readers = select(operator).from(customer_operator::Entity).and_where(is_linked).take();
        let readers = readers.union(UnionType::All, select(platform)).take();
        let of_reader = columns.map(|column| Expr::col((Alias::new("reader"), Alias::new(column))));
        return rows_for(of_reader).join_lateral(JoinType::InnerJoin, readers, "reader", Expr::cust("TRUE")).take();
    }
    // SQLite has no `LATERAL`.
    let mut operators = rows_for(operator);
    operators.inner_join(customer_operator::Entity, is_linked).union(UnionType::All, rows_for(platform)).take()
}

/// Inserts rows for given readers.
const INSERT: WriteStatement = WriteStatement {
    name: "feed of readers",
    columns: || given_columns().map(|column| column.as_str()).collect(),
    build: |new, backend| Box::new(insert_from_select::<Entity>(rows(new, backend, &[]))),
    must_write_all: false,
};

/// The columns with the same value for all readers.
const SHARED: [Column; 5] =
    [Column::Id, Column::CustomerId, Column::Version, Column::ChangedFields, Column::OccurredAt];

/// The extra columns of [`INSERT_FOR_ALL`].
const TYPE_FOR_OPERATORS: &str = "type_for_operators";
const AUTHOR: &str = "author_id";

/// The columns of [`INSERT`]: all columns except those that the database computes for each new row.
fn given_columns() -> impl Iterator<Item = Column> {
    Column::iter().filter(|column| !matches!(column, Column::Position | Column::Swept))
}

/// Selects rows to insert. `position` is the current position, and `swept` is false. Any other column that is not among
/// `values` has the value of the common table expression `new`.
fn rows(new: &Alias, backend: DbBackend, values: &[(Column, SimpleExpr)]) -> SelectStatement {
    let of_each_row = [(Column::Position, feed_positions::new_position(backend)), (Column::Swept, Expr::cust("FALSE"))];
    let value = |column: Column| {
        let found = values.iter().chain(&of_each_row).find(|(other, _)| other.as_str() == column.as_str());
        found.map_or_else(|| Expr::col((new.clone(), column)), |(_, value)| value.clone())
    };
    Query::select().exprs(Column::iter().map(value)).from(new.clone()).take()
}

/// Adds the rows of an entry to the writes: a row for the platform, and rows of the type of the entry for the operators
/// of `links`. These links are new, changed or removed by the same writes
/// ([`is_about_links`](super::history::is_about_links)). Each link has the external id that the row gets.
///
/// If `type_for_linked` is given, each operator with a stored link gets a row of this type. The links in `links` must
/// then be new: the operator of a stored link would get two rows. In this case, add these rows before all writes that
/// insert, change or delete links (see `change_rows`).
///
/// The row of the platform comes last. On SQLite the position of a row is one more than the last position of the
/// platform, and all rows of an entry must have the same position, even if they are inserted by several statements.
pub(super) fn add(
    writes: &mut WriteSet,
    entry: &customer_event::Model,
    links: &[Link],
    type_for_linked: Option<EventType>,
) {
    let author = entry.operator_id.unwrap_or(OperatorId::PLATFORM);
    let names = CustomerField::changed_by(entry).map(|field| field.name().to_owned());
    let for_platform = Model {
        reader_id: OperatorId::PLATFORM,
        position: 0,
        id: entry.id,
        customer_id: entry.customer_id,
        external_customer_id: None,
        r#type: entry.r#type,
        version: entry.version,
        changed_fields: ChangedFields(names.collect()),
        own: author == OperatorId::PLATFORM,
        occurred_at: entry.occurred_at,
        swept: false,
    };
    let for_operator = |link: &Link| Model {
        reader_id: link.operator_id,
        external_customer_id: Some(link.external_customer_id.clone()),
        own: author == link.operator_id,
        ..for_platform.clone()
    };
    let mut given: Vec<_> = links.iter().map(for_operator).collect();
    if type_for_linked.is_none() {
        given.push(for_platform.clone());
    }
    writes.push(INSERT, given.iter().map(|row| values_of(row, given_columns())).collect());
    if let Some(r#type) = type_for_linked {
        let mut row = values_of(&for_platform, SHARED.into_iter().chain([Column::Type]));
        row.extend([r#type.to_value().into(), author.into()]);
        writes.push(INSERT_FOR_ALL, vec![row]);
    }
}

fn values_of(row: &Model, columns: impl Iterator<Item = Column>) -> Vec<Value> {
    let values: Vec<_> = row_values(row);
    columns.map(|column| values[column as usize].clone()).collect()
}
