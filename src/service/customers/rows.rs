//! Reads and writes the rows of customers and links.

use entity::value::{EmailAddress, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, ExprTrait, Query, SimpleExpr};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, DbErr, EntityTrait, IdenStatic, Iterable, QueryFilter, QueryResult,
    SelectTwo, TryIntoModel,
};

use super::search;
use crate::database::{Dml, WriteBatch, WriteStatement, row_values};
use crate::service::now;

/// That a customer is one of an operator.
pub(super) type Link = customer_operator::Model;

/// Reads the columns of a link from this one on, in the order of the entity. By name takes several times as long, and a
/// page has hundreds of them.
pub(super) fn link_at(row: &QueryResult, first: usize) -> Result<Link, DbErr> {
    let [operator_id, customer_id, external_customer_id, connected_at] = [0, 1, 2, 3].map(|column| first + column);
    Ok(Link {
        operator_id: row.try_get_by_index(operator_id)?,
        customer_id: row.try_get_by_index(customer_id)?,
        external_customer_id: row.try_get_by_index(external_customer_id)?,
        connected_at: row.try_get_by_index(connected_at)?,
    })
}

pub(super) const LINK_COLUMNS: usize = 4;

/// The same of a customer.
pub(super) fn customer_at(row: &QueryResult, first: usize) -> Result<customer::Model, DbErr> {
    let [id, email, phone, first_name, last_name, address, version, created_at, updated_at, revision] =
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|column| first + column);
    Ok(customer::Model {
        id: row.try_get_by_index(id)?,
        email: row.try_get_by_index(email)?,
        phone: row.try_get_by_index(phone)?,
        first_name: row.try_get_by_index(first_name)?,
        last_name: row.try_get_by_index(last_name)?,
        address: row.try_get_by_index(address)?,
        version: row.try_get_by_index(version)?,
        created_at: row.try_get_by_index(created_at)?,
        updated_at: row.try_get_by_index(updated_at)?,
        revision: row.try_get_by_index(revision)?,
    })
}

/// An operator's own customer.
pub(super) fn own_at(row: &QueryResult) -> Result<(Link, customer::Model), DbErr> {
    Ok((link_at(row, 0)?, customer_at(row, LINK_COLUMNS)?))
}

/// The links of an operator, with their customers: the only way to an operator's customers.
pub(super) fn of_operator(operator: impl Into<SimpleExpr>) -> SelectTwo<customer_operator::Entity, customer::Entity> {
    customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.into_expr().eq(operator))
        .inner_join(customer::Entity)
        .select_also(customer::Entity)
}

pub(super) fn holds_any(email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Condition {
    Condition::any()
        .add_option(email.map(|email| customer::Column::Email.eq(email.clone())))
        .add_option(phone.map(|phone| customer::Column::Phone.eq(phone.clone())))
}

/// WriteBatch customers over those with the revisions before.
const REPLACE: WriteStatement = WriteStatement {
    name: "replace customers",
    columns: || customer::Column::iter().map(|column| column.as_str()).collect(),
    statement: |new| {
        use customer::Column::{Id, Revision};
        let of = |column| Expr::col((new.clone(), column));
        let others = customer::Column::iter().filter(|column| !matches!(column, Id));
        let update = Query::update()
            .table(customer::Entity)
            .values(others.map(|column| (column, of(column))))
            .from(new.clone())
            .and_where(Id.into_expr().eq(of(Id)))
            .and_where(Revision.into_expr().eq(of(Revision).sub(1)))
            .take();
        Dml::Update(update)
    },
    must_write_all: true,
};

/// WriteBatch the columns that are set, as a new version, and the words that change with them; none set, only that something
/// happened to the customer. If that is no longer the one that is current, the race is lost.
pub(super) fn write(
    writes: &mut WriteBatch,
    current: &customer::Model,
    mut row: customer::ActiveModel,
) -> Result<customer::Model, DbErr> {
    let is_changed = row.is_changed();
    if is_changed {
        row.version = Set(current.version + 1);
        row.updated_at = Set(now());
    }
    row.revision = Set(current.revision + 1);
    let customer = row.try_into_model()?;
    writes.push(REPLACE, vec![row_values(&customer)]);
    if is_changed {
        search::change(writes, current, &customer);
    }
    Ok(customer)
}
