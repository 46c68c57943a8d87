//! Reads rows of `customer` and `customer_operator`.
//!
//! Columns are read by their position in the entity, because reading them by name takes several times as long, and a
//! response can have hundreds of rows.

use crate::database::{subquery, try_get_time};
use entity::value::{CustomerId, EmailAddress, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{BinOper, Expr, ExprTrait, IntoTableRef, LockType, Order, Query, SelectStatement, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, Iterable, QueryFilter, QueryResult, QuerySelect,
    QueryTrait, SelectTwo,
};

/// A row of `customer_operator`: the customer is connected to the operator.
pub(super) type Link = customer_operator::Model;

/// A customer of an operator, and its link to the operator.
pub(super) struct OwnCustomer {
    pub(super) link: Link,
    pub(super) customer: customer::Model,
}

/// Reads a link whose first column is at `first`.
pub(super) fn link_at(row: &QueryResult, first: usize) -> Result<Link, DbErr> {
    use customer_operator::Column;
    let at = |column: Column| first + column as usize;
    Ok(Link {
        operator_id: row.try_get_by_index(at(Column::OperatorId))?,
        customer_id: row.try_get_by_index(at(Column::CustomerId))?,
        external_customer_id: row.try_get_by_index(at(Column::ExternalCustomerId))?,
        connected_at: row.try_get_by_index(at(Column::ConnectedAt))?,
    })
}

/// Reads a customer whose first column is at `first`.
pub(super) fn customer_at(row: &QueryResult, first: usize) -> Result<customer::Model, DbErr> {
    use customer::Column;
    let at = |column: Column| first + column as usize;
    Ok(customer::Model {
        id: row.try_get_by_index(at(Column::Id))?,
        email: row.try_get_by_index(at(Column::Email))?,
        phone: row.try_get_by_index(at(Column::Phone))?,
        first_name: row.try_get_by_index(at(Column::FirstName))?,
        last_name: row.try_get_by_index(at(Column::LastName))?,
        address: row.try_get_by_index(at(Column::Address))?,
        version: row.try_get_by_index(at(Column::Version))?,
        created_at: row.try_get_by_index(at(Column::CreatedAt))?,
        updated_at: row.try_get_by_index(at(Column::UpdatedAt))?,
        revision: row.try_get_by_index(at(Column::Revision))?,
        email_verified_at: try_get_time(row, at(Column::EmailVerifiedAt))?,
        phone_verified_at: try_get_time(row, at(Column::PhoneVerifiedAt))?,
    })
}

/// Reads a customer whose first column is at `first`. `None` if an outer join found no customer.
pub(super) fn joined_customer_at(row: &QueryResult, first: usize) -> Result<Option<customer::Model>, DbErr> {
    let id: Option<CustomerId> = row.try_get_by_index(first + customer::Column::Id as usize)?;
    id.map(|_| customer_at(row, first)).transpose()
}

/// Reads a link whose first column is at `first`, and the customer after it.
pub(super) fn own_customer_at(row: &QueryResult, first: usize) -> Result<OwnCustomer, DbErr> {
    let link = link_at(row, first)?;
    let customer = customer_at(row, first + customer_operator::Column::iter().len())?;
    Ok(OwnCustomer { link, customer })
}

/// Like [`own_customer_at`]. `None` if an outer join found no link.
pub(super) fn joined_own_customer_at(row: &QueryResult, first: usize) -> Result<Option<OwnCustomer>, DbErr> {
    let operator: Option<OperatorId> = row.try_get_by_index(first + customer_operator::Column::OperatorId as usize)?;
    operator.map(|_| own_customer_at(row, first)).transpose()
}

/// Runs a query for all columns of `customer`.
pub(super) async fn read_customers(
    connection: &impl ConnectionTrait,
    query: &SelectStatement,
) -> Result<Vec<customer::Model>, DbErr> {
    connection.query_all(query).await?.iter().map(|row| customer_at(row, 0)).collect()
}

/// Runs a query for links and their customers, such as [`of_operator`].
pub(super) async fn read_own_customers(
    connection: &impl ConnectionTrait,
    query: &SelectStatement,
) -> Result<Vec<OwnCustomer>, DbErr> {
    connection.query_all(query).await?.iter().map(|row| own_customer_at(row, 0)).collect()
}

/// Runs a query for links and their customers, and locks both. The link is locked as well, because a query that waits
/// for the customer would otherwise return a link that was deleted in the meantime.
pub(super) async fn lock_own_customers(
    connection: &impl ConnectionTrait,
    mut query: SelectTwo<customer_operator::Entity, customer::Entity>,
) -> Result<Vec<OwnCustomer>, DbErr> {
    let locked = [customer::Entity.into_table_ref(), customer_operator::Entity.into_table_ref()];
    QuerySelect::query(&mut query).lock_with_tables(LockType::Update, locked);
    read_own_customers(connection, &query.into_query()).await
}

/// Selects the links of an operator, with their customers.
pub(super) fn of_operator(operator: impl Into<SimpleExpr>) -> SelectTwo<customer_operator::Entity, customer::Entity> {
    customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.into_expr().eq(operator))
        .inner_join(customer::Entity)
        .select_also(customer::Entity)
}

/// Selects `id`, the id of the customer that has this value in `column`, the email or the phone. It is null if no
/// customer has the value. Also selects `next_own_id`, the first id of the operator's customers at or after the id of
/// the customer that was read. If both ids are equal, the customer with the value is one of the operator's customers.
///
/// Timing-safe: the query does the same work for known and unknown people, so response times do not reveal the
/// customers of other operators (a difference of 2 µs shows after 30 requests per person). Instead of looking up
/// `value`, it reads the first customer at or after `value` in index order, then the operator's first link at or after
/// that customer's id. Looking up the link itself would also reveal how many operators the person has. The query does
/// less work if the value sorts after all stored values, and takes longer if it reads a row from the disk. Do not turn
/// this query into a join: PostgreSQL would read all links of the operator.
///
/// ```sql
/// SELECT CASE WHEN email = $2 THEN id END AS id,
///   (SELECT customer_id FROM customer_operator AS own WHERE own.operator_id = $1 AND own.customer_id >= customer.id
///    ORDER BY own.customer_id LIMIT 1) AS next_own_id
/// FROM customer WHERE email >= $2 ORDER BY email LIMIT 1
/// ```
pub(super) fn timing_safe_lookup(operator: SimpleExpr, column: customer::Column, value: SimpleExpr) -> SelectStatement {
    const OWN: &str = "own";
    let of_own = |column: customer_operator::Column| Expr::col((OWN, column));
    let id = customer::Column::Id.into_expr();
    let next_own = Query::select()
        .expr(of_own(customer_operator::Column::CustomerId))
        .from_as(customer_operator::Entity, OWN)
        .and_where(of_own(customer_operator::Column::OperatorId).eq(operator))
        .and_where(of_own(customer_operator::Column::CustomerId).gte(id.clone()))
        .order_by((OWN, customer_operator::Column::CustomerId), Order::Asc)
        .limit(1)
        .take();
    Query::select()
        .expr_as(Expr::case(column.into_expr().eq(value.clone()), id), customer::Column::Id)
        .expr_as(subquery(next_own), NEXT_OWN_ID)
        .from(customer::Entity)
        .and_where(column.into_expr().gte(value))
        .order_by(column, Order::Asc)
        .limit(1)
        .take()
}

/// The second column of [`timing_safe_lookup`].
pub(super) const NEXT_OWN_ID: &str = "next_own_id";

/// Matches the operator's links, with their customers, if the customer has all these values. Each value is an email or
/// a phone. Takes the same time whether or not the platform knows the person (see [`timing_safe_lookup`]).
pub(super) fn has_all<V: Into<SimpleExpr>>(
    operator: impl Into<SimpleExpr>,
    values: impl IntoIterator<Item = (customer::Column, V)>,
) -> Condition {
    let values: Vec<_> = values.into_iter().map(|(column, value)| (column, value.into())).collect();
    let is_candidate = values.first().cloned().map(|(column, value)| {
        let lookup = timing_safe_lookup(operator.into(), column, value);
        let next_own_id = Query::select().column(NEXT_OWN_ID).from_subquery(lookup, "lookup").take();
        customer_operator::Column::CustomerId.into_expr().eq(subquery(next_own_id))
    });
    // The concatenation prevents the database from looking up a value in an index.
    let is_in_row = |(column, value): (customer::Column, SimpleExpr)| {
        column.into_expr().binary(BinOper::Custom("||"), "").eq(value)
    };
    values.into_iter().map(is_in_row).fold(Condition::all().add_option(is_candidate), Condition::add)
}

/// Matches the customers that have this email or this phone.
pub(super) fn has_email_or_phone(email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Condition {
    Condition::any()
        .add_option(email.map(|email| customer::Column::Email.eq(email.clone())))
        .add_option(phone.map(|phone| customer::Column::Phone.eq(phone.clone())))
}
